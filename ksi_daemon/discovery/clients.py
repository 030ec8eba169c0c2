"""Work on behalf of a client, which ends when the client is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from ksi_daemon.discovery.failures import ClientGone

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ksi_daemon.router import Client

T = TypeVar("T")


class Clients:
    """Which work is done for whom."""

    def __init__(self) -> None:
        self._tasks: dict[Client, set[asyncio.Task[Any]]] = {}

    async def serve(self, client: Client | None, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises, or `ClientGone`. Cancelled, it ends the work first."""
        if client is None:
            return await work
        task = asyncio.ensure_future(work)
        task.add_done_callback(_seen)
        self._of(client).add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._tasks.get(client, set()).discard(task)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            raise ClientGone
        return task.result()

    def _of(self, client: Client) -> set[asyncio.Task[Any]]:
        """Its work. It is asked once only to tell when it goes: a connection may last for years."""
        if client not in self._tasks:
            self._tasks[client] = set()
            client.on_close(lambda: self._gone(client))
        return self._tasks[client]

    def _gone(self, client: Client) -> None:
        for task in self._tasks.pop(client):
            task.cancel()


def _seen(task: asyncio.Task[Any]) -> None:
    """It is no fault if its caller was cancelled and does not ask how it ended."""
    if not task.cancelled():
        task.exception()
