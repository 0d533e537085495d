"""What the parent writes for the child: the model, the covariance, the requests."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from editbench.checkpoints import quiet_transformers
from editbench.errors import MethodError
from editbench.methods._easyedit.algorithm import Algorithm
from editbench.methods._easyedit.process import new_folder
from editbench.methods.statistics import Moment
from editbench.models import LanguageModel
from editbench.subjects import find_subject
from editbench.types import Fact

MODEL_FOLDER = "llama"
"""EasyEdit's code looks for family names in the name of the folder. This one makes it generate
without an attention mask; how weights are stored it learns from ``model_name`` (``fields.py``)."""


class _Folder:
    """The weights of a model as they were last handed over, in a folder."""

    def __init__(self, model: LanguageModel, fingerprint: str):
        self.fingerprint, self.path = fingerprint, new_folder()
        self._finish = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        folder = self.path / MODEL_FOLDER
        folder.mkdir()
        stored = model.model.state_dict()
        names = [n for n, _ in model.model.named_parameters()]  # each tied weight once
        names += [n for n, _ in model.model.named_buffers() if n in stored]
        tensors = {n: _float32(stored[n]).contiguous().cpu() for n in names}
        save_file(tensors, folder / "weights.safetensors")
        with quiet_transformers():
            model.model.config.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)

    def close(self) -> None:
        self._finish()


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


_last: list[_Folder] = []


def model_folder(model: LanguageModel) -> Path:
    """Return a folder with the configuration, tokenizer and float32 weights of ``model``.

    The last one is kept, since facts that are written one at a time begin with the same weights.
    """
    fingerprint = model.fingerprint()
    if not _last or _last[0].fingerprint != fingerprint:
        while _last:
            _last.pop().close()
        _last.append(_Folder(model, fingerprint))
    return _last[0].path / MODEL_FOLDER


def write_covariance(
    folder: Path, fields: Mapping[str, Any], moments: Mapping[int, Moment]
) -> None:
    """Write C of each layer, with our ridge, where EasyEdit looks for its own statistics."""
    place = folder / fields["stats_dir"] / MODEL_FOLDER / f"{fields['mom2_dataset']}_stats"
    place.mkdir(parents=True, exist_ok=True)
    samples, dtype = fields["mom2_n_samples"], fields["mom2_dtype"]
    for layer, moment in moments.items():
        module = fields["rewrite_module_tmp"].format(layer)
        np.savez(
            place / f"{module}_{dtype}_mom2_{samples}.npz",
            **{
                "mom2.constructor": "easyeditor.util.runningstats.SecondMoment()",
                "mom2.count": 1,
                "mom2.mom2": moment.ridged_ff.numpy(),
                "sample_size": samples,
            },
        )


def write_keys(folder: Path, earlier: Mapping[int, torch.Tensor]) -> str | None:
    """Write A (f, M) of earlier facts by layer, and return the name of the file; None if empty."""
    if not earlier:
        return None
    save_file({str(layer): a_fM.contiguous() for layer, a_fM in earlier.items()}, folder / "keys")
    return "keys"


def requests(
    algorithm: Algorithm, model: LanguageModel, facts: Sequence[Fact], other_text: Sequence[str]
) -> list[dict[str, Any]]:
    """Return ``facts`` as EasyEdit takes them.

    Args:
        other_text: for each fact a text that is not about it, which WISE keeps in place.

    Raises:
        MethodError: a prompt or target has a brace, which EasyEdit's code reads as a slot, or a
            fact lacks the answer before the edit where the algorithm needs it.
    """
    return [
        _request(algorithm, model, fact, text, i)
        for i, (fact, text) in enumerate(zip(facts, other_text, strict=True))
    ]


def _request(
    algorithm: Algorithm, model: LanguageModel, fact: Fact, text: str, index: int
) -> dict[str, Any]:
    rendered = model.render(fact.prompt, fact.form)
    prompt, start = rendered.text, rendered.start
    bos = model.tokenizer.bos_token
    if not rendered.special and bos and prompt.startswith(bos):
        prompt, start = prompt[len(bos) :], start - len(bos)  # its tokenizer call adds one again
    if algorithm.needs_original and fact.original is None:
        raise MethodError(
            f"{algorithm.title} needs the answer before the edit, and fact {fact.id!r} has none."
        )
    if algorithm.slot or (algorithm.fills and "{}" in prompt):
        _check_braces(algorithm, fact, prompt)
    subject = fact.subject or fact.prompt
    if algorithm.slot:
        found = find_subject(fact)
        subject, first = found.text, start + found.start
        prompt = f"{prompt[:first]}{{}}{prompt[first + len(subject) :]}"
    return {
        "case_id": index,
        "prompt": prompt,
        "subject": subject,
        "target_new": _target(algorithm, model, fact),
        "target_neg": fact.original,
        "ground_truth": fact.original or "<|endoftext|>",
        "loc_prompt": text,
        "portability": {},
        "locality": {},
    }


def _check_braces(algorithm: Algorithm, fact: Fact, prompt: str) -> None:
    # The code of those with a slot formats the prompt with the target's tokens behind it.
    texts = {"prompt": prompt, "target": fact.target if algorithm.slot else ""}
    for name, text in texts.items():
        if "{" in text or "}" in text:
            raise MethodError(
                f"The {name} of fact {fact.id!r} has a brace, which EasyEdit's code reads as the "
                "place of the subject. Leave the fact out, or reword it."
            )


def _target(algorithm: Algorithm, model: LanguageModel, fact: Fact) -> str:
    # A tokenizer of SentencePiece's kind writes it as part of the word.
    if algorithm.spaced or model.tokenizer.tokenize(fact.target)[:1][0][:1] == "▁":
        return fact.target
    return f" {fact.target}"
