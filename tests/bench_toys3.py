"""Small rooms to measure: conversations and configuration files, without anything else of those rooms."""

from __future__ import annotations

import os
import shutil
from typing import Any, Protocol

import yaml

from ksi_daemon.area import Area
from ksi_daemon.exercise import Exercise, Step
from ksi_daemon.lane import Lane
from ksi_daemon.router import Event
from ksi_migrate.bench_scan import Scan


class Histories(Protocol):
    """What the toy room of conversations asks of its side."""

    async def listing(self, now: float, limit: int) -> dict[str, Any]:
        """The latest of all conversations."""

    async def search(self, query: str) -> dict[str, Any]:
        """Those that hold a word."""


class Documents(Protocol):
    """What the toy room of configuration files asks of its side."""

    async def read(self, name: str) -> Any:
        """A file's value."""

    async def change(self, name: str, key: str, value: Any) -> str:
        """Set a key; the name of the backup."""


class SyncHistories:
    """Everything scanned, inline."""

    def __init__(self, site):
        self._scan = Scan(site.settings.response_log_dir, site.settings.root)

    def open(self):
        """Nothing to open."""

    def close(self):
        """Nothing to close."""

    def listing(self, now, limit):
        """As the original."""
        return self._scan.listing(now, limit)

    def search(self, query):
        """As the original."""
        return self._scan.search(query)


class SyncDocuments:
    """Loaded and written each time, inline."""

    def __init__(self, site):
        self._root = site.settings.root
        self._count = 0

    def open(self):
        """Nothing to open."""

    def close(self):
        """Nothing to close."""

    def read(self, name):
        """The whole file."""
        return yaml.safe_load(self._path(name).read_bytes())

    def change(self, name, key, value):
        """Read, copied, changed and put in its place."""
        found = self.read(name)
        backup = self._root / f"var/tmp/{name}.{self._count}"
        self._count += 1
        backup.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self._path(name), backup)
        first, _, second = key.partition(".")
        found.setdefault(first, {})[second] = value
        temp = self._root / "var/lib/new"
        temp.write_text(yaml.safe_dump(found, default_flow_style=False, sort_keys=False))
        os.rename(temp, self._path(name))
        return backup.name

    def _path(self, name):
        return self._root / "var/lib/compositions" / name


class OnLane:
    """The same on a lane."""

    def __init__(self, side):
        self._side = side

    async def open(self):
        """The lane."""
        self._lane = Lane("toy")

    async def close(self):
        """The lane."""
        await self._lane.close(1)


class AsyncHistories(OnLane):
    """The scan off the loop."""

    def __init__(self, site):
        super().__init__(SyncHistories(site))

    async def listing(self, now, limit):
        """Off the loop."""
        return await self._lane.run(lambda: self._side.listing(now, limit))

    async def search(self, query):
        """Off the loop."""
        return await self._lane.run(lambda: self._side.search(query))


class AsyncDocuments(OnLane):
    """One change after the other, off the loop."""

    def __init__(self, site):
        super().__init__(SyncDocuments(site))

    async def read(self, name):
        """Off the loop."""
        return await self._lane.run(lambda: self._side.read(name))

    async def change(self, name, key, value):
        """Off the loop."""
        return await self._lane.run(lambda: self._side.change(name, key, value))


class ToyConversations:
    """Listings and searches, as the contract has them."""

    def __init__(self, side, site):
        self._side, self._clock = side, site.clock

    def events(self):
        """Three."""
        return (
            Event("conversation:list", self.list, "List"),
            Event("conversation:search", self.search, "Search"),
            Event("conversation:get", self.get, "Get"),
        )

    async def start(self):
        """Nothing to bring up."""

    async def stop(self):
        """Nothing runs."""

    async def list(self, data, _client):
        """The latest."""
        return await self._side.listing(self._clock(), data["limit"])

    async def search(self, data, _client):
        """Those with a word."""
        return await self._side.search(data["query"])

    async def get(self, data, _client):
        """One without its messages."""
        return {"session_id": data["session_id"], "messages": []}


class ToyConfig:
    """Get and set, as the contract has them."""

    def __init__(self, side, _site):
        self._side = side

    def events(self):
        """Two."""
        return (Event("config:get", self.get, "Get"), Event("config:set", self.set, "Set"))

    async def start(self):
        """Nothing to bring up."""

    async def stop(self):
        """Nothing runs."""

    async def get(self, data, _client):
        """A key at the top."""
        return {"key": data["key"], "value": (await self._side.read(data["file_path"]))[data["key"]]}

    async def set(self, data, _client):
        """A key one level down."""
        backup = await self._side.change(data["file_path"], data["key"], data["value"])
        return {"status": "set", "backup": backup}


CONVERSATIONS = Area(
    name="conversation",
    title="toy conversations",
    kind="read",
    week=3,
    contract=Histories,
    sync=SyncHistories,
    aio=AsyncHistories,
    service=ToyConversations,  # type: ignore[arg-type]  # it holds nothing that parity would compare
    exercise=Exercise(("var/state/none",), (), (Step("a"), Step("b"))),
)
CONFIG = Area(
    name="config",
    title="toy configuration",
    kind="replace",
    week=3,
    contract=Documents,
    sync=SyncDocuments,
    aio=AsyncDocuments,
    service=ToyConfig,  # type: ignore[arg-type]  # as above
    exercise=Exercise(("var/lib/none",), (), (Step("a"), Step("b"))),
    reads=frozenset({"read"}),
)
