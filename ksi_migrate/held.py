"""All the evidence that a root holds: stages acknowledged, the journal, what parity and bench found."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ksi_daemon import stages
from ksi_daemon.flags import Stage
from ksi_daemon.recorder import JOURNAL
from ksi_daemon.registry import AREAS
from ksi_daemon.stages import StagesInvalid
from ksi_migrate import evidence, history, journal, log, measured
from ksi_migrate.origin import Origin, here

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ksi_daemon.stages import InForce
    from ksi_migrate.evidence import Evidence
    from ksi_migrate.history import Stay
    from ksi_migrate.measured import Run


@dataclass(frozen=True, slots=True)
class Kept:
    """A case, and the run that measured it."""

    run: Run
    case: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """The evidence at one moment; `here` is where it must come from to prove anything."""

    here: Origin
    stages: Mapping[str, InForce]
    entries: tuple[dict[str, Any], ...]
    parity: Mapping[str, Evidence]
    runs: tuple[Run, ...]

    def stay(self, component: str) -> Stay | None:
        """The component's stay at async; None unless journal and acknowledged stage agree on it."""
        acknowledged = self.stages.get(component)
        if acknowledged is None or acknowledged.stage != Stage.ASYNC:
            return None
        return history.stay_of(self.entries, component)

    def cases(self, component: str, pattern: str) -> list[Kept]:
        """Of each case whose name matches (as in a shell) the newest that was measured here."""
        found: dict[tuple[str, str], Kept] = {}
        for kept in self._matching(component, pattern):
            if kept.run.origin.fits(self.here):
                found.setdefault((str(kept.case.get("name")), str(kept.case.get("stage"))), kept)
        return list(found.values())

    def why_none(self, component: str, pattern: str) -> str:
        """Why there is no such case: nobody measured it, or somewhere else."""
        other = next(iter(self._matching(component, pattern)), None)
        if other is not None and not other.run.origin.fits(self.here):
            return self.here.differs(other.run.origin)
        return "no figures are kept"

    def _matching(self, component: str, pattern: str) -> list[Kept]:
        return [
            Kept(run, case)
            for run in self.runs
            if run.component == component
            for case in run.cases
            if fnmatchcase(str(case.get("name")), pattern)
        ]


def gather(migrate_dir: Path) -> Held:
    """Read all of it. Raises `JournalUnreadable`; what else cannot be read proves nothing. Writes nothing."""
    try:
        entries = journal.read(migrate_dir).entries
    except OSError as error:
        raise log.unreadable(migrate_dir / JOURNAL, error) from error
    names = (area.name for area in AREAS)
    parity = {name: found for name in names if (found := evidence.load(migrate_dir, name)) is not None}
    return Held(here(), acknowledged(migrate_dir), entries, parity, measured.load(migrate_dir))


def acknowledged(migrate_dir: Path) -> Mapping[str, InForce]:
    """The stages in `state.json`; none where it is missing or cannot be used."""
    try:
        state = stages.load_state(migrate_dir)
    except StagesInvalid:
        return {}
    return state.components if state else {}
