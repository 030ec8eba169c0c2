"""`ksi-migrate rollback`: back to sync, always accepted, whatever state daemon, flags.yaml or disk are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksi_daemon.errors import KsiError
from ksi_daemon.flags import Stage
from ksi_migrate import acknowledge, flagfile, journal, situation
from ksi_migrate.changes import Change, ChangeReport
from ksi_migrate.exits import CommandError, Finding, NotAcknowledged
from ksi_migrate.progress import QUIET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksi_daemon.settings import Settings
    from ksi_migrate.acknowledge import Outcome
    from ksi_migrate.progress import Progress
    from ksi_migrate.situation import Situation

DEADLINE = 10.0
"""Seconds to wait until the daemon acknowledges; what is recorded holds whatever it does."""
PATIENCE = 0.5
"""Seconds to wait for another ksi-migrate's edit, before a ceiling is set instead."""


class NotRecorded(Finding):
    """Neither flags.yaml nor a ceiling could be written: a restart would bring the old stages back."""

    code = "not_recorded"


@dataclass(frozen=True, slots=True)
class Record:
    """Where the rollback stands written: `where` is empty when it could not be written anywhere."""

    where: str
    notes: tuple[str, ...] = ()


def run(
    settings: Settings,
    names: Sequence[str],
    *,
    reason: str = "",
    deadline: float = DEADLINE,
    progress: Progress = QUIET,
) -> ChangeReport:
    """Send the components to sync, last one first. No gate, no question; twice is harmless."""
    last_first = tuple(reversed(names))
    seen = situation.look(settings, timeout=min(1.0, deadline))
    record = _record(settings, last_first, reason or "rollback")
    if not record.where:
        outcome = acknowledge.judge(seen, last_first, Stage.SYNC, believe=False)
        return _report(last_first, seen, record, record.notes, outcome)
    notes = record.notes + journal.append_or_say(settings.migrate_dir, _entries(last_first, seen, reason))
    outcome = acknowledge.wait(settings, last_first, Stage.SYNC, deadline, progress)
    return _report(last_first, seen, record, notes, outcome)


def _record(settings: Settings, names: Sequence[str], reason: str) -> Record:
    """Write it into flags.yaml, or where that fails as ceilings."""
    down = dict.fromkeys(names, Stage.SYNC)
    try:
        flagfile.edit(settings.flags_path, settings.migrate_dir, down, patience=PATIENCE)
    except (KsiError, OSError) as error:
        return _cap(settings, names, reason, f"flags.yaml not edited: {error}")
    return Record("flags.yaml")


def _cap(settings: Settings, names: Sequence[str], reason: str, why: str) -> Record:
    down = dict.fromkeys(names, Stage.SYNC)
    whose, clean = journal.who(), journal.clean(reason)
    try:
        flagfile.set_ceiling(settings.migrate_dir, down, reason=clean, who=whose, patience=PATIENCE)
    except (KsiError, OSError) as error:
        return Record("", (why, f"ceiling not set: {error}"))
    return Record("a ceiling", (why, "a ceiling holds them at sync until ksi-migrate enable lifts it"))


def _entries(names: Sequence[str], seen: Situation, reason: str) -> list[dict[str, object]]:
    """One for each component that was not at sync, or may not have been."""
    parts = [part for part in map(seen.part, names) if part.built]
    why, to = reason or "no reason given", Stage.SYNC
    return [
        journal.entry("rollback", part.name, part.wanted, to, why, generation=seen.generation)
        for part in parts
        if part.wanted != to or part.effective != to
    ]


def _report(
    names: Sequence[str], before: Situation, record: Record, notes: tuple[str, ...], outcome: Outcome
) -> ChangeReport:
    changes = tuple(_change(name, before, record, outcome) for name in names)
    error = _error(record, notes, outcome)
    return ChangeReport("rollback", outcome.situation.generation, changes, notes=notes, error=error)


def _change(name: str, before: Situation, record: Record, outcome: Outcome) -> Change:
    was, sync = before.part(name).effective, Stage.SYNC
    if name not in outcome.waiting:
        reason = "in force" if was != sync else "nothing to do: at sync"
        return Change(name, was, sync, applied=True, reason=reason)
    where = f"recorded in {record.where}; " if record.where else "not recorded; "
    return Change(name, was, sync, applied=False, reason=where + outcome.waiting[name])


def _error(record: Record, notes: tuple[str, ...], outcome: Outcome) -> CommandError | None:
    if not record.where:
        hint = (
            "free space or mend the permissions and run it again, or set them to sync in flags.yaml by hand"
        )
        return NotRecorded(f"could not be recorded: {'; '.join(notes)}", hint)
    if outcome.waiting and outcome.situation.running:
        text = f"recorded in {record.where}, not yet in force: {next(iter(outcome.waiting.values()))}"
        hint = "it comes into force by itself, at the latest at the next start; ksi-migrate status shows when"
        return NotAcknowledged(text, hint)
    return None
