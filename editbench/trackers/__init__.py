"""Trackers: other systems that are told of a run while it goes on."""

BUILTINS = {"wandb": "editbench.trackers.wandb:Wandb"}
"""Name -> ``module:Class``. Others are entry points of the group ``editbench.trackers``."""
