"""The cache that clients see: swapped whole, and refreshed once for all who wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ksi_daemon.conversation.catalogue import Catalogue
from ksi_daemon.conversation.contract import Progress

if TYPE_CHECKING:
    from ksi_daemon.conversation.contract import ConversationStore, Told
    from ksi_daemon.site import Site

FRESH_S = 60
"""Seconds for which the cache is good."""


class Visible:
    """Domain state: it stays when the sides change. Used on the loop's thread."""

    def __init__(self, store: ConversationStore, site: Site) -> None:
        self._store = store
        self._site = site
        self._filled: float | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._told: list[Told] = []
        self.catalogue = Catalogue()
        self.progress = Progress(0, 0)
        """How the last refresh ended that somebody watched."""

    def age(self) -> float:
        """Seconds since it was filled."""
        return 0.0 if self._filled is None else max(0.0, self._site.clock() - self._filled)

    async def fresh(self) -> Catalogue:
        """What is there, refreshed if it is over a minute old or from the future. Raises `KsiError`."""
        if self._filled is None or not 0 <= self._site.clock() - self._filled <= FRESH_S:
            await self._join()
        return self.catalogue

    async def now(self) -> None:
        """A refresh, or the one that is under way. Raises `KsiError`."""
        await self._join()

    async def refreshed(self, told: Told) -> Progress:
        """A refresh that did not begin before this call; `told` hears of its progress. Raises `KsiError`."""
        while self._refresh is not None and not self._told:
            await asyncio.wait([self._refresh])
        self._told.append(told)
        try:
            await self._join()
        finally:
            if told in self._told:
                self._told.remove(told)
        return self.progress

    async def stop(self) -> None:
        """End a refresh that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.wait([self._refresh])

    def plain(self) -> dict[str, Any]:
        """What it holds, without files' times."""
        rows = [[row.session, row.size, *row[3:]] for row in self.catalogue.rows]
        return {"filled": self._filled, "conversations": rows}

    async def _join(self) -> None:
        """Wait for the refresh under way, or for a new one; a cancelled caller leaves it to the others."""
        if self._refresh is None:
            self._refresh = asyncio.create_task(self._fill())
            self._refresh.add_done_callback(self._over)
        await asyncio.shield(self._refresh)

    def _over(self, refresh: asyncio.Task[None]) -> None:
        self._refresh = None
        self._told.clear()
        if not refresh.cancelled():
            refresh.exception()  # seen: whoever waited has got it

    async def _fill(self) -> None:
        rows = await self._store.refresh(self._tell if self._told else None)
        if rows is not self.catalogue.rows:
            self.catalogue = Catalogue(rows)
        self._filled = self._site.clock()

    def _tell(self, progress: Progress) -> None:
        self.progress = progress
        for told in tuple(self._told):
            told(progress)
