"""How long work tells what it is doing; `render.py` shows it, and a quiet one does nothing."""

from typing import Protocol


class Progress(Protocol):
    """Told about each step of long work."""

    def step(self, text: str, done: int, total: int) -> None:
        """`done` of `total` steps are over; `text` says which comes now."""


class Quiet:
    """Says nothing."""

    def step(self, text: str, done: int, total: int) -> None:
        """Nothing."""


QUIET = Quiet()
