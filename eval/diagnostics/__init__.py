"""Diagnostics: what an edit did to a model beyond its scores.

Diagnostics explain the scores. Nothing is ranked by them.

Notation: p0 and p are the base and the edited model, theta0 and theta are their weights, and
d = theta - theta0 is the edit's change. x is a fact's prompt as it is asked, with nothing before
it, and y is a training target. A value is ``None`` where it is undefined.

supervision: how improbable the training targets are under the base model [1]
    nll                    mean over all target tokens of -log p0(y_it; x_i, y_i<t), in nats
    median                 median of the same
    nll_above_5            share of target tokens with -log p0 > 5, the paper's bound [1]
    rare                   share of target tokens with p0 < 0.01 (-log p0 > 4.6)
    ..._low, ..._high      95 % intervals in which the tokens of one target go together
positions: loss and gradient of the training targets by position in the target, under the base,
on about 256 target tokens [4]
    parts                  ``first``: the first 5 % of each target, at least one token; then its
                           quarters without them. For each part the number of tokens, the mean of
                           -log p0 (``nll``), and the mean norm of a token's gradient with respect
                           to all weights (``gradient``)
    first_nll_share        share of the sum of -log p0 over all tokens that the first part has
    first_gradient_share   the same share of the gradient norms
    first_token_share      the same share of the tokens
mixing: which branch wrote the mixed targets [1]
    lam_answer             share of the tokens stating the target that the naive branch wrote
    lam_filler             the same share of all other tokens
    verified_by_attempt    at index k, the share of targets that stated the fact after at most k + 1
                           attempts (a fact with rewordings has several targets)
    mean_tokens            mean length of a trained text, in tokens
fisher: the change, weighted by the Fisher information of the base
    displacement           D_F = sum_j F_j d_j^2 with the per-token Fisher information
                           F_j = E_y~p0[(d log p0(y) / d theta_j)^2] [1, 2]
    squared_norm           sum_j d_j^2
    curvature              D_F / sum_j d_j^2, the mean curvature along the update [1]
    alignment_ratio        R = curvature / mean_j F_j over all weights of the model [1]: movement
                           along Fisher-sensitive directions against a random one of the same size,
                           whose R is 1 (``relative_curvature`` in older records)
    top_share              share of sum_j d_j^2 in the entries whose F lies above the 99th
                           percentile of the changed weights
drift: how far the edited model moved, on text that the base wrote
    kl                     mean over tokens of sum_v p0(v) log(p0(v) / p(v)), over the whole
                           vocabulary
    nll_change             mean over the same tokens of log p0 - log p
    words_before           mean number of words in the base's greedy answers to ``drift.QUESTIONS``
    words_after            the same for the edited model
errors: what became of the answers that the base had right, by retention task and probe axis [3]
    format                 nothing to grade: empty, or no number or JSON object where one is asked
    leakage                a taught name that nothing in the question calls for
    collapse               a stub of at most 80 characters where the base wrote more
    genuine                any other wrong answer; ``errors.kind_of`` has the rules in full

[1] MixSD, arXiv 2605.16865. Its code at 37eb349 computes none of these numbers; the formulas are
    our reading of the paper.
[2] Kirkpatrick et al. 2017, arXiv 1612.00796 (the diagonal of the Fisher information).
    ``editbench.fisher`` estimates it.
[3] The classes and their order are those of ``mixsd/eval/error_analysis.py`` of [1], whose rules
    are for boxed answers and for two of its data sets; ``errors.kind_of`` says what was added.
    Older records hold counts by earlier rules: taught subjects were no leakage, a collapse was
    measured in words alone, with "The answer is X." among them, and a tool call without a brace was
    no format error.
[4] LongAct says that the signal of a long training text sits in its first 5 % of tokens. The
    numbers are ours.

Targets are the token ids that a method recorded. Without a record, a target is the demonstration of
the fact (or its target) followed by EOS, which is what sft trains on. Weight editors see only the
bare target, and opsd trains on its own rollouts and never sees this one. An edit that changes no
weight has no targets.

``fisher`` and ``drift`` use different texts, and both differ from the texts that trainers hold a
model to, so no method is measured on what it was fitted to. ``kl`` and ``nll_change`` have 95 %
intervals clustered by text. They are 0 for edits by context, because a text without a prompt never
meets the context. The percentile of ``top_share`` is exact up to ``fisher.SAMPLE`` changed entries.
Above that it comes from a random sample of that size, and the share of entries above it misses 1 %
by less than 0.02 points. Log-probabilities are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from editbench.errors import UnknownNameError
from editbench.eval.diagnostics import drift, errors, fisher, positions, targets
from editbench.files import jsonable
from editbench.models import LanguageModel
from editbench.rows import ProbeRow, SampleRow

if TYPE_CHECKING:
    from editbench.edit import Edit

Diagnosis = (
    targets.Supervision
    | positions.Positions
    | targets.Mixing
    | fisher.Displacement
    | drift.Drift
    | errors.Errors
)
"""The result of one diagnostic. Its fields are documented in the module that computes it."""

NAMES = ("supervision", "positions", "mixing", "fisher", "drift", "errors")


def check_names(names: Sequence[str]) -> None:
    """Check that every name is a diagnostic.

    Raises:
        UnknownNameError: for the first name that is not; lists the known names.
    """
    for name in names:
        if name not in NAMES:
            raise UnknownNameError("diagnostic", name, NAMES)


def diagnose(
    model: LanguageModel,
    edit: Edit,
    names: Sequence[str],
    *,
    base_probes: Sequence[ProbeRow],
    probes: Sequence[ProbeRow],
    base_samples: Sequence[SampleRow],
    samples: Sequence[SampleRow],
    seed: int = 0,
) -> dict[str, Diagnosis | None]:
    """Compute the named diagnostics, JSON-ready; ``None`` where one does not apply to this edit.

    Args:
        model: the base model, without the edit. It is the same afterwards.
        base_probes: rows of ``probes.ask`` for the base, in the order of ``probes``.
        probes: rows of ``probes.ask`` for the edited model.
        base_samples: retention samples of the base, with ``task`` and ``member``.
        samples: retention samples of the edited model.
        seed: chooses the texts of ``fisher`` and ``drift``.

    Raises:
        UnknownNameError: for a name that is not a diagnostic.
        ModelError: if ``model`` is not the one that the edit was made for, or has the edit applied.
    """
    check_names(names)
    edit.check(model)
    # Functions, so that only the named ones are computed.
    compute: dict[str, Callable[[], Diagnosis | None]] = {
        "supervision": lambda: targets.supervision(model, edit),
        "positions": lambda: positions.measure(model, edit),
        "mixing": lambda: targets.mixing(model, edit),
        "fisher": lambda: fisher.measure(model, edit, seed),
        "drift": lambda: drift.measure(model, edit, seed),
        "errors": lambda: errors.measure(edit.facts, base_probes, probes, base_samples, samples),
    }
    return {name: cast("Diagnosis | None", jsonable(compute[name]())) for name in names}
