"""What the workers of discovery do: look at the tree, and parse files of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ksi_daemon.discovery import tree
from ksi_daemon.discovery.core import chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksi_daemon.discovery.core import Example
    from ksi_daemon.worker import Jobs, Turn

Row = tuple[str, tuple[str, int, int, bytes]]
"""An event and an example of it, in plain values."""


def look(turn: Turn, folder: str, left_out: str, most_s: float) -> tuple[bytes, bytes, float]:
    """`tree.look`."""
    return (*tree.look(folder, left_out, most_s, turn.check),)


def examples(
    turn: Turn, folder: str, files: Sequence[tuple[str, Sequence[str]]], most_bytes: int
) -> list[Row]:
    """The first two examples of each event in these files."""
    found: dict[str, list[Example]] = {}
    for event, row in tree.examples(folder, files, most_bytes, turn.check):
        found.setdefault(event, []).append(row)
    return [(event, (*row,)) for event, rows in found.items() for row in chosen(rows)]


JOBS: Final[Jobs] = {"look": look, "examples": examples}
