"""Bench: both sides and the original's own calls under the same load in one run, and what each costs.

It never fails for being slow: the figures are for people, and for whoever sets a bar on them.
"""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Final

from ksi_daemon import registry
from ksi_daemon.process import favour_loop
from ksi_daemon.replace import replace_file
from ksi_daemon.zygote import kept
from ksi_migrate import bench_parts, bench_socket, bench_stall, choose, measured
from ksi_migrate.bench_place import scratch
from ksi_migrate.bench_report import FEWEST_ROUNDS, ComponentFigures, Machine, Report
from ksi_migrate.bench_switch import SwitchCost, switch_cost
from ksi_migrate.exits import Inconclusive, Refused
from ksi_migrate.idle import IdleLost, idle_heartbeat
from ksi_migrate.progress import QUIET, Progress
from ksi_migrate.refusals import Retired
from ksi_migrate.report import render
from ksi_migrate.stalldisk import StallDiskError, stalling_disk, unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_migrate.bench_figures import Case
    from ksi_migrate.bench_parts import Part

ROUNDS: Final = 7


def run(  # noqa: PLR0913 - the command's own options
    names: Sequence[str],
    *,
    root: Path,
    rounds: int = ROUNDS,
    socket: bool = False,
    stall: bool = False,
    report: Path | None = None,
    evidence: Path | None = None,
    progress: Progress = QUIET,
) -> Report:
    """Measure the named components, or all that are built, in a scratch directory below `root`.

    `stall` adds a disk that stalls, where there can be one; `socket` adds a real daemon under load; `report`
    is where the HTML page goes, written whole; `evidence` is the `var/migrate` that keeps the figures, if
    there is one. Raises `WrongUsage`, `Refused` for a component that is not
    built, `Inconclusive` when there is nowhere to measure or the machine gets in the way, `Finding` when an
    acknowledged line is not where it belongs. To be called outside any event loop.
    """
    bench = _Bench(_areas(names), rounds, progress, socket=socket, stall=stall)
    try:
        with scratch(root) as place, kept():
            found = bench.measure(place)
    except IdleLost as error:
        raise Inconclusive(str(error)) from error
    if evidence is not None:
        found = replace(found, notes=(*found.notes, *measured.keep(evidence, found, rounds)))
    if report is not None:
        replace_file(report, render(found.document()).encode("utf-8"))
    return found


def _areas(names: Sequence[str]) -> tuple[Area, ...]:
    found = {area.name: area for area in registry.two_sided()}
    chosen = choose.some(names)
    hint = f"those that can be measured: {', '.join(found)}"
    for name in chosen:
        if name not in found and any(area.name == name for area in registry.BUILT):
            raise Retired(f"{name} is retired: it has one side", hint)
        if name not in found:
            raise Refused(f"{name} is not built yet", hint)
    return tuple(found[name] for name in chosen or found)


class _Bench:
    """One run: what is asked for, what it found besides figures, and how far it is."""

    def __init__(
        self, areas: tuple[Area, ...], rounds: int, progress: Progress, *, socket: bool, stall: bool
    ) -> None:
        if rounds < 1:
            raise choose.WrongUsage(f"{rounds} rounds have no figures", f"at least {FEWEST_ROUNDS}")
        self._areas = areas
        self._rounds = rounds
        self._progress = progress
        self._socket = socket
        self._stall = stall
        self._no_disk = unavailable() if stall else None
        self._cases: dict[str, list[Case]] = {area.name: [] for area in areas}
        self._done = 0
        self._total = 0

    def measure(self, place: Path) -> Report:
        """All parts, one after the other."""
        parts = list(bench_parts.parts(self._areas, place))
        stalls = self._stalls(place)
        steps = sum(part.steps(self._rounds) for part in (*parts, *stalls))
        self._total = steps + self._rounds * len(bench_socket.STAGES) * self._socket
        favour_loop()
        costs = asyncio.run(self._rooms(parts))
        if stalls:
            self._on_stalling_disk(place)
        through = bench_socket.measure(place, self._rounds, self._tell) if self._socket else ()
        components = tuple(
            ComponentFigures(name, tuple(cases), costs.get(name)) for name, cases in self._cases.items()
        )
        return Report(components, self._machine(), through, *self._words())

    def _stalls(self, place: Path) -> list[Part]:
        """What is to be measured on a disk that stalls; notes why, if that is nothing."""
        if not self._stall or self._no_disk is not None:
            return []
        found: list[Part] = list(bench_parts.stalls(self._areas, place))
        if not found:
            self._no_disk = "none of these components writes a log"
        return found

    async def _rooms(self, parts: Sequence[Part]) -> dict[str, SwitchCost]:
        await self._measured(parts)
        logs = [part.setup for part in parts if isinstance(part, bench_parts.Appends)]
        return {setup.area.name: await switch_cost(setup) for setup in logs if setup.callers == 1}

    async def _measured(self, parts: Sequence[Part]) -> None:
        async with idle_heartbeat() as idle:
            for part in parts:
                case = await part.measure(self._rounds, idle, self._tell)
                self._cases[part.area.name].append(case)

    def _on_stalling_disk(self, place: Path) -> None:
        try:
            with stalling_disk(place) as disk:
                asyncio.run(self._measured(self._stalls(disk)))
        except StallDiskError as error:
            self._no_disk = str(error)

    def _words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Notes, and doubts: without a disk that stalls a run that was to show nothing else shows nothing."""
        if self._no_disk is None:
            return (), ()
        words = (f"{bench_stall.NAME} left out: {self._no_disk}",)
        return (words, ()) if self._socket else ((), words)

    def _machine(self) -> Machine:
        cases = [case for found in self._cases.values() for case in found]
        sides = [side for case in cases for side in (case.sync, case.candidate)]
        return Machine(
            python=platform.python_version(),
            platform=platform.platform(),
            cores=os.cpu_count() or 1,
            at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            idle_loop_stall_max_ms=median(side.idle_loop_stall_max_ms for side in sides),
        )

    def _tell(self, text: str) -> None:
        self._progress.step(text, self._done, self._total)
        self._done += 1
