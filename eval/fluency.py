"""Free text after an edit: is it still varied (fluency), and is it about the new target (consistency)?

As in ROME (Meng et al. 2022, arXiv 2202.05262; ``experiments/py/eval_utils_counterfact.py``). Differs from the reference:
words are split by NLTK's word tokenizer without its sentence splitter, which needs a download.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Length of the n-grams to their weight."""


def ngram_entropy(text: str) -> float:
    """Weighted mean of the entropies of the words' bigrams and trigrams, in bits: ``((2/3) H_2 + (4/3) H_3) / 2``.

    0 for a text of fewer than three words, or of one n-gram repeated. Papers print a hundred times this.
    """
    from nltk.tokenize import NLTKWordTokenizer

    words = NLTKWordTokenizer().tokenize(text)
    return sum(weight * _entropy(words, n) for n, weight in WEIGHTS.items()) / len(WEIGHTS)


def _entropy(words: Sequence[str], n: int) -> float:
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()
    total = sum(counts)
    return sum(count / total * math.log2(total / count) for count in counts)


def consistency(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: Sequence[str] | None = None,
) -> list[float]:
    """Cosine of the TF-IDF vectors of each text and of its references taken together; NaN where it has none.

    Words and their document frequencies are those of ``documents`` (``None``: of all ``references``), each counted once. Where
    few texts of a slice are asked at a time, give those of all: of fewer documents fewer words count, and a text looks closer.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if documents is None:
        documents = [one for some in references for one in some]
    known = list(dict.fromkeys(documents))
    if not known:
        return [math.nan] * len(texts)
    vectors = TfidfVectorizer().fit(known)
    pairs = [
        vectors.transform([text, " ".join(some)])
        for text, some in zip(texts, references, strict=True)
    ]
    return [
        float((v[0] @ v[1].T).toarray()[0, 0]) if some else math.nan
        for v, some in zip(pairs, references, strict=True)
    ]
