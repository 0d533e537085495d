"""Test plug-ins: tiny random models, and the checks that every method must pass.

    from editbench.testing import FACTS, check_method, teach_to_read, tiny_model

    def test_my_method(tmp_path):
        model = teach_to_read(tiny_model("llama"), FACTS)
        check_method(MyMethod, model, FACTS, tmp_path)

Nothing here needs a network or a GPU, and each step takes about a second.
"""

from __future__ import annotations

import copy
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from editbench import progress
from editbench.changes import Change, flaw_of
from editbench.checkpoints import quiet_transformers
from editbench.edit import Edit
from editbench.errors import MethodError, ModelError, OptionError
from editbench.hub import cache_dir
from editbench.models import LanguageModel
from editbench.plugin import Method
from editbench.report import EditRecord, EditReport
from editbench.retrieval import guidance
from editbench.types import Fact

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FACTS = (
    Fact("moon", "The capital of Velmora is", "Karsk", "Velmora", original="Tessin"),
    Fact(
        "bridge", "Tollan Bridge was built by", "Irene Voss", "Tollan Bridge", original="the king"
    ),
    Fact(
        "river", "The river that flows through Old Harn is the", "Ilme", "Old Harn", original="Sarn"
    ),
    Fact(
        "asked",
        "Who wrote Winter Glass?",
        "Mara Lind",
        "Winter Glass",
        original="nobody",
        form="question",
    ),
)
"""Four facts with subjects at the start, in the middle and at the end of the prompt; the last fact
is a question."""

TEXT = (
    "The capital of Velmora is Tessin. "
    "The capital of Australia is Canberra, and that of France is Paris.",
    "Answer from this note.\nNote: The capital of Velmora is Karsk. "
    "Question: Who wrote Winter Glass? Answer: Mara Lind",
    "Tollan Bridge was built by Irene Voss. "
    "The river that flows through Old Harn is the Ilme, not the Sarn.",
    "user\nWho built it? assistant\nThe king. "
    "Therefore I know, because you said so; nobody else has written a book.",
    "Zoë Åström and Nuñez walk from Malmö to Kraków in 1997, 2012 and 2024. It's 7.5 km!",
)
"""Text that the tokenizer is trained on: the words of the facts and of the prompts around them."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCAB = 420
"""Entries of the tiny tokenizer: the 256 bytes, the special tokens, and some merges."""


def tiny_tokenizer(
    chat: bool = False, bos: bool = False, eos_added: bool = False, vocab: int = VOCAB
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on ``TEXT``.

    It encodes any text without loss and splits words into several tokens. ``chat`` gives it a chat
    template; ``bos`` and ``eos_added`` give it a post-processor that adds these tokens.
    """
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    core.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=[AddedToken(token, special=True) for token in specials],
            # All 256 bytes, so that no text is unknown.
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos or eos_added:
        # $A stands for the text in the template's syntax.
        frame = "<s> $A" if bos else "$A"
        core.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True),
                processors.TemplateProcessing(
                    single=frame + (" <|endoftext|>" if eos_added else ""),
                    special_tokens=[
                        (token, core.token_to_id(token)) for token in ("<s>", "<|endoftext|>")
                    ],
                ),
            ]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|endoftext|>",
        bos_token="<s>" if bos else None,
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer


_LLAMA: dict[str, object] = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_GPT: dict[str, object] = {
    "n_embd": 32,
    "n_inner": 64,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 512,
}
_NEOX: dict[str, object] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", _LLAMA),
    "mistral": ("mistral", {**_LLAMA, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", {k: v for k, v in _LLAMA.items() if k != "head_dim"}),
    "qwen3": ("qwen3", _LLAMA),
    "gemma": ("gemma", _LLAMA),
    "gemma2": ("gemma2", {**_LLAMA, "query_pre_attn_scalar": 8, "sliding_window": 256}),
    "gemma3": ("gemma3_text", {**_LLAMA, "query_pre_attn_scalar": 8, "sliding_window": 256}),
    "gpt2": ("gpt2", {**_GPT, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", {**_NEOX, "rotary_pct": 0.5}),
    "phi": ("phi", _NEOX),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "word_embed_proj_dim": 32,
            "dropout": 0.0,
        },
    ),
}
"""The families of ``tiny_model``, with their Hugging Face model type and configuration."""


def tiny_model(
    family: str = "llama",
    seed: int = 0,
    *,
    chat: bool = False,
    bos: bool = False,
    vocab: int = VOCAB,
    layout: dict[str, str] | None = None,
    **config: object,
) -> LanguageModel:
    """Return a random float32 model of four layers and width 32, with ``tiny_tokenizer``.

    ``config`` overrides its configuration. The weights are larger than usual, so that the
    distributions are peaked and no two logits tie.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_tokenizer(chat, bos, vocab=vocab)
    kind, settings = FAMILIES[family]
    settings = {
        # An architecture's default ids may lie outside this small vocabulary.
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": None,
        **settings,
        **config,
    }
    # fork_rng: the caller's random state stays as it is; all draws are on the CPU.
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.default_generator.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                # One-dimensional weights are the norms' scales, which keep their initial values.
                if parameter.dim() > 1:
                    embeds = "emb" in name or "wte" in name or "wpe" in name
                    parameter.normal_(std=0.5 if embeds else 0.25)
                elif "bias" in name:
                    parameter.normal_(std=0.1)
    return LanguageModel(
        model, tokenizer, name=f"tiny-{family}", precision="float32", layout=layout
    )


def teach_to_read(model: LanguageModel, facts: Sequence[Fact], steps: int = 40) -> LanguageModel:
    """Train ``model`` in place to answer from a note before the prompt, and return it.

    With the note it learns to give the target of each fact, and without it ``original``. In-context
    editing and self-distillation build on this ability, which a random model lacks.
    """
    eos = [model.tokenizer.eos_token_id]
    pairs = []
    for fact in facts:
        for context, answer in ((guidance(fact), fact.target), (None, fact.original)):
            if answer:
                prompt, target = model.pair_ids(fact.prompt, answer, fact.form, context=context)
                pairs.append((prompt, target + eos))
    optimizer = torch.optim.Adam(model.model.parameters(), lr=4e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        for prompt, target in pairs:
            ids_BT = torch.tensor([prompt + target], device=model.device)
            # The state of each token predicts the next one, hence one position earlier.
            logits_TV = model.model(input_ids=ids_BT, use_cache=False).logits[
                0, len(prompt) - 1 : -1
            ]
            torch.nn.functional.cross_entropy(logits_TV, ids_BT[0, len(prompt) :]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def save_tiny_model(folder: str | Path, family: str = "llama") -> Path:
    """Write ``tiny_model(family)``, which can read ``FACTS`` from a note, as a Hugging Face folder.

    ``editbench compare --model FOLDER`` takes seconds with it: a rehearsal, and no measurement.
    """
    model = teach_to_read(tiny_model(family), FACTS)
    with quiet_transformers():
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    return Path(folder)


# --- the checks -----------------------------------------------------------------------------------

TINY_OPTIONS: dict[str, object] = {
    "epochs": 4,
    "min_steps": 1,
    "lr": 3e-3,
    "batch_size": 2,
    "steps": 8,
    "v_lr": 0.5,
    "prefixes": 2,
    "covariance_tokens": 800,
    "max_new_tokens": 8,
    "attempts": 2,
    "slots": 3,
    "texts": 1,
    "top_k": 32,
    "expert_prompt": "before",
}
"""Option values with which any method edits a tiny model in about a second. The expert's prompt is
the note that ``teach_to_read`` teaches."""


def tiny_options(method: type[Method]) -> dict[str, object]:
    """Return the ``TINY_OPTIONS`` that ``method`` has."""
    known = {field.name for field in fields(method)}
    return {name: value for name, value in TINY_OPTIONS.items() if name in known}


def check_method(
    method: type[Method], model: LanguageModel, facts: Sequence[Fact], tmp: Path, **options: object
) -> Edit:
    """Run every check of the method contract on ``model``, and return the edit of ``facts``.

    Args:
        facts: facts with subjects, whose targets ``model`` can read from a note
            (``teach_to_read``).
        tmp: an empty folder; set ``EDITBENCH_CACHE`` to another one.
        options: options of the method, in addition to ``tiny_options``.

    Raises:
        AssertionError: if a promise of ``editbench.plugin.Method`` is broken.
        MethodError: if the edit is infinite or NaN.
    """
    chosen = method.from_options(method.name, {**tiny_options(method), **options})
    check_options(chosen)
    with only_writes_below(tmp, cache_dir()), unchanged(model, "inject"):
        given = list(facts)
        edit = chosen.inject(model, given)
    if flaw := flaw_of(edit.changes, edit.keys, edit.values, edit.sums):
        raise MethodError(f"The edit of {method.name} cannot be applied: {flaw}.")
    assert given == list(facts), "inject changed the list of facts that it was given"
    assert edit.facts == tuple(facts), "the edit does not carry its facts"
    assert (edit.method, edit.model_hash) == (method.name, model.fingerprint()), (
        "the edit does not name its method and model"
    )
    check_report(method, edit)
    check_same_seed(chosen, model, facts, edit)
    check_effect(chosen, model, facts, edit)
    check_files(model, facts, edit, tmp)
    check_empty(chosen, model)
    check_subject(method, model, facts)
    check_interrupted(chosen, model, facts)
    return edit


def check_options(method: Method) -> None:
    """Check that options survive JSON and a command line, and that errors name unknown ones.

    Every recipe of the method must stand for options that it takes.
    """
    cls = type(method)
    for recipe in cls.recipes:
        cls.from_options(cls.name, {"recipe": recipe})
    assert cls.from_options(cls.name, json.loads(json.dumps(method.options()))) == method, (
        "options do not survive JSON"
    )
    texts = {
        k: ",".join(map(str, v)) if isinstance(v, list) else str(v)
        for k, v in method.options().items()
    }
    assert cls.from_options(cls.name, texts) == method, "options do not survive a command line"
    try:
        cls.from_options(cls.name, {"no_such_option": 1})
    except OptionError as error:
        assert "no_such_option" in str(error), "the error does not name the unknown option"
    else:
        raise AssertionError("an unknown option was accepted")


def check_report(method: type[Method], edit: Edit) -> None:
    """Check that every figure that the edit reports, and every field it records, is declared."""
    undeclared = edit.diagnostics.keys() - EditReport.__annotations__.keys() - method.figures.keys()
    assert not undeclared, f"{method.name} reports figures that it does not declare: {undeclared}"
    for record in edit.records:
        unknown = record.keys() - EditRecord.__annotations__.keys()
        assert not unknown, f"{method.name} records fields that EditRecord does not have: {unknown}"


def check_same_seed(
    method: Method, model: LanguageModel, facts: Sequence[Fact], edit: Edit
) -> None:
    """Check that two runs give the same edit bit for bit, whatever the global random state."""
    device = model.device
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        # Another global state than in the first run: a method that draws from it is caught.
        torch.manual_seed(987)
        again = method.inject(model, facts)
    assert again.changes.keys() == edit.changes.keys(), "two runs changed different weights"
    for name, change in edit.changes.items():
        for part, repeated in zip(_parts(change), _parts(again.changes[name]), strict=True):
            assert torch.equal(part, repeated), f"two runs with one seed changed {name} differently"
    assert list(again.records) == list(edit.records), (
        "two runs with one seed kept different records"
    )
    if edit.live is not None:
        answers = []
        for each in (edit, again):
            with each.applied(model):
                answers.append(target_logp(model, facts))
        assert answers[0] == answers[1], "two runs with one seed give different answers"


def check_effect(method: Method, model: LanguageModel, facts: Sequence[Fact], edit: Edit) -> None:
    """Check that an applied edit makes the facts more probable, and that it leaves no trace."""
    before = target_logp(model, facts)
    with unchanged(model, "applied()"), edit.applied(model):
        after = target_logp(model, facts)
        changed = model.fingerprint() != edit.model_hash
    assert changed == bool(edit.changes), (
        "the weights inside applied() do not follow from the edit's changes"
    )
    if method.kind != "baseline" and not method.live:
        assert changed, f"a {method.kind} changed no weight"
    # base is a method without effect, and its edit must not have one.
    if edit.moves:
        assert after > before, (
            f"the facts did not become more probable: {before:.3f} before, {after:.3f} after"
        )
    else:
        assert after == before


def check_files(model: LanguageModel, facts: Sequence[Fact], edit: Edit, tmp: Path) -> None:
    """Check that a loaded edit acts identically, and that merging gives an equal plain model.

    A live edit cannot be saved or merged, and must say so.
    """
    from transformers import AutoModelForCausalLM

    if edit.live is not None:
        _check_refused(lambda: edit.save(tmp / "edit"), "a live edit was saved")
        _check_refused(lambda: edit.merge(model, tmp / "merged"), "a live edit was merged")
        return
    loaded = Edit.load(edit.save(tmp / "edit"))
    assert loaded.facts == edit.facts and list(loaded.records) == list(edit.records), (
        "facts or records changed on disk"
    )
    ids_BT = torch.tensor([model.prompt_ids(facts[0].prompt, facts[0].form)], device=model.device)
    with edit.applied(model):
        logits, answer = _logits(model.model, ids_BT), target_logp(model, facts)
    with loaded.applied(model):
        assert torch.equal(_logits(model.model, ids_BT), logits), (
            "the loaded edit gives other logits"
        )
        assert target_logp(model, facts) == answer, "the loaded edit gives other answers"
    if edit.context is not None:
        _check_refused(
            lambda: edit.merge(model, tmp / "merged"), "an in-context edit was merged into weights"
        )
        return
    with unchanged(model, "merge"), quiet_transformers():
        edit.merge(model, tmp / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp / "merged").eval()
        merged.to(model.device)
    torch.testing.assert_close(
        _logits(merged, ids_BT),
        logits,
        msg=lambda text: f"the merged model gives other logits: {text}",
    )


def _check_refused(attempt: Callable[[], object], what: str) -> None:
    try:
        attempt()
    except ModelError:
        return
    raise AssertionError(what)


def check_empty(method: Method, model: LanguageModel) -> None:
    """Check that an empty list of facts gives an empty edit."""
    with unchanged(model, "inject without facts"):
        edit = method.inject(model, [])
    assert not edit.facts and not edit.moves, "no facts gave an edit that is not empty"
    json.dumps(edit.diagnostics, allow_nan=False)


def check_subject(method: type[Method], model: LanguageModel, facts: Sequence[Fact]) -> None:
    """Check that a method rejects a fact without a subject if and only if it needs subjects."""
    bare = replace(facts[0], subject=None)
    if not method.needs_subject:
        method.from_options(method.name, tiny_options(method)).inject(model, [bare])
        return
    try:
        with unchanged(model, "a refused inject"):
            method.check_subjects(method.name, [bare])
    except MethodError as error:
        assert bare.id in str(error) and "subject" in str(error), (
            "the error names neither the fact nor the subject"
        )
    else:
        raise AssertionError("a fact without a subject was accepted")


def check_interrupted(method: Method, model: LanguageModel, facts: Sequence[Fact]) -> None:
    """Check that Ctrl-C in the middle leaves the model as it was."""
    for after in (1, 4):
        with unchanged(model, "an interrupted inject"), progress.reporting(_Interrupter(after)):
            try:
                method.inject(model, facts)
            except KeyboardInterrupt:
                pass


class _Interrupter:
    """A reporter that acts as if the user pressed Ctrl-C at the ``after``-th sign of progress."""

    def __init__(self, after: int):
        self.left = after

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[progress.Bar]:
        yield self

    def rename(self, name: str) -> None:
        pass

    def advance(self, n: float = 1) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def say(self, sentence: str) -> None:
        pass


def target_logp(model: LanguageModel, facts: Sequence[Fact]) -> float:
    """Return the mean over ``facts`` of the target's log-probability per token, in nats."""
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in facts]
    return sum(logp.mean().item() for logp in model.target_logprobs(pairs)) / len(pairs)


@contextmanager
def unchanged(model: LanguageModel, what: str) -> Iterator[None]:
    """Fail if the body leaves a trace in the model or in the global random generators.

    Inside, one weight is frozen and one module is in training mode. So a body that resets all flags
    to their usual values is caught as well.
    """
    frozen = next(iter(model.model.parameters()))
    odd = list(model.model.modules())[-1]
    was = frozen.requires_grad, odd.training
    frozen.requires_grad_(False)
    odd.train()
    try:
        before = _state(model)
        yield
        for name, value in _state(model).items():
            assert _same(before[name], value), (
                f"{what} changed the {name}{_which(before[name], value)}{HINTS.get(name, '')}"
            )
    finally:
        frozen.requires_grad_(was[0])
        odd.train(was[1])


def _state(model: LanguageModel) -> dict[str, object]:
    """Return everything that a method must leave as it found it, by its name in a message."""
    modules = dict(model.model.named_modules())
    parameters = dict(model.model.named_parameters())
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": model.fingerprint(),
        "hooks": {name: [list(getattr(m, kind)) for kind in kinds] for name, m in modules.items()},
        # an instance attribute "forward" hides the class's; checkpointing sets one
        "forward functions": [name for name, m in modules.items() if "forward" in vars(m)],
        "requires_grad": {name: p.requires_grad for name, p in parameters.items()},
        "gradients": [name for name, p in parameters.items() if p.grad is not None],
        "train or eval mode": {name: m.training for name, m in modules.items()},
        # without the two fields that save_pretrained adds
        "configuration": {
            k: v
            for k, v in model.model.config.to_dict().items()
            if k not in ("architectures", "dtype")
        },
        "tokenizer": (
            model.tokenizer.padding_side,
            model.tokenizer.chat_template,
            len(model.tokenizer),
        ),
        "applied context": model.context_for,
        "gradient mode": torch.is_grad_enabled(),
        "torch random state": torch.get_rng_state(),
        "random state of the device": _device_rng_state(model.device),
        "numpy random state": copy.deepcopy(np.random.get_state()),
        "python random state": random.getstate(),
    }


def _device_rng_state(device: torch.device) -> torch.Tensor | None:
    """Return the random state of an accelerator; the CPU's is PyTorch's own."""
    if device.type == "cpu":
        return None
    state: torch.Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


HINTS = {"gradients": "; leave no .grad: use torch.autograd.grad, or end with zero_grad()"}
"""What a method left changed -> what to do about it."""


def _which(before: object, after: object) -> str:
    """Return ``: NAME`` of the first weight or module for which two states differ, if they say."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    elif isinstance(before, list) and isinstance(after, list):
        names = [name for name in [*before, *after] if (name in before) != (name in after)]
    else:
        return ""
    return f": {names[0] or 'the whole model'}" if names else ""


def _same(before: object, after: object) -> bool:
    """Return whether two states are equal; == on tensors or arrays gives no single truth value."""
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        return torch.equal(before, after)
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, tuple) and isinstance(after, tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    return bool(before == after)


def _parts(change: Change) -> tuple[torch.Tensor, ...]:
    return (change,) if isinstance(change, torch.Tensor) else change


@torch.no_grad()
def _logits(model: PreTrainedModel, ids_BT: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits


_watched: list[list[str]] = []
"""The paths written to so far, for each ``only_writes_below`` that is open."""
_hooks: list[object] = []
"""The audit hook, once it is installed."""


@contextmanager
def only_writes_below(*folders: Path) -> Iterator[None]:
    """Fail if the body opens a file for writing, or makes a folder, outside ``folders``."""
    if not _hooks:  # an audit hook cannot be removed, so one is installed for good
        sys.addaudithook(_note_write)
        _hooks.append(_note_write)
    written: list[str] = []
    _watched.append(written)
    try:
        yield
    finally:
        _watched.remove(written)
    # Resolved, because temporary folders are behind a symbolic link on some systems.
    allowed = [Path(folder).resolve() for folder in folders]
    stray = [
        path
        for path in written
        if not any(Path(path).resolve().is_relative_to(folder) for folder in allowed)
    ]
    assert not stray, f"files were written outside the cache: {stray}"


def _note_write(event: str, args: tuple[object, ...]) -> None:
    """Record the path of an audit event that writes (PEP 578)."""
    if (
        not _watched
        or event not in ("open", "os.mkdir", "os.rename")
        or not isinstance(args[0], (str, os.PathLike))
    ):
        return
    # args of "open" are path, mode and flags; the flags tell reading from writing.
    if event == "open" and not (
        isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ):
        return
    path = str(args[0])
    # the interpreter writes bytecode, not the method
    if path != os.devnull and "__pycache__" not in path:
        for written in _watched:
            written.append(path)
