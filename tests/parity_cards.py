"""A toy room that replaces a file, for parity's own tests."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from ksi_daemon.area import Area
from ksi_daemon.errors import IoFailed, KsiError
from ksi_daemon.exercise import Case, Exercise, Step
from ksi_daemon.lane import Lane
from ksi_daemon.linefile import private_directory, write_all
from ksi_daemon.replace import only_regular, replace_by
from ksi_daemon.router import Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CARDS = "var/db/cards.json"


class CardStore(Protocol):
    """Cards by name."""

    async def load(self) -> dict[str, Any]:
        """All of them."""

    async def save(self, cards: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Replace the file."""


class SyncCards:
    """Inline."""

    def __init__(self, site):
        self._site = site
        self._path = site.settings.root / CARDS

    def open(self):
        """Nothing is kept open."""

    def close(self):
        """Nothing is open."""

    def load(self) -> dict[str, Any]:
        """Read it whole."""
        try:
            only_regular(self._path)
            found: dict[str, Any] = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise IoFailed(self._site.component, f"read {self._path}", error) from error
        return found

    def save(self, cards: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Write all."""
        self.write(json.dumps(dict(cards)).encode())

    def write(self, data):
        """By temp file and rename."""
        try:
            only_regular(self._path)
            private_directory(self._path.parent)
            replace_by(self._path, lambda fd: write_all(fd, data), durability=self._site.durability)
        except OSError as error:
            raise IoFailed(self._site.component, f"replace {self._path}", error) from error


class AsyncCards:
    """On a thread, in order; what is saved is taken down at the call."""

    def __init__(self, site):
        self._sync = SyncCards(site)

    async def open(self):
        """Start the thread."""
        self._lane = Lane("ksi-cards")

    async def close(self):
        """End it."""
        await self._lane.close(1.0)

    def pending(self):
        """Never anything to tell."""

    async def load(self) -> dict[str, Any]:
        """Read it whole."""
        return await self._lane.run(self._sync.load)

    async def save(self, cards: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Write all."""
        data = json.dumps(dict(cards)).encode()
        await self._lane.run(lambda: self._sync.write(data))


class Cards:
    """Cards, saved with each change; the store gets a view of what goes on changing."""

    def __init__(self, store, _site):
        self._store = store
        self._cards: dict[str, Any] = {}

    def events(self):
        """One to set, one to show."""
        return (Event("cards:set", self.set, "Set"), Event("cards:show", self.show, "Show"))

    async def start(self):
        """Begin with what was saved; with nothing, if that cannot be read."""
        try:
            self._cards = await self._store.load()
        except KsiError:
            self._cards = {}

    async def stop(self):
        """Nothing runs."""

    def memory(self):
        """The cards in their order."""
        return {"cards": self._cards}

    async def set(self, data, _client):
        """Save one more, or another text for one; else take it back."""
        name, before = data["name"], dict(self._cards)
        self._cards[name] = data["text"]
        try:
            await self._store.save(MappingProxyType(self._cards), [name])
        except KsiError:
            self._cards = before
            raise
        return {"status": "set"}

    async def show(self, _data, _client):
        """What is on the disk."""
        return {"cards": list((await self._store.load()).items())}


def _set(name, text):
    return Step("cards:set", {"name": name, "text": text})


_SHOW = Step("cards:show")
CARD_ROOM = Area(
    name="cards",
    title="a toy that replaces a file",
    kind="replace",
    week=4,
    contract=CardStore,
    sync=SyncCards,
    aio=AsyncCards,
    service=Cards,
    exercise=Exercise(
        files=(CARDS,),
        cases=(
            Case("set", (_set("a", "1"), _set("b", "2"), _set("a", "3"), _SHOW, Step("@restart"), _SHOW)),
            Case("trouble", (_set("a", "1"), Step("@block"), _set("b", "2"), _SHOW, Step("@unblock"), _SHOW)),
        ),
        writes=(_set("same", "first"), _set("same", "second")),
    ),
)
