"""What bench found, as one document: its shape, and when it is inconclusive. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate.bench_socket import FEWEST_PINGS
from ksi_migrate.exits import Exit, document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksi_migrate.bench_figures import Case
    from ksi_migrate.bench_socket import SocketCase
    from ksi_migrate.bench_switch import SwitchCost

FEWEST_ROUNDS: Final = 3
"""Fewer have no median to speak of."""

FEWEST_BEATS: Final = 100
"""Fewer have no 99th percentile; counted over all rounds of a column."""

ORIGINAL: Final = (
    "the original's 800 publishes/s and its ping of 270 ms are quoted, not measured here;"
    " it also writes an event log, which ours does not yet"
)


@dataclass(frozen=True, slots=True)
class ComponentFigures:
    """One component: its cases, and what the switch costs it at sync (None where it writes no log)."""

    name: str
    cases: tuple[Case, ...]
    switch_cost: SwitchCost | None

    def document(self) -> dict[str, Any]:
        """The component as JSON."""
        cases = [case.document() for case in self.cases]
        cost = None if self.switch_cost is None else asdict(self.switch_cost)
        return {"name": self.name, "cases": cases, "switch_cost": cost}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and when (UTC) it was measured, and how long an idle process stalled there (median)."""

    python: str
    platform: str
    cores: int
    at: str
    idle_loop_stall_max_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """What `bench` found; `doubts` are reasons beyond the figures themselves why it is inconclusive."""

    components: tuple[ComponentFigures, ...]
    machine: Machine
    socket: tuple[SocketCase, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def exit_code(self) -> Exit:
        """Done, or inconclusive; never anything else for being slow."""
        return Exit.INCONCLUSIVE if self._doubts() else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` document, which `report.render` draws; `socket` only when it was asked for."""
        doubts = self._doubts()
        quoted = (ORIGINAL,) if self.socket else ()
        body: dict[str, Any] = {
            "components": [component.document() for component in self.components],
            "machine": asdict(self.machine),
            "notes": [*self.notes, *quoted, *doubts],
        }
        if self.socket:
            body["socket"] = {"cases": [case.document() for case in self.socket]}
        return document("bench", ok=not doubts, **body)

    def _doubts(self) -> list[str]:
        return [*self.doubts, *self._few_rounds(), *self._few_pings()]

    def _few_rounds(self) -> Iterator[str]:
        for component in self.components:
            for case in component.cases:
                yield from (f"{component.name}, {case.name}: {why}" for why in few_rounds(case))

    def _few_pings(self) -> Iterator[str]:
        for case in self.socket:
            yield from (f"{case.name}, {case.stage}: {why}" for why in few_pings(case))


def few_rounds(case: Case) -> Iterator[str]:
    """Why a case's figures are not enough to judge by; nothing when they are."""
    if case.rounds < FEWEST_ROUNDS and not case.note:  # the note says why they are enough
        yield f"{case.rounds} rounds have no median, at least {FEWEST_ROUNDS} have"
    if (beats := min(case.sync.beats, case.candidate.beats)) < FEWEST_BEATS:
        yield f"{beats} heartbeats have no p99, at least {FEWEST_BEATS} have"


def few_pings(case: SocketCase) -> Iterator[str]:
    """Why what went through the socket is not enough to judge by; nothing when it is."""
    if case.pings < FEWEST_PINGS:
        yield f"{case.pings} pings have no p99, at least {FEWEST_PINGS} have"
