"""Emitting the events of answers: in their order, by tasks that end with the room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ksi_daemon.completion.extract import Scan

if TYPE_CHECKING:
    from ksi_daemon.site import Site

log = structlog.get_logger("ksi.completion")


class Emitting:
    """A task for each answer that holds events."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._tasks: set[asyncio.Task[None]] = set()

    async def emit(self, text: str, agent: str | None) -> None:
        """Emit the events in a text; after `call_timeout` seconds the rest goes on in the background."""
        if '"event"' not in text:
            return
        task = asyncio.create_task(self._emit(text, agent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait([task], timeout=self._site.settings.call_timeout)

    def cancel(self) -> set[asyncio.Task[None]]:
        """Begin to end what is under way; the tasks to wait for."""
        for task in self._tasks:
            task.cancel()
        return set(self._tasks)

    async def _emit(self, text: str, agent: str | None) -> None:
        marks = {"_extracted_from_response": True, **({"_agent_id": agent} if agent is not None else {})}
        for found in Scan(text).run():
            if found is None:
                await asyncio.sleep(0)
                continue
            reply = await self._site.hub.ask(found.event, {**found.data, **marks})
            if isinstance(reply, dict) and "error" in reply:
                log.warning("event of an answer refused", event_name=found.event, error=reply["error"])
