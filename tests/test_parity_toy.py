"""An eighth room that no check was written for: parity takes it up, and sees its faults."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ksi_daemon import registry
from ksi_daemon.area import Area
from ksi_daemon.errors import IoFailed, KsiError
from ksi_daemon.exercise import Case, Exercise, Step
from ksi_daemon.linefile import private_directory
from ksi_daemon.router import Event
from ksi_migrate import parity
from ksi_migrate.exits import Exit
from ksi_migrate.paritycheck import readers
from ksi_migrate.paritycheck.planting import ANSWERS, WRITES, table
from ksi_migrate.paritycheck.rig import Rig
from ksi_migrate.paritycheck.sides import Candidate

if TYPE_CHECKING:
    from ksi_daemon.router import Client, Data
    from ksi_daemon.site import Site

FILE = "var/db/toy.json"


class Store(Protocol):
    """A file that is replaced as a whole."""

    async def save(self, content: bytes) -> None:
        """Replace the file."""

    async def load(self) -> bytes:
        """The file's content; none yet is an empty list."""


class SyncStore:
    """Temp file and rename, inline."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = site.settings.root / FILE

    def open(self) -> None:
        """Nothing is kept open."""

    def close(self) -> None:
        """Nothing is open."""

    def save(self, content: bytes) -> None:
        """Replace the file, or leave nothing behind."""
        temporary = self._path.with_suffix(".new")
        try:
            private_directory(self._path.parent)
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
                temporary.replace(self._path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise IoFailed(self._site.component, f"save {self._path}", error) from error

    def load(self) -> bytes:
        """Read it whole."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b"[]\n"
        except OSError as error:
            raise IoFailed(self._site.component, f"read {self._path}", error) from error


class AsyncStore:
    """The same calls on a thread, one at a time; a cancelled caller waits for its end."""

    def __init__(self, site: Site) -> None:
        self._sync = SyncStore(site)
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Nothing is kept open."""

    async def close(self) -> None:
        """Nothing is open."""

    def pending(self) -> str | None:
        """Never anything to tell."""
        return None

    async def save(self, content: bytes) -> None:
        """Replace the file."""
        async with self._lock:
            hop = asyncio.create_task(asyncio.to_thread(self._sync.save, content))
            try:
                await asyncio.shield(hop)
            except asyncio.CancelledError:
                await asyncio.wait([hop])
                raise

    async def load(self) -> bytes:
        """Read it whole."""
        return await asyncio.to_thread(self._sync.load)


class Notes:
    """A list of notes, saved as a whole with each one added."""

    def __init__(self, store: Store, _site: Site) -> None:
        self._store = store
        self._notes: list[Any] = []

    def events(self) -> tuple[Event, ...]:
        """One to add, one to read."""
        return (Event("toy:add", self.add, "Add"), Event("toy:read", self.read, "Read"))

    async def start(self) -> None:
        """Begin with what was saved; with nothing, if that cannot be read."""
        with suppress(KsiError):
            self._notes = json.loads(await self._store.load())

    async def stop(self) -> None:
        """Nothing runs."""

    def memory(self) -> dict[str, Any]:
        """The notes."""
        return {"notes": self._notes}

    async def add(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Save one more note, or take it back."""
        self._notes.append(data["note"])
        try:
            await self._store.save(json.dumps(self._notes).encode() + b"\n")
        except KsiError:
            self._notes.remove(data["note"])
            raise
        return {"status": "added"}

    async def read(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """The notes on disk."""
        return {"notes": json.loads(await self._store.load())}


def _add(note: str) -> Step:
    return Step("toy:add", {"note": note})


READ = Step("toy:read")

TOY = Area(
    name="toy",
    title="a room that only this test knows",
    kind="replace",
    week=4,
    contract=Store,
    sync=SyncStore,
    aio=AsyncStore,
    service=Notes,
    exercise=Exercise(
        files=(FILE,),
        cases=(
            Case("added and read", (_add("a"), _add("b"), READ, Step("@restart"), READ)),
            Case(
                "in trouble",
                (_add("a"), Step("@block"), _add("b"), READ, Step("@restart"), Step("@unblock"), _add("c")),
            ),
        ),
        writes=(_add("first"), _add("second")),
        loads=(),
    ),
)


def test_an_eighth_room_is_compared_unasked(monkeypatch):
    """A room that is only in the registry is run through every check, and equal sides pass."""
    monkeypatch.setattr(registry, "BUILT", (TOY,))

    report = parity.run([])

    assert [component.name for component in report.components] == ["toy"]
    assert Exit.DONE is report.exit_code, report.document()
    cases = [outcome.case for outcome in report.components[0].outcomes]
    assert any("broken off" in case for case in cases)
    assert any("cancelled at await" in case for case in cases)


@pytest.mark.timeout(240)
def test_each_fault_in_the_eighth_room_is_caught(monkeypatch):
    """All seven faults in a method that writes and in one that answers are seen."""
    monkeypatch.setattr(readers, "ROUNDS", 2)

    rows = parity.faults([TOY], thorough=False)

    assert {(method, fault) for method in ("save", "load") for fault in WRITES} == {
        (row.method, row.fault) for row in rows
    }
    assert [row for row in rows if not row.caught_by] == []


def test_the_kind_of_a_method_is_read_from_its_annotations():
    """A method that returns a value gets the faults of an answer."""
    assert table(Store, "load", "replace") is ANSWERS
    assert table(Store, "save", "replace") == WRITES


@pytest.mark.parametrize("change", ["save", "missing"])
def test_a_side_with_other_parameters_is_a_mismatch(change):
    """The signature check names the method that deviates from the contract, or is not there."""

    class Other(AsyncStore):
        async def save(self, content: bytes, durable: bool = True) -> None:
            """One parameter more."""

    class Missing(AsyncStore):
        close = None  # type: ignore[assignment]

    found = parity.check(replace(TOY, aio=Other if change == "save" else Missing))

    signatures = [one for one in found.mismatches if one.case == "signatures"]
    expected = {"save": "save(content)", "missing": "close()"}
    assert [expected[change]] == [one.what for one in signatures]


async def test_what_cannot_go_on_the_wire_is_seen_as_such(tmp_path):
    """Memory or a reply that is no JSON is compared by its error, and connecting is a step like others."""
    async with Rig(TOY, tmp_path, Candidate) as rig:
        seen = dict(await rig.step(Step("@connect", client="two")))
        failed = await rig.ask(_add("\ud800"))

    assert (seen["reply"], seen["memory"]) == (b"", b'{"notes":[]}\n')
    assert failed == b'[{"status":"added"}]\n'
    assert b"not on the wire: " in rig.memory()
