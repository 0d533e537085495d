"""Free text after an edit: is it still varied (fluency), and is it about the target (consistency)?

As in ROME (Meng et al. 2022, arXiv 2202.05262; ``experiments/py/eval_utils_counterfact.py``), with
one difference: the words come from NLTK's word tokenizer without its sentence splitter, which would
need a download.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""n -> weight of the entropy of n-grams."""


def ngram_entropy(text: str) -> float:
    """Return the weighted mean entropy of the words' bigrams and trigrams, in bits.

    The formula is ``((2/3) H_2 + (4/3) H_3) / 2``. It is 0 for a text of fewer than three words,
    or of one n-gram repeated. Papers print 100 times this value.
    """
    from nltk.tokenize import NLTKWordTokenizer

    words = NLTKWordTokenizer().tokenize(text)
    return sum(weight * _entropy(words, n) for n, weight in WEIGHTS.items()) / len(WEIGHTS)


def _entropy(words: Sequence[str], n: int) -> float:
    # n copies of the words, each shifted by one more: zipped, they are the n-grams.
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()
    total = sum(counts)
    return sum(count / total * math.log2(total / count) for count in counts)


def consistency(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    documents: Sequence[str] | None = None,
) -> list[float]:
    """Return the cosine of the TF-IDF vectors of each text and of its references, joined.

    Args:
        references: the reference texts of each text. A text without any scores NaN.
        documents: the texts that decide the vocabulary and the document frequencies, each counted
            once; ``None`` means all of ``references``. If only part of a slice is asked, pass the
            documents of the whole slice: fewer documents have fewer words, which makes texts look
            more alike.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if documents is None:
        documents = [document for group in references for document in group]
    unique = list(dict.fromkeys(documents))
    if not unique:
        return [math.nan] * len(texts)
    vectorizer = TfidfVectorizer().fit(unique)

    def cosine(text: str, group: Sequence[str]) -> float:
        if not group:
            return math.nan
        vectors = vectorizer.transform([text, " ".join(group)])
        # TfidfVectorizer scales each row to length 1, so the dot product is the cosine.
        return float((vectors[0] @ vectors[1].T).toarray()[0, 0])

    return [cosine(text, group) for text, group in zip(texts, references, strict=True)]
