"""A whole room without a daemon: its service over one side, asked by event name as a client asks it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.hub import Hub
from ksi_daemon.router import Router
from ksi_daemon.site import Durability, Site
from ksi_daemon.switch import Switch
from ksi_migrate.bench_columns import STAGES
from ksi_migrate.exits import Inconclusive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from ksi_daemon.area import Area
    from ksi_daemon.settings import Settings

NOW: Final = 1752340000.0
"""Every stamp: with it both sides have the same bytes to write."""


class Unanswered(Inconclusive):
    """A request was answered with an error, so its time says nothing."""

    def __init__(self, where: str, event: str, answer: Any) -> None:
        found = answer if isinstance(answer, dict) else {}
        what = f"{found.get('error', answer)} ({found.get('code', 'no code')})"
        super().__init__(f"{where}: {event}: {what}", "mend what the message says, and measure again")


@dataclass(frozen=True, slots=True)
class Room:
    """An open room; `side` are its contract's methods on the side in force."""

    where: str
    side: Any
    router: Router

    async def ask(self, event: str, data: dict[str, Any]) -> dict[str, Any]:
        """The reply of one request. Raises `Unanswered` when it is an error."""
        answers = await self.router.emit(event, data)
        if len(answers) != 1 or not isinstance(answers[0], dict) or "error" in answers[0]:
            raise Unanswered(self.where, event, answers[0] if answers else "no reply")
        return answers[0]


@asynccontextmanager
async def served(
    area: Area,
    column: str,
    settings: Settings,
    where: str,
    durability: Durability = "os",
    clock: Callable[[], float] = lambda: NOW,
) -> AsyncIterator[Room]:
    """The room at the stage of `column`, behind a `Switch` as in the daemon, while the block lasts."""
    router = Router()
    site = Site(area.name, settings, durability, clock=clock, hub=Hub(router))
    switch = Switch(area, site)
    await switch.open(STAGES[column])
    try:
        service = area.service(switch, site)
        router.add((*area.exercise.neighbours(), *service.events()))
        await service.start()
        try:
            yield Room(where, switch, router)
        finally:
            await service.stop()
    finally:
        await switch.close()


async def together(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all, each to its end, then raise the first error if there was one."""
    found = await asyncio.gather(*work, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found
