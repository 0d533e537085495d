"""Applied model in, scores out. Does not know who made the edit."""

BUILTINS: dict[str, str] = {}
"""Evaluators of ``editbench.plugin.Evaluator``. Probes and retention, which every table has, are no
plug-ins: ``editbench.run`` imports them."""
