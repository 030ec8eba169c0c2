"""`discovery:search`: a bounded search of the source tree, for agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.discovery import asked
from ksi_daemon.discovery.frames import Frames
from ksi_daemon.router import Client, Data, Event

if TYPE_CHECKING:
    from ksi_daemon.discovery.clients import Clients
    from ksi_daemon.discovery.contract import CodeSearch
    from ksi_daemon.discovery.core import Found, Match, Query
    from ksi_daemon.site import Site


class Searching:
    """The service of that event."""

    def __init__(self, code: CodeSearch, clients: Clients, site: Site) -> None:
        self._code = code
        self._clients = clients
        self._site = site

    def events(self) -> tuple[Event, ...]:
        """The search."""
        params = asked.params(self._site.settings)
        summary = "Search the source tree"
        return (Event("discovery:search", self.search, summary, params, ("discovery:match",)),)

    async def search(self, data: Data, client: Client | None) -> dict[str, Any]:
        """By path and line. With `stream` each match is a frame to this client alone, and the reply has none.

        A search that a limit ends, or of which `rg` could not read everything, is a result that says so.
        Raises for wrong parameters, and as the contract.
        """
        query = asked.query(data, self._site.settings)
        search_id = asked.search_id(data) or self._site.new_id()
        if asked.flag(data, "stream") and client is not None:
            shown = {}
            found = await self._clients.serve(client, self._streamed(query, search_id, client))
        else:
            found = await self._clients.serve(client, self._code.search(query, None))
            shown = {"matches": [_shown(match, query) for match in found.matches]}
        return {
            "search_id": search_id,
            **shown,
            "count": len(found.matches),
            "stopped": found.stopped or None,
            "partial": bool(found.trouble),
            **({"reason": found.trouble} if found.trouble else {}),
        }

    async def _streamed(self, query: Query, search_id: str, client: Client) -> Found:
        frames = Frames(client, lambda match: _frame(search_id, _shown(match, query)))
        try:
            found = await self._code.search(query, frames.add)
            await frames.sent()
        finally:
            frames.end()
        return found


def _shown(match: Match, query: Query) -> dict[str, Any]:
    shown = {"path": match.path, "line": match.line, "column": match.column, "text": match.text}
    return {**shown, "before": match.before, "after": match.after} if query.context else shown


def _frame(search_id: str, shown: dict[str, Any]) -> bytes:
    return wire.encode({"event": "discovery:match", "data": {"search_id": search_id, **shown}})
