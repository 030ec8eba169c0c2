"""Work that ends when the client that asked for it goes away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from ksi_daemon.router import Client

T = TypeVar("T")


class ClientGone(KsiError):
    """Nobody is left to read the answer."""

    code = "cancelled"

    def __init__(self) -> None:
        super().__init__("the client has gone")


class Departing:
    """What runs for each client; each is asked only once to tell when it goes."""

    def __init__(self) -> None:
        self._running: dict[int, set[asyncio.Task[Any]]] = {}

    async def run(self, work: Coroutine[Any, Any, T], client: Client | None) -> T:
        """What comes of it. Raises `ClientGone` when that came first."""
        task = asyncio.create_task(work)
        if client is not None:
            self._of(client).add(task)
        try:
            return await task
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                raise
            raise ClientGone from None
        finally:
            if client is not None and id(client) in self._running:
                self._running[id(client)].discard(task)

    def _of(self, client: Client) -> set[asyncio.Task[Any]]:
        if id(client) not in self._running:
            self._running[id(client)] = set()
            client.on_close(lambda: self._gone(id(client)))
        return self._running[id(client)]

    def _gone(self, which: int) -> None:
        for task in self._running.pop(which):
            task.cancel()
