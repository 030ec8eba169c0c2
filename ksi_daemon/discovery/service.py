"""The room's service: events described, and code searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon.discovery.clients import Clients
from ksi_daemon.discovery.listing import Listing
from ksi_daemon.discovery.searching import Searching

if TYPE_CHECKING:
    from ksi_daemon.discovery.contract import CodeSearch
    from ksi_daemon.router import Event
    from ksi_daemon.site import Site


class Discovery:
    """It keeps nothing in memory: what was found belongs to the side that found it."""

    def __init__(self, code: CodeSearch, site: Site) -> None:
        clients = Clients()
        self._listing = Listing(code, clients, site)
        self._searching = Searching(code, clients, site)

    def events(self) -> tuple[Event, ...]:
        """What describes events, then the search."""
        return (*self._listing.events(), *self._searching.events())

    async def start(self) -> None:
        """Nothing: the tree is looked at when somebody asks."""

    async def stop(self) -> None:
        """Nothing: the side ends what it has running."""

    def memory(self) -> dict[str, Any]:
        """Nothing."""
        return {}
