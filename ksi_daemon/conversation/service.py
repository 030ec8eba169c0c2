"""Conversations as clients know them: listed, searched, read, exported, and locked."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from ksi_daemon import wire
from ksi_daemon.conversation import requests
from ksi_daemon.conversation.bus import MOST_LINES
from ksi_daemon.conversation.catalogue import between, shown
from ksi_daemon.conversation.core import BUS, ENDING, Order, Which, exports_dir, is_session
from ksi_daemon.conversation.departing import Departing
from ksi_daemon.conversation.exporting import ENDINGS, name_of
from ksi_daemon.conversation.failures import BusLogNotFound, ConversationNotFound, Failed, Unusable
from ksi_daemon.conversation.locks import Locks
from ksi_daemon.conversation.replies import array
from ksi_daemon.conversation.visible import Visible
from ksi_daemon.errors import KsiError, reply_fields
from ksi_daemon.router import Client, Data, Event, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ksi_daemon.conversation.contract import ConversationStore, Progress
    from ksi_daemon.conversation.core import Found, Summary
    from ksi_daemon.site import Site

log = structlog.get_logger("ksi.conversation")

PROGRESS = "conversation:progress"
"""The frame that tells how far a refresh is."""

ENVELOPE = 64 * 1024
"""Bytes of a reply that are left for what is around its rows."""


class ConversationService:
    """What clients see stays when the sides change; what a side knows does not."""

    def __init__(self, store: ConversationStore, site: Site) -> None:
        self._store = store
        self._site = site
        self._visible = Visible(store, site)
        self._locks = Locks(site)
        self._departing = Departing()
        self._names = _Names()
        self._most = max(ENVELOPE, site.settings.max_unread_bytes - ENVELOPE)
        self._periodic: asyncio.Task[None] | None = None

    def events(self) -> tuple[Event, ...]:
        """Of conversations, then of locks; both answer `conversation:active`."""
        return (
            Event("conversation:list", self.list, "List conversations", requests.LIST),
            Event("conversation:search", self.search, "Search conversations", requests.SEARCH),
            Event("conversation:get", self.get, "Show a conversation's messages", requests.GET),
            Event("conversation:export", self.export, "Write a conversation to a file", requests.EXPORT),
            Event("conversation:stats", self.stats, "Count conversations and messages"),
            Event("conversation:active", self.active, "Show who spoke last on the bus", requests.ACTIVE),
            Event(
                "conversation:refresh", self.refresh, "Look at the logs now", requests.REFRESH, (PROGRESS,)
            ),
            *self._locks.events(),
        )

    async def start(self) -> None:
        """Nothing is read before somebody asks, unless KSI_CONVERSATION_REFRESH_S says so."""
        if self._site.settings.conversation_refresh_s:
            self._periodic = asyncio.create_task(self._refresh_on())

    async def stop(self) -> None:
        """End refreshes that are under way."""
        if self._periodic is not None:
            self._periodic.cancel()
            await asyncio.wait([self._periodic])
        await self._visible.stop()

    def memory(self) -> dict[str, Any]:
        """What is visible, and the locks."""
        return {**self._visible.plain(), **self._locks.plain()}

    async def list(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """A page of the summaries, refreshed if they are older than a minute."""
        limit, offset = requests.number(data, "limit", 100), requests.number(data, "offset", 0)
        start, end = requests.maybe(data, "start_date"), requests.maybe(data, "end_date")
        with _about("Failed to list conversations"):
            catalogue = await self._visible.fresh()
            reverse = bool(data.get("reverse", True))
            rows = await catalogue.ordered(str(data.get("sort_by")), reverse=reverse)
            try:
                rows = between(rows, start, end)
            except TypeError as error:
                raise Unusable(str(error)) from None
            page = await array(map(self._shown, rows[offset : offset + limit]), self._most)
        return {"conversations": page, "total": len(rows), "offset": offset, "limit": limit}

    async def search(self, data: Data, client: Client | None) -> dict[str, Any]:
        """The conversations that match, of those that are visible; most matches first."""
        wanted = requests.wanted(data)
        catalogue = self._visible.catalogue
        with _about("Search failed"):
            matching = await self._departing.run(self._store.search(catalogue.rows, wanted), client)
            found = sorted(matching, key=lambda one: one.hits, reverse=True)
            by_session = catalogue.by_session
            results = await array((self._result(one, by_session[one.session]) for one in found), self._most)
        return {"query": wanted.text, "results": results, "total_conversations": len(found)}

    async def get(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """A page of one log's messages, or of the bus's completions."""
        session = text(data, "session_id")
        limit, offset = requests.number(data, "limit", 1000), requests.number(data, "offset", 0)
        conversation = requests.maybe(data, "conversation_id") or None
        which = Which(session, offset, limit, conversation if session == BUS else None, self._most)
        with _about("Failed to get conversation"):
            page = await self._store.read(which) if is_session(session) else None
        if page is None:
            raise BusLogNotFound if session == BUS else ConversationNotFound(session)
        filtered = {"filtered_session_id": conversation} if session == BUS else {}
        return {
            "session_id": session,
            **filtered,
            "messages": orjson.Fragment(page.messages),
            "total": page.total,
            "offset": offset,
            "limit": limit,
        }

    async def export(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """A file that is whole and in its place when this is answered, beside all that were there before."""
        session, form, at = text(data, "session_id"), requests.export_format(data), self._site.clock()
        done = None
        if is_session(session):
            order = Order(session, form, self._names.new(session, form, at), at)
            with _about("Export failed"):
                done = await self._store.export(order)
        if done is None:
            raise BusLogNotFound if session == BUS else ConversationNotFound(session)
        return {
            "export_path": self._told(exports_dir(self._site.settings) / done.name),
            "filename": done.name,
            "format": form,
            "message_count": done.messages,
            "size_bytes": done.size,
        }

    async def stats(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """All conversations together, refreshed if they are older than a minute."""
        with _about("Failed to get stats"):
            catalogue = await self._visible.fresh()
        totals = catalogue.totals
        return {
            "total_conversations": len(catalogue.rows),
            "total_messages": totals.messages,
            "total_size_bytes": totals.size,
            "total_size_mb": round(totals.size / 1024 / 1024, 2),
            "earliest_timestamp": totals.earliest,
            "latest_timestamp": totals.latest,
            "exports_dir": self._told(exports_dir(self._site.settings)),
            "cache_age_seconds": int(self._visible.age()),
            "skipped_lines": totals.skipped,
        }

    async def active(self, data: Data, _client: Client | None) -> Any:
        """The first of the two answers; an error is one too, so that there are always two."""
        try:
            lines, hours = requests.number(data, "max_lines", 100), requests.hours(data)
            if lines > MOST_LINES:
                raise Unusable(f"max_lines must not be more than {MOST_LINES}")
            with _about("Failed to get active conversations"):
                found = await self._store.active(lines, self._site.clock() - hours * 3600)
        except KsiError as error:
            return reply_fields(error)
        return {"active_sessions": []} if found is None else orjson.Fragment(found)

    async def refresh(self, data: Data, client: Client | None) -> dict[str, Any]:
        """Look at every log now; with `stream` this client alone hears how far it is."""
        frames = client if data.get("stream") is True else None
        began = self._site.clock()

        def told(progress: Progress) -> None:
            if frames is not None:
                body = {"event": PROGRESS, "data": progress._asdict()}
                frames.send(wire.encode(body))

        with _about("Failed to refresh conversations"):
            done = await self._visible.refreshed(told)
        return {
            "status": "refreshed",
            "files": {
                "total": done.total,
                "read": done.read,
                "unchanged": done.total - done.read,
                "removed": done.removed,
            },
            "skipped_lines": self._visible.catalogue.totals.skipped,
            "duration_s": round(max(0.0, self._site.clock() - began), 3),
        }

    async def _refresh_on(self) -> None:
        while True:
            try:
                await self._visible.now()
            except KsiError as error:
                log.warning("conversations not refreshed", error=str(error))
            await asyncio.sleep(self._site.settings.conversation_refresh_s)

    def _shown(self, row: Summary) -> dict[str, Any]:
        return shown(row, self._told(self._site.settings.response_log_dir / f"{row.session}{ENDING}"))

    def _result(self, found: Found, row: Summary) -> dict[str, Any]:
        return {
            "session_id": found.session,
            "conversation_metadata": self._shown(row),
            "matches": orjson.Fragment(found.matches),
            "match_count": found.hits,
        }

    def _told(self, path: Path) -> str:
        """A path as it is configured: relative to the root, if it lies below that."""
        root = self._site.settings.root
        return os.fspath(path.relative_to(root) if path.is_relative_to(root) else path)


class _Names:
    """The names of exports: those of one second are numbered in the order of the requests."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}
        self._second = 0

    def new(self, session: str, form: str, at: float) -> str:
        """A name without its ending that no request before has got."""
        if int(at) != self._second:
            self._given.clear()
            self._second = int(at)
        name = name_of(session, at)
        key = f"{name}.{ENDINGS[form]}"
        self._given[key] = number = self._given.get(key, 0) + 1
        return name if number == 1 else f"{name}_{number}"


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    """Say before an error what the request was about."""
    try:
        yield
    except KsiError as error:
        raise Failed(what, error) from error
