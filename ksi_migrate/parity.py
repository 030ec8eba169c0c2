"""`ksi-migrate parity`: both sides of a room over the same steps, and whatever differs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from ksi_daemon import registry, zygote
from ksi_migrate.exits import Exit, Refused, document, told
from ksi_migrate.paritycheck import junit as junit_file
from ksi_migrate.paritycheck.checks import CHECKS, outcomes
from ksi_migrate.paritycheck.faults import Fault, prove
from ksi_migrate.paritycheck.scratch import Scratch, scratch
from ksi_migrate.paritycheck.trial import Outcome, Trial
from ksi_migrate.progress import QUIET, Progress
from ksi_migrate.refusals import Retired

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_migrate.paritycheck.contrast import Mismatch


@dataclass(frozen=True, slots=True)
class Component:
    """What parity found in one component."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """Every difference, in the order of the cases."""
        return tuple(mismatch for outcome in self.outcomes for mismatch in outcome.mismatches)

    @property
    def inconclusive(self) -> tuple[str, ...]:
        """Why nothing can be said of some cases, each reason once."""
        return tuple(dict.fromkeys(one.inconclusive for one in self.outcomes if one.inconclusive is not None))

    @property
    def one_sided(self) -> tuple[str, ...]:
        """What only the candidate can do, and was tried on it alone; each reason once."""
        return tuple(dict.fromkeys(one.one_sided for one in self.outcomes if one.one_sided is not None))

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was not tried at all: it has no meaning for a component of this kind; each reason once."""
        return tuple(dict.fromkeys(one.left_out for one in self.outcomes if one.left_out is not None))

    @property
    def ok(self) -> bool:
        """Whether all that could be compared is equal."""
        return not self.mismatches

    def document(self) -> dict[str, Any]:
        """The component's part of the `--json` document; `cases` is the number of those that were tried."""
        return {
            "name": self.name,
            "ok": self.ok,
            "cases": sum(outcome.left_out is None for outcome in self.outcomes),
            "mismatches": [mismatch.document() for mismatch in self.mismatches],
            "inconclusive": list(self.inconclusive),
            "one_sided": list(self.one_sided),
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome for all components asked for; `faults` are the planted ones, if they were asked for."""

    components: tuple[Component, ...]
    seed: int
    faults: tuple[Fault, ...] | None = None

    @property
    def inconclusive(self) -> tuple[str, ...]:
        """Why nothing can be said of some cases, each reason once."""
        return tuple(dict.fromkeys(reason for one in self.components for reason in one.inconclusive))

    @property
    def missed(self) -> tuple[Fault, ...]:
        """The planted faults that no check saw."""
        return tuple(fault for fault in self.faults or () if not fault.caught_by)

    @property
    def exit_code(self) -> Exit:
        """1 for a difference or a missed fault, 5 when something could not be compared, else 0."""
        if self.missed or not all(component.ok for component in self.components):
            return Exit.FINDING
        return Exit.INCONCLUSIVE if self.inconclusive else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` document; `faults` is there only when they were planted."""
        proof = {} if self.faults is None else {"faults": [fault.document() for fault in self.faults]}
        components = [component.document() for component in self.components]
        ok = self.exit_code is Exit.DONE
        return document("parity", ok=ok, components=components, seed=self.seed, **proof)


def run(
    names: Sequence[str],
    *,
    data: Path | None = None,
    seed: int = 0,
    junit: Path | None = None,
    progress: Progress = QUIET,
    prove: bool = False,
) -> Report:
    """Compare both sides of the named components, or of all that are built; owns its event loop.

    `data` is a root or its `var/`, of which a copy is used: see `paritycheck.given`. `prove` plants faults
    too: ten seconds more per component, a minute for one that runs processes. Raises `Refused` for components
    unknown or not built, and for paths that cannot be used.
    """
    areas = _chosen(names)
    with scratch(data) as place, capture_logs(), zygote.kept():
        report = asyncio.run(_run(areas, place, seed, progress, faulty=prove))
    if junit is not None:
        _write_junit(junit, report)
    return report


def check(area: Area, *, data: Path | None = None, seed: int = 0, progress: Progress = QUIET) -> Component:
    """Compare both sides of one room; what `enable` asks before an upward step. Owns its event loop."""
    with scratch(data) as place, capture_logs(), zygote.kept():
        return asyncio.run(_run([area], place, seed, progress, faulty=False)).components[0]


def faults(
    areas: Sequence[Area] | None = None,
    *,
    seed: int = 0,
    progress: Progress = QUIET,
    thorough: bool = True,
) -> tuple[Fault, ...]:
    """Which planted fault was caught by which checks, of all rooms; if not `thorough`, by which first."""
    with scratch() as place, capture_logs(), zygote.kept():
        chosen = registry.two_sided() if areas is None else areas
        return asyncio.run(_faults(chosen, place, seed, progress, thorough=thorough))


def _chosen(names: Sequence[str]) -> list[Area]:
    found = {area.name: area for area in registry.two_sided()}
    hint = f"components with two sides: {', '.join(found)}"
    for name in names:
        if name not in found:
            known = next((area for area in registry.AREAS if area.name == name), None)
            if known is not None and known.retired:
                raise Retired(f"{name} is retired: nothing to compare", hint)
            why = "is not built yet" if known else "is no component"
            raise Refused(f"{name} {why}: nothing to compare", hint)
    return [found[name] for name in dict.fromkeys(names)] or list(found.values())


async def _run(
    areas: Sequence[Area], place: Scratch, seed: int, progress: Progress, *, faulty: bool
) -> Report:
    total = len(areas) * len(CHECKS)
    components: list[Component] = []
    for area in areas:
        found: list[Outcome] = []
        trial = Trial(area, place, seed)
        for number, name in enumerate(CHECKS):
            progress.step(f"{area.name}: {name}", len(components) * len(CHECKS) + number, total)
            found += await outcomes(name, trial)
        components.append(Component(area.name, tuple(found)))
    progress.step("compared", total, total)
    planted = await _faults(areas, place, seed, progress, thorough=True) if faulty else None
    return Report(tuple(components), seed, planted)


async def _faults(
    areas: Sequence[Area], place: Scratch, seed: int, progress: Progress, *, thorough: bool
) -> tuple[Fault, ...]:
    rows: list[Fault] = []
    for number, area in enumerate(areas):
        progress.step(f"{area.name}: planted faults", number, len(areas))
        rows += [row async for row in prove(Trial(area, Scratch(place.place), seed), thorough=thorough)]
    return tuple(rows)


def _write_junit(path: Path, report: Report) -> None:
    try:
        junit_file.write(path, ((component.name, component.outcomes) for component in report.components))
    except OSError as error:
        raise Refused(
            f"{path} could not be written: {told(error)}", "give --junit a path that can be written"
        ) from error
