"""Stop templates that would hardly come to an end.

A chat template and the templates of an lm-eval task are programs of somebody else's. Jinja's
sandbox limits one ``range``, but neither loops in loops nor the templates of lm-eval.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

MAX_LINES = 1_000_000
"""Lines of a compiled template that may run, at less than a second for all. A chat template takes
some hundred."""


@contextmanager
def limited_templates() -> Iterator[None]:
    """Let the Jinja templates in the block run ``MAX_LINES`` lines in all.

    Lines are counted, not seconds, so that a template is refused on every machine or on none.

    Raises:
        OverflowError: in the template, at the line after that.
    """
    left = MAX_LINES

    def count(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        left -= event == "line"
        if left < 0:
            raise OverflowError(f"its loops take more than {MAX_LINES:,} steps")
        return count

    def enter(frame: FrameType, event: str, arg: object) -> Any:
        return count if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()  # a debugger's, or that of a coverage report
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)
