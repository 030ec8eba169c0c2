"""What bench measures of each component: the loads on its log, and what only that room does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from ksi_migrate import (
    bench_cases,
    bench_config,
    bench_conversations,
    bench_discovery,
    bench_stall,
    bench_turns,
)
from ksi_migrate.bench_growth import Growth
from ksi_migrate.bench_identities import AT_ONCE, ONE_BY_ONE, Updates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_migrate.bench_columns import Setup
    from ksi_migrate.bench_figures import Case
    from ksi_migrate.idle import IdleHeartbeat

FEW: Final = 10_000
MANY: Final = 100_000


class Part(Protocol):
    """One case that is still to be measured; `asked` are the rounds of the command line."""

    @property
    def area(self) -> Area:
        """Whose case it is."""

    @property
    def name(self) -> str:
        """As the document names it."""

    def steps(self, asked: int) -> int:
        """How often `measure` will tell that it goes on."""

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """The case's figures."""


@dataclass(frozen=True, slots=True)
class Appends:
    """A load on an append-only log."""

    setup: Setup

    @property
    def area(self) -> Area:
        """Whose case it is."""
        return self.setup.area

    @property
    def name(self) -> str:
        """As the document names it."""
        return self.setup.name

    def steps(self, asked: int) -> int:
        """One for each round."""
        return asked

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """The case's figures. Raises `Broken`, `Disturbed`, `IdleLost`."""
        return await bench_cases.measure(self.setup, asked, idle, tell)


@dataclass(frozen=True, slots=True)
class Stalls(Appends):
    """The same on a disk that stalls."""

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """The case's figures. Raises `Broken`, `Disturbed`, `Inconclusive`, `IdleLost`."""
        return await bench_stall.measure(self.setup, asked, idle, tell)


def _identities(area: Area, place: Path) -> Iterator[Part]:
    yield Updates(area, place, FEW, ONE_BY_ONE)
    yield Updates(area, place, FEW, AT_ONCE)
    yield Growth(area, place, "os")
    yield Growth(area, place, "fsync")
    yield Updates(area, place, MANY, ONE_BY_ONE, blocked_rounds=1)


OWN: Final[dict[str, Callable[[Area, Path], Iterator[Part]]]] = {
    "claude_cli": bench_turns.parts,
    "agent": _identities,
    "conversation": bench_conversations.parts,
    "config": bench_config.parts,
    "discovery": bench_discovery.parts,
}
"""Rooms whose work is more than lines on a log."""


def parts(areas: Sequence[Area], place: Path) -> Iterator[Part]:
    """All cases of these components, in order, below `place`."""
    for area in areas:
        yield from (Appends(setup) for setup in bench_cases.setups(area, place))
        if area.name in OWN:
            yield from OWN[area.name](area, place)


def stalls(areas: Sequence[Area], disk: Path) -> Iterator[Stalls]:
    """The cases on a disk that stalls."""
    yield from (Stalls(setup) for setup in bench_stall.setups(areas, disk))
