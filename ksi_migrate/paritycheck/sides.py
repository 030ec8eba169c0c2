"""A room's sides as parity runs them: the control's methods as coroutines, or both behind the switch."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from ksi_daemon.area import Area
from ksi_daemon.errors import FlipRefused, KsiError
from ksi_daemon.flags import Stage
from ksi_daemon.site import Site
from ksi_daemon.switch import Switch, contract_methods


class Backend(Protocol):
    """What a trial runs a service on; the contract's methods are its attributes."""

    async def open(self) -> None:
        """Open the files. Raises the side's error."""

    async def close(self) -> None:
        """Flush and let go."""

    async def between(self) -> None:
        """What happens between two steps."""


Make = Callable[[Area, Site], Backend]
"""How a trial comes to its side."""


class Plain:
    """One side; a blocking method runs inline, an awaitable is awaited. Nothing happens between steps."""

    def __init__(self, side: Any, contract: type) -> None:
        self._take(side, contract)

    def _take(self, side: Any, contract: type) -> None:
        self._side = side
        for name in contract_methods(contract):
            setattr(self, name, _awaited(getattr(side, name)))

    async def open(self) -> None:
        """Open the side."""
        await _awaited(self._side.open)()

    async def close(self) -> None:
        """Close the side."""
        await _awaited(self._side.close)()

    async def between(self) -> None:
        """Nothing."""


class Candidate(Plain):
    """The async side; one that cannot be opened gives way to sync, as at the daemon's start."""

    def __init__(self, area: Area, site: Site) -> None:
        super().__init__(area.aio(site), area.contract)
        self._fallback = area.control(site), area.contract

    async def open(self) -> None:
        """Open the side, or change to sync and raise."""
        try:
            await super().open()
        except KsiError:
            self._take(*self._fallback)
            raise


class Replaced(Plain):
    """The sync side, closed and made anew between steps: what a flip is to be compared with."""

    def __init__(self, area: Area, site: Site) -> None:
        super().__init__(area.control(site), area.contract)
        self._area = area
        self._site = site

    async def between(self) -> None:
        """Make a new side; one that cannot be opened is used all the same, as after a refused flip."""
        await self.close()
        self._take(self._area.control(self._site), self._area.contract)
        with suppress(KsiError):
            await self.open()
        await asyncio.sleep(0)  # a flip lets others run too


class Switched:
    """Both sides behind the daemon's own switch, which stays where it begins."""

    def __init__(self, area: Area, site: Site, stage: Stage) -> None:
        self.switch = Switch(area, site)
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self.switch, name)

    async def open(self) -> None:
        """Open the switch at its stage; if that fails begin at sync, as the daemon does, and raise."""
        try:
            await self.switch.open(self._stage)
        except KsiError:
            await self.switch.open_closed()
            raise

    async def close(self) -> None:
        """Close the side in force."""
        await self.switch.close()

    async def between(self) -> None:
        """Nothing."""


class Flipping(Switched):
    """Both sides behind the switch, which changes over between steps."""

    async def between(self) -> None:
        """Flip to the other side; one that cannot be opened is refused, and the old one goes on."""
        to = Stage.SYNC if self.switch.stage is not Stage.SYNC else Stage.ASYNC
        with suppress(FlipRefused):
            await self.switch.flip(to)


def control(area: Area, site: Site) -> Backend:
    """The sync side."""
    return Plain(area.control(site), area.contract)


def switch_at(stage: Stage) -> Make:
    """The switch at one stage."""
    return lambda area, site: Switched(area, site, stage)


def flipping(area: Area, site: Site) -> Backend:
    """The switch, beginning at sync, flipped before each step."""
    return Flipping(area, site, Stage.SYNC)


def _awaited(method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any) -> Any:
        result = method(*args)
        return await result if inspect.isawaitable(result) else result

    return call
