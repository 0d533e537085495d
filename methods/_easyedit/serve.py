"""The child's half of a live edit: answer for the model that EasyEdit edited.

Its wrappers choose what a layer computes by the text that they read: GRACE by the activation of the
prompt's last token, WISE by the mean over all tokens so far. EasyEdit asks them for free text by
``generate``, one text at a time and without a cache, and each wrapper prepares itself for a new
text there. So that is the only way in which they are asked here. For the probabilities of a target,
``generate`` writes the target, and its logits on the way are kept. A token's logits then never
depend on tokens behind it, which they do if WISE reads prompt and target in one pass.

All passes compute in float32, as EasyEdit's did. In bfloat16 the activations of one prompt lie
farther apart than the radius in which GRACE recognizes it.

A cache is used where it changes nothing but the time: see ``_adapters_read_all``.

# T tokens, D width of an activation, V vocabulary
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import ModuleList
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)

from editbench.decoding import Decoding, Ends, Text
from editbench.errors import MethodError, NotFiniteError
from editbench.live import Writing
from editbench.models import computing

Reply = dict[str, Any]
Again = Callable[[Reply, Any], tuple[Reply, Any]]
"""Makes one more edit of an edited model by a request, and returns the reply and the model."""


class Server:
    """Answers requests (``live.ChildModel``) for an edited model.

    Args:
        edited: EasyEdit's wrapper, or whatever else has the ``generate`` of transformers.
        folder: where answers are put that are tensors.
        again: for sequences; ``None``: the model takes no further edit.
    """

    def __init__(
        self,
        edited: Any,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        again: Again | None = None,
    ):
        self.tokenizer, self.folder, self.again = tokenizer, folder, again
        self.line_ends = Ends(self._decode)
        self.states: dict[int, Any] = {0: _ready(edited)}
        """The newest edited model and the one before it, by their numbers."""
        self.edits = 0

    def answer(self, request: Reply) -> Reply:
        """Answer one request.

        Raises:
            MethodError: if an edited model is asked that is no longer kept, or cannot be edited.
        """
        if request["number"] not in self.states:
            raise MethodError("the model from before the last two chunks is no longer kept")
        if request["do"] == "edit":
            return self._edit(request)
        model = self.states[request["number"]]
        asked = {"logits": self._logits, "write": self._write, "generate": self._generate}
        with torch.no_grad():
            return asked[request["do"]](model, request)

    def _edit(self, request: Reply) -> Reply:
        """Edit a model once more, and keep what it was before."""
        if self.again is None:
            raise MethodError("this algorithm makes no second edit of a model that it has edited")
        number = request["number"]
        edited = self.states[number]
        self.states = {number: _copied(edited)}
        reply, edited = self.again(request, edited)
        self.edits += 1
        self.states[self.edits] = _ready(edited)
        return {**reply, "live": True, "number": self.edits}

    def _logits(self, model: Any, request: Reply) -> Reply:
        """Write the logits (T, V) from which the target is written into a file."""
        forced = _Forced(request["target"])
        self._run(model, request["prompt"], len(request["target"]), [forced], [])
        save_file({"logits": torch.stack(forced.logits)}, self.folder / "logits.safetensors")
        return {"file": "logits.safetensors"}

    def _write(self, model: Any, request: Reply) -> Reply:
        """Return the ids of a text as ``LanguageModel.generate_ids`` writes it."""
        written = _Written(Writing(**request["how"]), self.line_ends)
        try:
            self._run(model, request["prompt"], written.text.room, [written.pick], [written])
        except NotFiniteError as error:
            return {"not_finite": str(error)}
        return {"ids": written.text.ids}

    def _generate(self, model: Any, request: Reply) -> Reply:
        """Return the ids that ``generate`` writes as lm-eval calls it."""
        torch.manual_seed(request["seed"])
        prompt, until = request["prompt"], request["until"]

        def ended(ids: Sequence[int]) -> bool:
            text = str(self.tokenizer.decode(list(ids[len(prompt) :])))
            return any(end in text for end in until)

        ids = self._run(model, prompt, request["room"], [], [_Ending(ended)], request["options"])
        return {"ids": ids[len(prompt) :]}

    def _run(
        self,
        model: Any,
        prompt: Sequence[int],
        room: int,
        processors: list[Any],
        endings: list[StoppingCriteria],
        options: Reply | None = None,
    ) -> list[int]:
        """Return the ids of the prompt and of what the model's own ``generate`` writes behind."""
        inner = inner_model(model)
        ids_1T = torch.tensor([prompt], device=inner.device)
        own, inner.generation_config = inner.generation_config, GenerationConfig()
        given = {"do_sample": False, **(options or {}), "max_new_tokens": room}
        try:
            with _adapters_read_all(inner) as cached:
                output = model.generate(
                    input_ids=ids_1T,
                    attention_mask=torch.ones_like(ids_1T),
                    logits_processor=processors,
                    stopping_criteria=endings,
                    **{**given, "use_cache": cached},
                )
        finally:
            inner.generation_config = own
        ids: list[int] = output[0].tolist()
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids`` as ``LanguageModel.decode`` does."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)


class _Forced(LogitsProcessor):
    """Makes ``generate`` write a target, and keeps the logits of each of its tokens."""

    def __init__(self, target: Sequence[int]):
        self.target = target
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self.target[len(self.logits)]
        self.logits.append(scores[0].float().cpu())
        return _only(token, scores)


class _Written(StoppingCriteria):
    """Makes ``generate`` write a text by the rules of ``LanguageModel.generate_ids``."""

    def __init__(self, how: Writing, line_ends: Ends):
        self.text = Text(how.room, how.lines)
        self._how, self._line_ends = how, line_ends
        self._decoding = Decoding(None, how.temperature, how.top_k)
        self._goes_on = True

    def pick(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Choose the next token: a processor of logits."""
        draws = self._how.draws
        uniform_11 = None if draws is None else torch.tensor([[draws[len(self.text.ids)]]])
        token = int(self._decoding.pick(scores, uniform_11))
        self._goes_on = self.text.goes_on(token, self._how.stop_ids, self._line_ends)
        return _only(token, scores)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([not self._goes_on], device=input_ids.device)


class _Ending(StoppingCriteria):
    """Ends a text by a rule on its ids, the prompt's included."""

    def __init__(self, ended: Callable[[Sequence[int]], bool]):
        self._ended = ended

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.tensor([self._ended(input_ids[0].tolist())], device=input_ids.device)


def _only(token: int, scores: torch.Tensor) -> torch.Tensor:
    """Return scores by which ``token`` is the next one."""
    chosen = torch.full_like(scores, -torch.inf)
    chosen[:, token] = 0
    return chosen


def inner_model(model: Any) -> PreTrainedModel:
    """Return the model of transformers inside a wrapper, or itself."""
    return next(part for part in model.modules() if isinstance(part, PreTrainedModel))


@contextmanager
def _adapters_read_all(inner: PreTrainedModel) -> Iterator[bool]:
    """Inside, let EasyEdit's adapters read a text from its first token, whatever a cache holds.

    Yields whether ``generate`` may use a cache then. It may if all of them are in the last layer:
    the layers below compute the same with a cache as without one, and no attention above reads what
    an adapter returned for earlier tokens, which may change with each new one.
    """
    adapters = [m for m in inner.modules() if type(m).__module__.startswith("easyeditor.")]
    depth = inner.config.get_text_config().num_hidden_layers
    stacks = [m for m in inner.modules() if isinstance(m, ModuleList) and len(m) == depth]
    last = set(stacks[0][-1].modules()) if len(stacks) == 1 else set()
    with ExitStack() as stack:
        cached = bool(adapters) and last.issuperset(adapters)
        for adapter in adapters if cached else ():
            stack.enter_context(computing(adapter, _reading_all(adapter.forward)))
        yield cached


def _reading_all(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return ``forward`` for new tokens: it reads the earlier ones before them again."""
    seen: list[torch.Tensor] = []

    def read(new_1TD: torch.Tensor) -> torch.Tensor:
        seen.append(new_1TD)
        return forward(torch.cat(seen, dim=1))[:, -new_1TD.shape[1] :]

    return read


def _ready(edited: Any) -> Any:
    """Return the edited model, ready to be asked."""
    edited.eval()
    if edited is not inner_model(edited):
        # WISE merges its memories when it is first called, which ``generate`` does not do
        with torch.no_grad():
            edited(input_ids=torch.zeros(1, 1, dtype=torch.long, device=inner_model(edited).device))
    return edited


def _copied(edited: Any) -> Any:
    """Return a copy of an edited model."""
    # Wrappers keep outputs of their last training step, and only leaves can be copied.
    for module in edited.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                setattr(module, name, value.detach())
    return copy.deepcopy(edited)
