"""The cases of a component, and their rounds: the columns take turns, another one first in every round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ksi_daemon.switch import GATED
from ksi_migrate.bench_columns import Setup
from ksi_migrate.bench_figures import Case, Round, case_of
from ksi_migrate.bench_rounds import fitting_count, one_round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_daemon.site import Durability
    from ksi_migrate.idle import IdleHeartbeat

CASES: Final[tuple[tuple[str, int, Durability], ...]] = (
    ("100 callers", 100, "os"),
    ("1 caller", 1, "os"),
    ("100 callers, fsync", 100, "fsync"),
)
"""Name, callers, durability. With `fsync` sync calls it for each line, async once for each batch."""

ROUND_S: Final = 0.25
"""How long a round of each column is to take, about: 250 beats, of which two are above p99."""


def setups(area: Area, root: Path) -> Iterator[Setup]:
    """The cases of a component, below a directory of its own; `fsync` only where durability is a choice."""
    for load in area.exercise.loads:
        for case, callers, durability in CASES:
            if durability == "os" or area.kind in GATED:
                name = case if len(area.exercise.loads) == 1 else f"{load.name}, {case}"
                yield Setup(name, area, load, root / area.name, callers, durability)


async def measure(setup: Setup, rounds: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
    """All rounds of a case; `tell` is called before each. Raises `Broken`, `Disturbed`, `IdleLost`."""
    columns, round_s = setup.columns, ROUND_S
    counts = {column: await fitting_count(setup, column, round_s) for column in columns}
    lines = setup.load.lines(max(counts.values()))
    found: dict[str, list[Round]] = {"reference": [], **{column: [] for column in columns}}
    for number in range(rounds):
        tell(f"{setup.area.name}: {setup.name}")
        for column in rotated(columns, number):
            found[column].append(await one_round(setup, column, lines[: counts[column]], idle))
    return case_of(setup.name, setup.callers, found)


def rotated(columns: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The columns with another one first for each number."""
    first = number % len(columns)
    return columns[first:] + columns[:first]
