"""Checks that run before an injection solves anything, and the warnings that they return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from editbench import errors, tensors
from editbench.errors import MethodError
from editbench.layout import ranges
from editbench.methods._common.context import check_context
from editbench.methods._common.hooks import read_at, site_module
from editbench.methods._common.memory import check_memory
from editbench.methods._edit.layers import nearest
from editbench.methods._edit.prepare import PreparedFact, key_rows
from editbench.methods.statistics import Moment
from editbench.models import LanguageModel, float64_device
from editbench.subjects import places
from editbench.surgical import LONG_TARGET
from editbench.types import Fact

NAMED = 3
"""How many facts a warning lists by name."""


def check_editable(
    model: LanguageModel, prepared: Sequence[PreparedFact], of_one_key: str
) -> list[str]:
    """Make sure that these facts can be written, and return warnings about the doubtful ones.

    ``of_one_key`` says what happens to facts that share a key and have different targets.

    Raises:
        MethodError: Two facts share a key and have different targets, or a fact with its longest
            prefix and its target does not fit into the model's context.
    """
    check_one_target_a_key(prepared)
    for each in prepared:
        check_context(model, each.fact, max(prompt.length for prompt in each.prompts))
    return [
        *_long_targets(prepared),
        *_shared_keys(prepared, of_one_key),
        *_doubtful_subjects(prepared),
        *_doubled_subjects(prepared),
        *_opening_subjects(model, prepared),
    ]


@torch.no_grad()
def check_values(
    model: LanguageModel, layers: Sequence[int], prepared: Sequence[PreparedFact]
) -> None:
    """Make sure that the value read at each of ``layers`` is the one that W makes of the key.

    The first fact's bare prompt is read.

    Raises:
        MethodError: It is another, so an update of W would not write what was asked.
    """
    rows, positions = key_rows([prepared[0].prompts[0]])
    for layer in layers:
        projection = model.layout.out_projection(model.model, layer)
        site = site_module(model, layer, "mlp")
        name = model.layout.weight_name(layer)
        weight = model.weight(name)
        place = float64_device(weight.device)
        k_f = read_at(model, projection, "input", rows, positions)[0].to(place).double()
        read_d = read_at(model, site, "output", rows, positions)[0].to(place).double()
        w = weight.to(place).double()
        made_d = k_f @ w if model.layout.transposed else w @ k_f
        if isinstance(bias := getattr(projection, "bias", None), torch.Tensor):
            made_d = made_d + bias.to(place).double()
        apart = ((read_d - made_d).norm() / read_d.norm().clamp(min=1e-12)).item()
        # Half of the digits of the number format must agree.
        if apart > torch.finfo(weight.dtype).eps ** 0.5:
            raise MethodError(
                f"The value at layer {layer} of {model.name} is not what {name} makes of the key "
                f"(relative difference {apart:.2g}), so an update of that matrix would not write "
                "what was asked. Use a trainer (sft, mixsd, opsd, pd)."
            )


def layer_notes(model: LanguageModel, layers: Sequence[int], rule: Sequence[int]) -> Iterator[str]:
    """Yield warnings about layers that are not what the method usually writes.

    ``rule`` has the layers that it takes in a model of this depth whose layers are all alike.
    """
    layout = model.layout
    mixtures = [layer for layer in layers if layout.parts[layer].experts]
    if mixtures:
        yield (
            f"At layer {ranges(mixtures)} the MLP of {model.name} is a mixture of experts. Its "
            f"dense part was written ({layout.weight_name(mixtures[0])}), and the routed experts "
            "beside it were left alone."
        )
    if not set(rule) <= set(layout.writable) and tuple(layers) == nearest(layout.writable, rule):
        yield (
            f"Layer {ranges(layers)} of {model.name} was written, where layer {ranges(rule)} would "
            "be in a dense model of its depth, since only some of its layers have a matrix that "
            f"writes their MLP's output: {ranges(layout.writable)}."
        )


def check_one_target_a_key(prepared: Sequence[PreparedFact]) -> None:
    """Make sure that no two facts ask for different targets after the same prompt and subject.

    Raises:
        MethodError: Two facts do.
    """
    by_key: dict[tuple[str, str, str], Fact] = {}
    for each in prepared:
        fact, subject = each.fact, each.subject.text
        # Equal in all three: the same key at every layer.
        first = by_key.setdefault((fact.form, fact.prompt, subject), fact)
        if first.target != fact.target:
            raise MethodError(
                f"Facts {first.id!r} and {fact.id!r} have one key, the subject {subject!r} of "
                f"{fact.prompt!r}, and two targets, {first.target!r} and {fact.target!r}. One key "
                "has one value: remove one of the facts, or use a trainer (sft)."
            )


def same_keys(prepared: Sequence[PreparedFact]) -> Iterator[tuple[Fact, Fact]]:
    """Yield the first fact with a key and each later one with the same key.

    Facts share a key where their prompts are equal up to the end of the subject.
    """
    # Token ids and not texts: attention is causal, so equal ids give the very same key.
    by_key: dict[tuple[int, ...], Fact] = {}
    for each in prepared:
        key = tuple(each.bare.ids[: each.bare.place + 1])
        if (first := by_key.setdefault(key, each.fact)) is not each.fact:
            yield first, each.fact


def check_room(model: LanguageModel, facts: int, moments: Mapping[int, Moment]) -> None:
    """Make sure that the matrices of the solve fit into memory.

    Matrices that an earlier injection left in memory are not counted again.

    Raises:
        MethodError: They do not fit.
    """
    # Float64 numbers. Of one layer after the other: C with its ridge while the factor is computed,
    # three arrays of the weight's size, and three of the keys' size.
    widest = max(len(moment.c_ff) for moment in moments.values())
    needed = 2 * widest**2 + 3 * widest * (model.layout.width + facts)
    for moment in moments.values():
        f = len(moment.c_ff)
        # A cached_property is in ``vars`` once it has been computed; a large factor is in a file.
        kept = "cholesky_ff" not in vars(moment) and moment.c_ff.nbytes < tensors.LARGE
        # the factor, and the weight as it was, of at most 32 bits
        needed += f * f * kept + model.layout.width * f // 2
    check_memory(8 * needed, f"the solve for {len(moments)} layers of width {widest}")


def listed(items: Sequence[str], separator: str = ", ") -> str:
    """Return how many items there are and the first of them, as warnings show them."""
    return f"{len(items)}: {errors.listed(items, NAMED, separator)}"


def _long_targets(prepared: Sequence[PreparedFact]) -> Iterator[str]:
    long = [each.fact.id for each in prepared if len(each.bare.target_ids) > LONG_TARGET]
    if long:
        yield (
            f"Some targets have more than {LONG_TARGET} tokens ({listed(long)}). One vector per "
            "fact seldom carries so much. Shorten them, or use a trainer (sft, mixsd)."
        )


def _shared_keys(prepared: Sequence[PreparedFact], of_one_key: str) -> Iterator[str]:
    shared = [
        f"{first.id} and {fact.id}"
        for first, fact in same_keys(prepared)
        if first.target != fact.target
    ]
    if shared:
        yield (
            "Some prompts are equal up to the end of their subjects, so their facts share a key "
            f"but have different targets ({listed(shared, '; ')}): {of_one_key}. Word them so that "
            "the subject comes later, or use a trainer (sft, mixsd)."
        )


def _doubtful_subjects(prepared: Sequence[PreparedFact]) -> Iterator[str]:
    doubtful = [
        f"{each.subject.text!r} of {each.fact.id}: {each.subject.doubt}"
        for each in prepared
        if each.subject.doubt
    ]
    if doubtful:
        yield (
            f"Some subjects were found by rule and may be wrong ({listed(doubtful, '; ')}). The "
            'edit is written at the subject, so a wrong one spoils it. Give "subject".'
        )


def _doubled_subjects(prepared: Sequence[PreparedFact]) -> Iterator[str]:
    # A given subject that occurs twice has already been refused (``find_subject``).
    doubled = [
        f"{each.subject.text!r} of {each.fact.id}"
        for each in prepared
        if each.subject.source == "rule" and len(places(each.subject.text, each.fact.prompt)) > 1
    ]
    if doubled:
        yield (
            f"Some subjects found by rule occur twice in their prompt ({listed(doubled)}), and the "
            "first place was taken. Give the subject, in a longer form that occurs once."
        )


def _opening_subjects(model: LanguageModel, prepared: Sequence[PreparedFact]) -> Iterator[str]:
    opening = [each.fact.id for each in prepared if each.has_stand_in]
    if opening:
        yield (
            f"Some prompts begin with their subject's only token ({listed(opening)}). The state of "
            f"{model.name} at the first token is much the same for all texts and was left alone. "
            "These facts are written for texts in which something stands before the subject, and "
            "the bare prompts may not follow. Put a word before the subject."
        )
