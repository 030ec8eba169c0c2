"""Evidence made by hand: cases, runs, verdicts, journals and states, as the tool would have kept them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ksi_daemon import stages
from ksi_daemon.flags import Stage
from ksi_daemon.registry import AREAS
from ksi_daemon.stages import InForce, State
from ksi_migrate import journal, origin
from ksi_migrate.bench_figures import Round, case_of
from ksi_migrate.bench_ping import Pings
from ksi_migrate.bench_report import ComponentFigures, Machine, Report
from ksi_migrate.bench_socket import SocketRound
from ksi_migrate.bench_socket import case_of as socket_case_of
from ksi_migrate.evidence import Evidence
from ksi_migrate.held import Held
from ksi_migrate.measured import Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ksi_migrate.bench_figures import Case

NAMES = tuple(area.name for area in AREAS)
NOW = datetime(2025, 8, 1, 12, tzinfo=UTC)
HERE = origin.here()
ELSEWHERE = replace(HERE, machine="0" * 16, node="other")
MACHINE = Machine("3.11", "Linux", 2, "2025-07-12 10:00 UTC", 0.1)


def ago(**back: float) -> str:
    """A time before `NOW`, as the journal has it."""
    return (NOW - timedelta(**back)).isoformat(timespec="seconds").replace("+00:00", "Z")


def made(name: str, *, times: float = 2.0, rounds: int = 3, beats: int = 200, **more: Any) -> Case:
    """A case in which async has `times` the throughput of sync; `more` are pairs, sync and async."""

    def column(side: int) -> list[Round]:
        own = {key: pair[side] for key, pair in more.items()}
        calls = 100 if side == 0 else round(100 * times)
        stall = 50.0 if side == 0 else 1.5
        one = Round(calls, 1.0, 1.0, 2.0, 1.0, stall, 0.5, beats, 0.1, 40.0 + side, own)
        return [one] * rounds

    return case_of(name, 100, {"reference": [], "sync": column(0), "async": column(1)})


def report(*cases: Case, component: str = "messaging", socket: float | None = None) -> Report:
    """What bench found: these cases of one component; `socket` is async's publishes to a sync of 1,000."""
    through = () if socket is None else tuple(_through(stage, socket) for stage in ("async", "sync"))
    return Report((ComponentFigures(component, cases, None),), MACHINE, through)


def _through(stage: str, publishes: float) -> Any:
    rate = publishes if stage == "async" else 1000.0
    return socket_case_of(stage, [SocketRound(rate, Pings(1.0, 2.0, 200), 50.0)] * 3)


def run(component: str, *cases: Case | Mapping[str, Any], place: origin.Origin = HERE, at: str = "") -> Run:
    """A run as it is kept."""
    documents = (case if isinstance(case, dict) else case.document() for case in cases)  # type: ignore[union-attr]
    return Run(component, at or ago(days=1), 3, place, tuple(documents))


def through_socket(publishes: float, place: origin.Origin = HERE) -> Run:
    """A run through the socket: async's publishes to a sync of 1,000."""
    return run("socket", *(_through(stage, publishes).document() for stage in ("async", "sync")), place=place)


def agreed(*names: str, **change: Any) -> dict[str, Evidence]:
    """Parity of this release that found both sides alike, but for `change`."""
    base = Evidence("", ok=True, cases=20, at=ago(days=2), origin=HERE)
    return {name: replace(base, component=name, **change) for name in names or NAMES}


def flip(component: str, to: str = "async", at: str = "", **more: Any) -> dict[str, Any]:
    """The daemon's entry for a flip."""
    return {"at": at or ago(days=20), "who": "daemon 1", "action": "flip", "component": component, "to": to,
            "generation": 7, "duration_ms": 3.2, **more}  # fmt: skip


def asked(action: str, component: str, to: str, at: str = "") -> dict[str, Any]:
    """The operator's entry."""
    return {"at": at or ago(days=10), "who": "root", "action": action, "component": component, "to": to}


def at_async(*names: str) -> dict[str, InForce]:
    """These components as state.json has them at async."""
    return {name: InForce(Stage.ASYNC, ago(days=20), "flags.yaml") for name in names}


def held(
    *runs: Run,
    entries: Iterable[dict[str, Any]] = (),
    parity: Mapping[str, Evidence] | None = None,
    names: Iterable[str] = (),
) -> Held:
    """All of it in one hand."""
    return Held(HERE, at_async(*names), tuple(entries), parity or {}, runs)


def lay(migrate_dir: Path, entries: Iterable[dict[str, Any]], names: Iterable[str] = ()) -> Path:
    """The same on disk: a journal, and a state that has these names at async."""
    migrate_dir.mkdir(parents=True, exist_ok=True)
    journal.append(migrate_dir, entries)
    if chosen := tuple(names):
        stages.save_state(migrate_dir, State(7, "", 1, ago(days=20), at_async(*chosen)))
    return migrate_dir
