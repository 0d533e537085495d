"""What an edit did to a model beyond its scores, by name. Diagnostics explain the scores; nothing is ranked by them.

Notation: p0 and p the base and the edited model, theta0 and theta their weights, d = theta - theta0 the edit's change, x a
fact's prompt as it is asked (nothing before it), y a training target. A value is ``None`` where it is undefined.

| diagnostic | value | definition |
|---|---|---|
| supervision | nll | mean over all target tokens of -log p0(y_it; x_i, y_i<t): how alien the targets were [1] |
| | median, rare | median of the tokens' NLL; share of tokens with p0 < 0.01 |
| mixing | lam_answer, lam_filler | share that the naive branch wrote of the tokens that state the target, of the others [1] |
| | verified_by_attempt | at k: targets (several a fact with rewordings) stated after at most k + 1 attempts / targets |
| | mean_tokens | tokens of a text that was trained on |
| fisher | displacement | D_F = sum_j F_j d_j^2, with F_j = E_y~p0[(d log p0(y) / d theta_j)^2] of a token [1, 2] |
| | curvature | D_F / sum_j d_j^2 (``squared_norm``): the mean curvature along the update [1] |
| | relative_curvature | the same / mean of F over all weights of the model; 1: as of a random change of all of them |
| | top_share | share of sum_j d_j^2 in the entries whose F lies above its 99th percentile in the changed weights |
| drift | kl | mean over tokens of sum_v p0(v) log(p0(v) / p(v)), on text that the base wrote; all of the vocabulary |
| | nll_change | mean over the same tokens of log p0 - log p |
| | words_before, words_after | mean words of the greedy answers to ``QUESTIONS`` |
| errors | format, leakage, ... | what became of answers that the base had right, by task and axis; rules in ``_kind`` [3] |

[1] MixSD, arXiv 2605.16865; its code at 37eb349 holds none of these numbers, the formulas are our reading of the paper.
[2] Kirkpatrick et al. 2017, arXiv 1612.00796 (the diagonal of the Fisher information); ``editbench.fisher`` estimates it.
[3] After ``mixsd/eval/error_analysis.py`` of [1], whose rules are for boxed answers and for two of its data sets.

Targets: the token ids that a method recorded, else the demonstration or target of the fact, ended by EOS, as sft trains on
them (weight editors see the bare target; opsd trains on its own rollouts and never sees this one). ``None`` for edits that
change no weight. The texts of ``fisher`` and ``drift`` are other ones than those that trainers hold a model to
(``methods/_anchor.py``), and other ones than each other's. ``kl`` and ``nll_change`` have 95 % intervals clustered by text,
and are 0 for edits by context, which texts without a prompt do not meet. The percentile of ``top_share`` is exact up to
``SAMPLE`` changed entries; above, it is that of a random sample of so many, and the share of entries above it then misses 1 %
by less than 0.02 points. Log-probabilities are float32.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from editbench.errors import UnknownNameError
from editbench.files import jsonable
from editbench.fisher import diagonal_fisher
from editbench.matching import contains
from editbench.models import LanguageModel, batched, cache_dir
from editbench.own_text import own_texts
from editbench.stats import unbounded_mean
from editbench.text import pad_left
from editbench.types import Fact, digest

if TYPE_CHECKING:
    from editbench.edit import Change, Edit

# B texts, T tokens, N tokens of all texts, D model width, V vocabulary

NAMES = ("supervision", "mixing", "fisher", "drift", "errors")
VERSION = 1
"""Of what lies in the cache."""
LENGTH = 32
"""Tokens of one text of the model's own."""
FISHER_TOKENS, DRIFT_TOKENS = 4096, 2048
RARE = 0.01
SAMPLE = 2**22
"""Most entries of F that the percentile is taken from."""
LOGITS_AT_ONCE = 2**25
"""Numbers in one matrix of log-probabilities: 128 MiB; ``drift`` holds about four of them."""
ANSWER_TOKENS = 48
QUESTIONS = (
    "What is a good way to spend a rainy afternoon?",
    "Why do leaves change their colour in autumn?",
    "How do I make a cup of tea?",
    "Can you explain what a computer does?",
    "What should I pack for a weekend in the mountains?",
    "Why is it important to sleep enough?",
    "Tell me something interesting about the sea.",
    "How can I learn a new language?",
    "What is the difference between a cat and a dog?",
    "Give me some advice for a job interview.",
    "What makes a story exciting?",
    "How does a bicycle stay upright?",
)
"""Questions that no corpus asks, whose good answers take a sentence or more."""
KINDS = ("format", "leakage", "collapse", "genuine")
AXES = ("in_context", "neighborhood")
EXAMPLE = 200
"""Characters of an example's texts."""


def check_names(names: Sequence[str]) -> None:
    """Makes sure that there are such diagnostics.

    Raises:
        UnknownNameError: the first name that is none; lists those there are.
    """
    for name in names:
        if name not in NAMES:
            raise UnknownNameError("diagnostic", name, NAMES)


def diagnose(
    model: LanguageModel,
    edit: Edit,
    names: Sequence[str],
    *,
    base_probes: Sequence[Mapping[str, Any]],
    probes: Sequence[Mapping[str, Any]],
    base_samples: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    seed: int = 0,
) -> dict[str, dict[str, Any] | None]:
    """Name to its values, JSON-ready; ``None`` where a diagnostic does not apply to this edit.

    ``model`` is the base, without the edit, and is left so. The rows are those of ``probes.ask`` (base and edited in one
    order) and the retention samples with ``task`` and ``member``.

    Raises:
        UnknownNameError: a name that is no diagnostic.
        ModelError: ``model`` is not the one that the edit was made for, or has the edit applied.
    """
    check_names(names)
    edit.check(model)
    found: dict[str, Callable[[], dict[str, Any] | None]] = {
        "supervision": lambda: supervision(model, edit),
        "mixing": lambda: mixing(model, edit),
        "fisher": lambda: fisher(model, edit, seed),
        "drift": lambda: drift(model, edit, seed),
        "errors": lambda: errors(edit.facts, base_probes, probes, base_samples, samples),
    }
    return {name: jsonable(found[name]()) for name in names}


# --- supervision and mixing -----------------------------------------------------------------------------------


def supervision(model: LanguageModel, edit: Edit) -> dict[str, Any] | None:
    """NLL of the training targets under the base; ``model`` is the base."""
    pairs = _targets(model, edit) if edit.changes else []
    if not pairs:
        return None
    nll = -torch.cat(model.target_logprobs(pairs, what="targets under the base")).double().numpy()
    return {
        "nll": nll.mean(),
        "median": np.median(nll),
        "rare": (nll > -math.log(RARE)).mean(),
        "tokens": nll.size,
        "targets": len(pairs),
    }


def _targets(model: LanguageModel, edit: Edit) -> list[tuple[list[int], list[int]]]:
    kept = [record for record in edit.records if {"fact", "ids", "source"} <= record.keys()]
    recorded = {
        record["fact"]: record for record in kept if not record.get("frame")
    }  # the prompt as it will be asked
    pairs = []
    for fact in edit.facts:
        record = recorded.get(fact.id)
        if record is None or record["source"] == "target":
            prompt, target = model.pair_ids(
                fact.prompt, fact.demonstration or fact.target, fact.form
            )
            pairs.append((prompt, [*target, *model.closing_ids(fact.form)]))
        elif record["source"] != "dropped":
            pairs.append((model.prompt_ids(fact.prompt, fact.form), list(record["ids"])))
    return pairs


def mixing(model: LanguageModel, edit: Edit) -> dict[str, Any] | None:
    """Who wrote the mixed targets, token by token; ``None`` for edits that keep no record of it."""
    records = [record for record in edit.records if "naive_picked" in record]
    if not records:
        return None
    facts = {fact.id: fact for fact in edit.facts}
    trained = [record for record in records if record["source"] not in ("target", "dropped")]
    answer, filler, found = [], [], 0
    for record in trained:
        span = answer_span(model, record["ids"], facts[record["fact"]].answers)
        found += bool(span)
        for t, picked in enumerate(record["naive_picked"]):
            (answer if t in span else filler).append(picked)
    passed = [record["attempt"] for record in records if record["source"] == "mixed"]
    return {
        "lam_answer": sum(answer) / len(answer) if answer else None,
        "lam_filler": sum(filler) / len(filler) if filler else None,
        "answer_tokens": len(answer),
        "filler_tokens": len(filler),
        "without_answer": len(trained) - found,
        "verified_by_attempt": [
            sum(a <= k for a in passed) / len(records) for k in range(max(passed, default=0) + 1)
        ],
        "mean_tokens": (len(answer) + len(filler)) / len(trained) if trained else None,
    }


def answer_span(model: LanguageModel, ids: Sequence[int], answers: Sequence[str]) -> range:
    """Places of the tokens that make up the first of ``answers`` in the text of ``ids``; empty where none is stated."""
    if not contains(model.decode(ids), answers):
        return range(0)
    stated = [contains(model.decode(ids[:n]), answers) for n in range(1, len(ids) + 1)]
    # and still with the next token: "Niger" stands there only until it becomes "Nigeria"
    end = next(n for n in range(1, len(ids) + 1) if all(stated[n - 1 : n + 1]))
    start = next(s for s in range(end - 1, -1, -1) if contains(model.decode(ids[s:end]), answers))
    return range(start, end)


# --- fisher ---------------------------------------------------------------------------------------------------


def fisher(model: LanguageModel, edit: Edit, seed: int) -> dict[str, Any]:
    """The change weighed with the base's Fisher information; ``model`` is the base. One weight at a time, in float64."""
    if not edit.changes:
        return {
            "displacement": 0.0,
            "squared_norm": 0.0,
            "curvature": None,
            "relative_curvature": None,
            "top_share": None,
        }
    information = fisher_information(model, edit.model_hash, seed)
    mean = sum(f.sum(dtype=torch.float64).item() for f in information.values()) / sum(
        f.numel() for f in information.values()
    )
    limit = percentile_99([information[name] for name in edit.changes])
    displacement = squared_norm = top = 0.0
    for name, change in edit.changes.items():
        squared = _dense(change).square_()
        squared_norm += squared.sum().item()
        top += squared[information[name] > limit].sum().item()
        displacement += squared.mul_(information[name]).sum().item()
    curvature = displacement / squared_norm if squared_norm else None
    return {
        "displacement": displacement,
        "squared_norm": squared_norm,
        "curvature": curvature,
        "relative_curvature": curvature / mean if squared_norm and mean else None,
        "top_share": top / squared_norm if squared_norm else None,
    }


def fisher_information(model: LanguageModel, weights: str, seed: int) -> dict[str, torch.Tensor]:
    """F by parameter name, on the CPU, of a model whose fingerprint is ``weights``; kept in the cache for later edits."""

    def compute() -> dict[str, torch.Tensor]:
        return diagonal_fisher(model, _own(model, "fisher", FISHER_TOKENS, seed))

    return _cached("fisher", [weights, *_setting(model), FISHER_TOKENS, LENGTH, seed], compute)


def percentile_99(tensors: Sequence[torch.Tensor]) -> float:
    """The value that 1 % of the entries of ``tensors`` lie above."""
    total = sum(t.numel() for t in tensors)
    values = [t.flatten() for t in tensors]
    if total > SAMPLE:
        generator = torch.Generator().manual_seed(0)
        share = SAMPLE / total
        values = [
            v[torch.randint(v.numel(), (math.ceil(share * v.numel()),), generator=generator)]
            for v in values
        ]
    together = torch.cat(values)
    return together.kthvalue(together.numel() - together.numel() // 100).values.item()


def _dense(change: Change) -> torch.Tensor:
    """A change as one new tensor on the CPU, float64."""
    if isinstance(change, torch.Tensor):
        return change.detach().to("cpu", torch.float64, copy=True)
    left, right = (factor.detach().to("cpu", torch.float64) for factor in change)
    return left @ right


# --- drift ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def drift(model: LanguageModel, edit: Edit, seed: int) -> dict[str, Any]:
    """How far the edited model's distributions and free answers are from the base's; ``model`` is the base.

    The log-probabilities of all tokens under both models would be gigabytes, so the hidden states of both (N, D) are kept, and
    they are turned into log-probabilities chunk by chunk, exactly; a head that the edit changes is changed for each chunk.
    """
    base = _cached(
        "drift",
        [edit.model_hash, *_setting(model), DRIFT_TOKENS, LENGTH, seed, ANSWER_TOKENS, QUESTIONS],
        lambda: _base_texts(model, seed),
    )
    ids_BT, mask_BT = base["ids"].to(model.device), base["mask"].to(model.device)
    before_ND = after_ND = _hidden(model, ids_BT, mask_BT)
    words_after = base["words"]
    model.check_head()  # here and not within the edit, whose logits may be no numbers any more
    if edit.changes or edit.context is not None:
        with edit.applied(model, check=False):
            after_ND = _hidden(model, ids_BT, mask_BT) if edit.changes else before_ND
            words_after = _words(model)
    head = {id(p) for p in model.model.get_output_embeddings().parameters()}
    on_head = replace(
        edit,
        changes={n: change for n, change in edit.changes.items() if id(model.weight(n)) in head},
        context=None,
    )
    labels_N = ids_BT[:, -LENGTH:].flatten()
    kl, nll = [], []
    vocabulary = model.model.get_output_embeddings().weight.shape[0]
    for rows in batched(range(len(labels_N)), max(1, LOGITS_AT_ONCE // vocabulary)):
        base_NV = _logp(model, before_ND[rows])
        with on_head.applied(model, check=False):
            gap_NV = base_NV - _logp(model, after_ND[rows])
        kl += (base_NV.exp() * gap_NV).sum(-1, dtype=torch.float64).tolist()
        nll += gap_NV.gather(-1, labels_N[rows, None])[:, 0].tolist()
    return {
        "kl": _by_text(kl),
        "nll_change": _by_text(nll),
        "words_before": base["words"].double().mean().item(),
        "words_after": words_after.double().mean().item(),
    }


def _base_texts(model: LanguageModel, seed: int) -> dict[str, torch.Tensor]:
    """Texts of the base as one left-padded batch, of which it wrote the last ``LENGTH`` tokens; and the words it answers."""
    texts = [opening + written for opening, written in _own(model, "drift", DRIFT_TOKENS, seed)]
    ids_BT, mask_BT = pad_left(texts, "cpu")
    return {"ids": ids_BT, "mask": mask_BT, "words": _words(model)}


def _words(model: LanguageModel) -> torch.Tensor:
    """Words of the answer to each of ``QUESTIONS``."""
    prompts = [model.prompt_ids(question, "question") for question in QUESTIONS]
    written = model.generate_ids(prompts, ANSWER_TOKENS, what="answering neutral questions")
    return torch.tensor([len(model.decode(ids).split()) for ids in written])


def _hidden(model: LanguageModel, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Hidden states (N, D) that predict the last ``LENGTH`` tokens of each text."""
    with model.compute(weights_fixed=True):
        found = [
            model.hidden(ids[:, :-1], mask[:, :-1])[:, -LENGTH:]
            for ids, mask in zip(ids_BT.split(16), mask_BT.split(16), strict=True)
        ]
    return torch.cat(found).flatten(0, 1)


def _logp(model: LanguageModel, hidden_ND: torch.Tensor) -> torch.Tensor:
    with model.compute():
        return model.logits(hidden_ND).log_softmax(-1)


def _by_text(values: Sequence[float]) -> dict[str, Any]:
    return unbounded_mean(values, [n // LENGTH for n in range(len(values))]).to_dict()


# --- errors ---------------------------------------------------------------------------------------------------


class Lost(NamedTuple):
    """An answer that the base had right and the edited model has not."""

    prompt: str
    expected: Sequence[str]
    before: str
    after: str
    free: bool
    """Whether the model wrote it, rather than weighed given choices."""


def errors(
    facts: Sequence[Fact],
    base_probes: Sequence[Mapping[str, Any]],
    probes: Sequence[Mapping[str, Any]],
    base_samples: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Of the answers that the base had right, how many are wrong now, and in what way, by retention task and probe axis.

    A retention answer is right with a score of at least 0.5, a probe's where it contains an accepted answer.
    """
    taught = list(dict.fromkeys(answer for fact in facts for answer in fact.answers))
    before = {(row["task"], row["member"], row["doc_id"]): row for row in base_samples}
    retention: dict[str, list[Lost | None]] = {row["task"]: [] for row in samples}
    for row in samples:
        old = before[row["task"], row["member"], row["doc_id"]]
        if old["score"] >= 0.5:
            # lm-eval calls what it scores by likelihood acc, acc_norm, ...; then the output is one of its own texts
            free = not row["metric"].startswith("acc")
            lost = Lost(row["prompt"], [row["expected"]], old["output"], row["output"], free)
            retention[row["task"]].append(lost if row["score"] < 0.5 else None)
    axes: dict[str, list[Lost | None]] = {row["axis"]: [] for row in probes if row["axis"] in AXES}
    for old, row in zip(base_probes, probes, strict=True):
        if row["axis"] in AXES and old["contains"]:
            lost = Lost(row["prompt"], row["answers"], old["text"], row["text"], True)
            axes[row["axis"]].append(None if row["contains"] else lost)
    return {
        "retention": {task: _tally(items, taught) for task, items in retention.items()},
        "probes": {axis: _tally(items, taught) for axis, items in axes.items()},
    }


def _tally(items: Sequence[Lost | None], taught: Sequence[str]) -> dict[str, Any]:
    """Counts by kind, with the first example of each; ``None`` is an answer that is still right."""
    lost = [(item, _kind(item, taught)) for item in items if item is not None]
    examples: dict[str, dict[str, str]] = {}
    for item, kind in lost:
        examples.setdefault(
            kind,
            {
                "prompt": item.prompt[-EXAMPLE:],  # a question stands at the end of its examples
                "expected": item.expected[0][:EXAMPLE],
                "before": item.before[:EXAMPLE],
                "after": item.after[:EXAMPLE],
            },
        )
    counts = {kind: sum(found == kind for _, found in lost) for kind in KINDS}
    return {"base_right": len(items), "lost": len(lost), **counts, "examples": examples}


def _kind(item: Lost, taught: Sequence[str]) -> str:
    """What went wrong; the first that holds:

    - ``format``: nothing was written, or no digit where a number was expected;
    - ``leakage``: a taught target or alias stands in it that is neither in the prompt, nor expected, nor in the base's answer;
    - ``collapse``: at most a quarter of the words of the base's answer, and at least 4 fewer;
    - ``genuine``: none of these, and every choice among given texts.
    """
    if not item.free:
        return "genuine"
    if not item.after.strip() or (
        NUMBER.fullmatch(item.expected[0]) and not re.search(r"\d", item.after)
    ):
        return "format"
    if contains(item.after, taught):
        known = (item.prompt, *item.expected, item.before)
        if any(
            contains(item.after, [one]) and not any(contains(text, [one]) for text in known)
            for one in taught
        ):
            return "leakage"
    words, words_before = len(item.after.split()), len(item.before.split())
    if 4 * words <= words_before and words_before - words >= 4:
        return "collapse"
    return "genuine"


NUMBER = re.compile(r"(?:.*####)?\s*[-+$]?\d[\d.,]*%?\s*", re.DOTALL)
"""An expected answer that is a number; gsm8k writes it behind its solution and ####."""


# --- texts and cache ------------------------------------------------------------------------------------------


def _own(
    model: LanguageModel, purpose: str, tokens: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Texts that the model writes, (opening, written) ids; other ones for each purpose."""
    blocks = own_texts(model, tokens, int(digest([purpose, seed])[:8], 16), LENGTH)
    return [text for block in blocks for text in block]


def _setting(model: LanguageModel) -> list[Any]:
    """What the numbers of a model depend on besides its weights."""
    return [model.precision, model.chat]


def _cached(
    kind: str, key: Sequence[Any], compute: Callable[[], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """What ``compute`` gives, on the CPU; from the cache where it was computed before. A damaged or foreign file is written
    anew."""
    name = digest([VERSION, *key])
    path = cache_dir() / kind / f"{name[:24]}.safetensors"
    with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
        found = {tensor: file.get_tensor(tensor) for tensor in file.keys()}
        if (file.metadata() or {}).get("sha256") == _checksum(name, found):
            return found
    found = {tensor: values.cpu().contiguous() for tensor, values in compute().items()}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(found, temporary, {"sha256": _checksum(name, found)})
        os.replace(temporary, path)
    except (OSError, SafetensorError):  # a read-only or full cache costs time, not results
        with suppress(OSError):
            temporary.unlink()
    return found


def _checksum(key: str, tensors: Mapping[str, torch.Tensor]) -> str:
    sha = hashlib.sha256(key.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode())
        sha.update(tensor.view(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
