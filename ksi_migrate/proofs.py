"""What can tick a box of the roadmap: a proof looks at the evidence and says what it found, and of when."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from ksi_daemon.conductor import utc_now
from ksi_daemon.registry import AREAS
from ksi_migrate import history
from ksi_migrate.figures import milliseconds, number, times
from ksi_migrate.measured import SOCKET

if TYPE_CHECKING:
    from ksi_migrate.held import Held, Kept


@dataclass(frozen=True, slots=True)
class Found:
    """Whether it is proven, by what figure or why not, and when that was found (UTC)."""

    ok: bool
    text: str
    at: str | None = None


class Proof(Protocol):
    """One condition of a box."""

    def look(self, held: Held) -> Found:
        """What the evidence says."""


@dataclass(frozen=True, slots=True)
class InForce:
    """The component is at async: acknowledged by the daemon, and the journal says since when."""

    component: str

    def look(self, held: Held) -> Found:
        """What state.json and journal say."""
        stay = held.stay(self.component)
        if stay is not None:
            generation = "" if stay.generation is None else f", generation {stay.generation}"
            return Found(ok=True, text=f"{self.component} at async{generation}", at=stay.at)
        stage = held.stages[self.component].stage if self.component in held.stages else None
        why = f"at {stage}" if stage else "not acknowledged at any stage"
        if stage == "async":
            why = "at async, but the journal has been told to go back, or lacks the flip"
        return Found(ok=False, text=f"{self.component} {why}")


@dataclass(frozen=True, slots=True)
class Agreed:
    """Parity found both sides alike, with this release, in all that could be compared."""

    components: tuple[str, ...] = ()

    def look(self, held: Held) -> Found:
        """What the last parity of each said; without names of every component of the registry."""
        names = self.components or tuple(area.name for area in AREAS)
        wrong = [f"{name}: {why}" for name in names if (why := _disagreement(held, name))]
        if wrong:
            return Found(ok=False, text=f"parity of {'; '.join(wrong)}")
        found = [held.parity[name] for name in names]
        cases = sum(one.cases for one in found)
        return Found(ok=True, text=f"parity passed {cases:,} cases", at=max(one.at for one in found))


def _disagreement(held: Held, name: str) -> str:
    found = held.parity.get(name)
    if found is None:
        return "not run"
    if not found.ok:
        return "the sides differ"
    if found.inconclusive:
        return "not all could be compared"
    release = found.origin.release if found.origin else "an earlier one"
    return "" if release == held.here.release else f"run with release {release}"


@dataclass(frozen=True, slots=True)
class Benched:
    """Bench measured the component on this machine and async is no slower in that case."""

    component: str
    case: str = "*"

    def look(self, held: Held) -> Found:
        """The worst ratio among the cases that match."""
        found = held.cases(self.component, self.case)
        if not found:
            return Found(ok=False, text=f"{self.component}: {held.why_none(self.component, self.case)}")
        if self.component == SOCKET:
            return _through_socket(found)
        return _slowest(self.component, found)


def _slowest(component: str, found: list[Kept]) -> Found:
    ratios = [(ratio, kept) for kept in found if (ratio := number(kept.case.get("ratio"), "throughput"))]
    if not ratios:
        return Found(ok=False, text=f"{component}: no ratio on record")
    ratio, kept = min(ratios, key=lambda one: one[0])
    more = f", the worst of {len(ratios)}" if len(ratios) > 1 else ""
    text = f"{component}: {times(ratio)} the throughput of sync ({kept.case['name']}{more})"
    return Found(ratio >= 1, text, kept.run.at)


def _through_socket(found: list[Kept]) -> Found:
    rates = {kept.case.get("stage"): number(kept.case, "publishes_per_s") for kept in found}
    before, after = rates.get("sync"), rates.get("async")
    if not before or not after:
        return Found(ok=False, text="through the socket: only one stage on record")
    text = f"through the socket: {times(after / before)} the publishes of sync, every line in the log"
    return Found(after >= before, text, found[0].run.at)


@dataclass(frozen=True, slots=True)
class Measured:
    """Bench has figures of the component from this machine, whatever they say."""

    components: tuple[str, ...] = ()

    def look(self, held: Held) -> Found:
        """How many cases of each; without names of every component of the registry."""
        names = self.components or tuple(area.name for area in AREAS)
        found = {name: held.cases(name, "*") for name in names}
        if missing := [f"{name} ({held.why_none(name, '*')})" for name in names if not found[name]]:
            return Found(ok=False, text=f"not measured: {', '.join(missing)}")
        count = sum(map(len, found.values()))
        latest = max(kept.run.at for cases in found.values() for kept in cases)
        return Found(ok=True, text=f"bench has {count} cases of {len(names)} components", at=latest)


@dataclass(frozen=True, slots=True)
class Installed:
    """This installation has the package."""

    package: str

    def look(self, held: Held) -> Found:  # noqa: ARG002 - a proof that needs no evidence
        """Its version, of now."""
        try:
            return Found(ok=True, text=f"{self.package} {version(self.package)} is installed", at=utc_now())
        except PackageNotFoundError:
            return Found(ok=False, text=f"{self.package} is not installed")


@dataclass(frozen=True, slots=True)
class WentBack:
    """A rollback of a component on its own came into force: the journal has it."""

    def look(self, held: Held) -> Found:
        """The last one."""
        found = history.rollbacks(held.entries)
        if not found:
            return Found(ok=False, text="no rollback in the journal")
        last = found[-1]
        took = milliseconds(number(last, "duration_ms"))
        text = f"{last['component']} went back, in {took}; {len(found)} rollbacks in the journal"
        return Found(ok=True, text=text, at=str(last.get("at")))
