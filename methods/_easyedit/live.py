"""The parent's half of a live edit: an edited model that lives in EasyEdit's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from editbench.errors import MethodError, NotFiniteError

if TYPE_CHECKING:
    import torch

    from editbench.edit import Edit
    from editbench.live import Writing
    from editbench.methods._easyedit.process import Child
    from editbench.models import LanguageModel
    from editbench.plugin import Method
    from editbench.report import EditRecord
    from editbench.types import Fact


IN_FLOAT32 = (
    "EasyEdit's model answers in float32 and the base in {}, so some answers differ by rounding "
    "alone. With --precision float32 both round alike."
)


class ChildModel:
    """An ``editbench.live.LiveModel`` that asks ``serve.Server`` in a child process.

    The process ends when the last edit that it answers for is gone (``Child``).
    """

    def __init__(self, child: Child, number: int, time_limit: float):
        self.child, self.number = child, number
        self._time_limit = time_limit

    def target_logits(self, prompt: Sequence[int], target: Sequence[int]) -> torch.Tensor:
        """Return the logits (T, V) from which the target's tokens are written."""
        from safetensors.torch import load

        reply = self._ask("logits", prompt=list(prompt), target=list(target))
        file = self.child.folder / reply["file"]
        # as bytes, since the next answer takes the place of the file
        logits: torch.Tensor = load(file.read_bytes())["logits"]
        return logits

    def write(self, prompt: Sequence[int], how: Writing) -> list[int]:
        """Return the new ids behind ``prompt``."""
        reply = self._ask("write", prompt=list(prompt), how=asdict(how))
        if "not_finite" in reply:
            raise NotFiniteError(reply["not_finite"])
        return list(reply["ids"])

    def generate(
        self,
        prompt: Sequence[int],
        room: int,
        until: Sequence[str],
        options: Mapping[str, Any],
        seed: int,
    ) -> list[int]:
        """Return the new ids behind ``prompt`` by the ``generate`` of transformers."""
        request = {"room": room, "until": list(until), "options": dict(options), "seed": seed}
        return list(self._ask("generate", prompt=list(prompt), **request)["ids"])

    def _ask(self, what: str, **request: object) -> dict[str, Any]:
        return self.child.ask({"do": what, "number": self.number, **request}, self._time_limit)


def live_edit(
    method: Method,
    model: LanguageModel,
    facts: Sequence[Fact],
    child: Child,
    *,
    number: int = 0,
    time_limit: float,
    diagnostics: Mapping[str, Any] | None = None,
    records: Sequence[EditRecord] = (),
) -> Edit:
    """Return the edit of ``facts`` whose edited model lives in ``child``.

    Args:
        number: which of the child's edited models it is; later chunks of a sequence have larger
            numbers.
        time_limit: seconds for the answer to one text.

    Raises:
        MethodError: if the live model that is applied to ``model`` is another process's, so that
            this edit would silently lose what that one was taught.
    """
    if model.live is not None and getattr(model.live, "child", None) is not child:
        raise MethodError(
            f"{method.name} cannot edit a model that lives in another process. Revert the edit "
            "that is applied first."
        )
    report = dict(diagnostics or {})
    if model.precision != "float32":
        report["warnings"] = [*report.get("warnings", ()), IN_FLOAT32.format(model.precision)]
    edit = method.edit(model, facts, diagnostics=report, records=records)
    return replace(edit, live=ChildModel(child, number, time_limit))
