"""A log's bytes to its lines, a piece at a time: pure, so that every split of a file can be tried."""

from __future__ import annotations

LARGEST_LINE = 16 * 1024 * 1024
"""Bytes from which on a line is taken for damage: no reader and no repair loads more at once."""


class LineSplitter:
    """Pieces of a log in, whole lines out; only the first `end` bytes count, and no line over 16 MiB.

    What follows the last newline is no line. Memory is bounded by one piece and one line.
    """

    def __init__(self, end: int) -> None:
        self._left = end
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that `piece` completes, without their newlines; blank ones are left out."""
        piece = piece[: self._left]
        self._left -= len(piece)
        *lines, rest = piece.split(b"\n")
        if lines:
            lines[0] = self._take(lines[0])
        self._add(rest)
        return [line for line in lines if line]

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= LARGEST_LINE:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _take(self, part: bytes) -> bytes:
        """The begun line with its last part, or nothing if it grew too large."""
        self._add(part)
        line = b"".join(self._parts)
        self._parts, self._size = [], 0
        return line
