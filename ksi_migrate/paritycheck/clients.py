"""Clients that remember: each keeps the frames that it was sent, and can hang up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Listener:
    """One connection, as handlers see it (`router.Client`); it reads at once whatever it is sent."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._closing: list[Callable[[], None]] = []
        self._gone = False

    def send(self, frame: bytes) -> bool:
        """Keep the frame; False after `hang_up`."""
        if not self._gone:
            self._frames.append(frame)
        return not self._gone

    async def writable(self) -> None:
        """Give others a turn, as a real connection does."""
        await asyncio.sleep(0)

    def on_close(self, call: Callable[[], None]) -> None:
        """Have `call` called at `hang_up`."""
        self._closing.append(call)

    def hang_up(self) -> None:
        """Close the connection: what asked to be told is told, in order."""
        self._gone = True
        calls, self._closing = self._closing, []
        for call in calls:
            call()

    def take(self) -> list[bytes]:
        """The frames since the last call."""
        frames, self._frames = self._frames, []
        return frames


class Listeners:
    """All clients of a trial, by name; one that hung up comes back as a new connection."""

    def __init__(self) -> None:
        self._present: dict[str, Listener] = {}
        self._left: list[tuple[str, Listener]] = []

    def get(self, name: str) -> Listener:
        """The client of that name, connected now if it was not."""
        return self._present.setdefault(name, Listener())

    def hang_up(self, name: str) -> None:
        """Close one connection; harmless when there is none."""
        found = self._present.pop(name, None)
        if found is not None:
            found.hang_up()
            self._left.append((name, found))

    def hang_up_all(self) -> None:
        """Close all connections, as the end of a daemon does."""
        for name in list(self._present):
            self.hang_up(name)

    def send_all(self, frame: bytes) -> None:
        """Send a frame to everybody, as the daemon does with what it tells."""
        for listener in self._present.values():
            listener.send(frame)

    def take(self) -> dict[str, list[bytes]]:
        """The frames that each name got since the last call; names that got none are left out."""
        frames: dict[str, list[bytes]] = {}
        for name, listener in (*self._left, *self._present.items()):
            frames.setdefault(name, []).extend(listener.take())
        self._left.clear()
        return {name: found for name, found in frames.items() if found}
