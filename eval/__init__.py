"""Applied model in, scores out. Does not know who made the edit."""

BUILTINS: dict[str, str] = {}
"""Evaluator plug-ins (``editbench.plugin.Evaluator``). It is empty: every table has probes and
retention, so ``editbench.run`` imports those directly."""
