"""Processes that work for this one: what they take counts as its own."""

from __future__ import annotations

PIDS: set[int] = set()
"""Their ids. Whoever starts one adds it, and removes it at its end."""
