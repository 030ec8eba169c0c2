"""Bytes to lines, within a limit: pure, so that every split of a stream can be tried."""

from __future__ import annotations

from ksi_daemon.errors import LineTooLong


class Framing:
    """One connection's stream. A line longer than `limit` bytes is given as `LineTooLong`, once, and skipped.

    Memory is bounded by the limit and one piece; a byte costs the same however it arrives.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._skipping = False

    @property
    def begun(self) -> bool:
        """Whether a line has begun that has not ended."""
        return bool(self._buffer) or self._skipping

    def feed(self, piece: bytes) -> list[bytes | LineTooLong]:
        """The lines that `piece` ends, without newline."""
        self._buffer += piece
        if b"\n" not in piece:
            return self._check_begun()
        first, *rest = bytes(self._buffer).split(b"\n")
        found = rest if self._skipping else [first, *rest]
        self._skipping = False
        self._buffer = bytearray(found.pop())
        return [*map(self._checked, found), *self._check_begun()]

    def end(self) -> bytes | None:
        """The last line of a stream that ended without newline, or None."""
        line = bytes(self._buffer)
        self._buffer.clear()
        return line or None

    def _checked(self, line: bytes) -> bytes | LineTooLong:
        return line if len(line) <= self._limit else LineTooLong(self._limit)

    def _check_begun(self) -> list[bytes | LineTooLong]:
        if self._skipping:
            self._buffer.clear()
        elif len(self._buffer) > self._limit:
            self._buffer.clear()
            self._skipping = True
            return [LineTooLong(self._limit)]
        return []
