"""The three columns that bench compares, each as one call on a fresh log: reference, sync, async."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.connection import SLICE
from ksi_daemon.flags import Stage
from ksi_daemon.linefile import private_directory
from ksi_daemon.site import Durability, Site
from ksi_daemon.switch import Switch
from ksi_migrate.bench_place import settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_daemon.exercise import Load

Call = Callable[[Any], Awaitable[Any]]

REFERENCE: Final = "reference"
STAGES: Final = {"sync": Stage.SYNC, "async": Stage.ASYNC}
COLUMNS: Final = (REFERENCE, *STAGES)


@dataclass(frozen=True, slots=True)
class Setup:
    """One load of one component below `root`, with so many callers at once."""

    name: str
    area: Area
    load: Load
    root: Path
    callers: int
    durability: Durability = "os"

    @property
    def log(self) -> Path:
        """The file that the load writes."""
        return self.root / self.area.exercise.files[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that make sense: the original never called fsync, so it is no reference for that."""
        return COLUMNS if self.durability == "os" else tuple(STAGES)

    def where(self, column: str) -> str:
        """What an error of a round begins with."""
        return f"{self.area.name}, {self.name}, {column}"

    def pace(self, column: str, each: int) -> int:
        """How many of its `each` calls a caller makes before the loop turns.

        A blocking call never suspends, so one caller would hold the loop until it is done. In the daemon
        others get their turn after `SLICE` requests of a connection, so do they here. Async
        suspends by itself.
        """
        return each if column == "async" else max(1, SLICE // self.callers)


@asynccontextmanager
async def opened(setup: Setup, column: str) -> AsyncIterator[Call]:
    """What one caller awaits for one record, on an empty log: by `Switch` as in the daemon, or the reference.

    The sides take an encoded line, the reference takes a record's number.
    """
    setup.log.unlink(missing_ok=True)
    if column == REFERENCE:
        private_directory(setup.log.parent)
        yield _reference(setup)
        return
    site = Site(setup.area.name, settings_of(setup.root), setup.durability)
    switch = Switch(setup.area, site)
    await switch.open(STAGES[column])
    try:
        yield getattr(switch, setup.load.call)
    finally:
        await switch.close()


def items(column: str, lines: Sequence[bytes]) -> Sequence[Any]:
    """What the callers of a column give to its call."""
    return range(len(lines)) if column == REFERENCE else lines


def _reference(setup: Setup) -> Call:
    path, once = setup.log, setup.load.reference

    async def call(number: int) -> None:
        once(path, number)

    return call
