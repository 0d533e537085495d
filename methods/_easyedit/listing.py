"""What ``editbench list methods`` says of EasyEdit's algorithms, without importing torch."""

from __future__ import annotations

from editbench.errors import OptionError
from editbench.methods._easyedit.algorithms import ALGORITHMS
from editbench.methods._easyedit.source import find


def records() -> list[dict[str, object]]:
    """Return one record for each algorithm; ``lacks`` says why one cannot run here."""
    return [
        {
            "name": f"easyedit-{title.lower()}",
            "kind": "EasyEdit",
            "needs_subject": algorithm.slot,
            "needs_covariance": algorithm.covariance == "always",
            "paper": algorithm.paper,
            "summary": algorithm.summary,
            "broken": None,
            "lacks": lacks(title),
        }
        for title, algorithm in ALGORITHMS.items()
    ]


def lacks(title: str) -> str | None:
    """Return what the algorithm lacks on this machine, in one sentence; None if it can run."""
    try:
        return find(None).missing(ALGORITHMS[title])
    except OptionError as error:
        return str(error)
