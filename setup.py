"""Find the packages of the five rooms; ``pyproject.toml`` holds everything else.

The rooms lie at the top of the repository and import as ``editbench.ROOM`` (``package-dir`` maps
them), which setuptools cannot find by itself.
"""

from setuptools import find_packages, setup

ROOMS = ("methods", "corpora", "eval", "leaderboard")


def packages_of(room: str) -> list[str]:
    """Return the room and its sub-packages, by the names they import as."""
    return [f"editbench.{name}" for name in (room, *(f"{room}.{p}" for p in find_packages(room)))]


setup(
    packages=[
        "editbench",
        *(f"editbench.{name}" for name in find_packages("editbench")),
        *(name for room in ROOMS for name in packages_of(room)),
    ]
)
