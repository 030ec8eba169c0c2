"""A daemon without a switch: every room stands on its sync side itself. Its argument is the root."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

from ksi_daemon import app, process, settings
from ksi_daemon.flags import Stage
from ksi_daemon.switch import contract_methods

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ksi_daemon.area import Area
    from ksi_daemon.site import Site


class Bare:
    """The sync side of a component, called inline; a switch has to answer more, and so does this."""

    def __init__(self, area: Area, site: Site) -> None:
        self._side = area.control(site)
        self.stage = Stage.SYNC
        for name in contract_methods(area.contract):
            setattr(self, name, inline(getattr(self._side, name)))

    async def open(self, stage: Stage) -> None:
        """Open the side; there is no other."""
        assert stage is Stage.SYNC
        await inline(self._side.open)()

    async def close(self) -> None:
        """Close the side."""
        await inline(self._side.close)()

    def flipping(self) -> None:
        """There is nothing to flip."""

    def pending(self) -> None:
        """A blocking side has nothing under way when somebody can ask."""


def inline(method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The method as a coroutine function."""

    async def call(*args: Any) -> Any:
        result = method(*args)
        return await result if inspect.isawaitable(result) else result

    return call


if __name__ == "__main__":
    with mock.patch.object(app, "Switch", Bare):
        sys.exit(process.run(settings.load(sys.argv[1])))
