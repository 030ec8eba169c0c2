"""`ksi-migrate rollback`: back to sync, always accepted, whatever state daemon, flags.yaml or disk are in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksi_daemon import registry
from ksi_daemon.errors import KsiError
from ksi_daemon.flags import Stage
from ksi_daemon.stages import StagesInvalid, load_ceilings
from ksi_migrate import acknowledge, flagfile, journal, situation
from ksi_migrate.changes import Change, ChangeReport
from ksi_migrate.choose import WrongUsage
from ksi_migrate.exits import CommandError, Finding, NotAcknowledged, told
from ksi_migrate.progress import QUIET
from ksi_migrate.refusals import Retired

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
MENDED = (
    "the ceilings are made anew: these components at sync, every other one at its last acknowledged stage;"
    " ksi-migrate enable lifts them"
)

EARLIER = "only an earlier release has it; docs/rollback.md says how to go back to one"


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
    """Send the components to sync, last one first. No gate, no question; twice is harmless.

    Retired components are left out, and named in a note. Raises `WrongUsage` where no daemon has ever been:
    that is another directory than was meant, and `Retired` when none of the components can go back.
    """
    last_first, retired = _that_can(names)
    seen = situation.look(settings, timeout=min(1.0, deadline))
    _check_root(settings, seen)
    record = _record(settings, last_first, reason or "rollback")
    if not record.where:
        outcome = acknowledge.judge(seen, last_first, Stage.SYNC, believe=False)
        return _report(last_first, seen, record, retired + record.notes, outcome)
    notes = (
        retired
        + record.notes
        + journal.append_or_say(settings.migrate_dir, _entries(last_first, seen, reason))
    )
    outcome = acknowledge.wait(settings, last_first, Stage.SYNC, deadline, progress)
    return _report(last_first, seen, record, notes, outcome)


def _that_can(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those with a sync side, last one first, and a note on the others."""
    gone = {area.name for area in registry.BUILT if area.retired}
    left, retired = [name for name in names if name not in gone], [name for name in names if name in gone]
    if retired and not left:
        raise Retired(f"retired, with no sync side to go back to: {', '.join(retired)}", EARLIER)
    notes = (f"left at async, since they are retired: {', '.join(retired)}",) if retired else ()
    return tuple(reversed(left)), notes


def _check_root(settings: Settings, seen: Situation) -> None:
    """A slip in the directory must not look like a rollback that is done: it would leave the daemon alone."""
    if not seen.running and not any(map(os.path.lexists, (settings.flags_path, settings.migrate_dir))):
        text = f"{settings.root} is no daemon's root: it has neither flags.yaml nor var/migrate"
        raise WrongUsage(text, "give the root with --root or KSI_HOME, or change to it; nothing was changed")


def _record(settings: Settings, names: Sequence[str], reason: str) -> Record:
    """Write it into flags.yaml, or where that fails as ceilings."""
    down = dict.fromkeys(names, Stage.SYNC)
    try:
        flagfile.edit(settings.flags_path, settings.migrate_dir, down, patience=PATIENCE)
    except (KsiError, OSError) as error:
        capped = _cap(settings, names, reason, f"flags.yaml not edited: {told(error)}")
        return capped if capped.where else _overwrite(settings, names, capped.notes)
    if damage := _damage(settings):
        return Record("flags.yaml", _cap(settings, names, reason, damage).notes)
    return Record("flags.yaml")


def _damage(settings: Settings) -> str:
    """What is wrong with the ceilings: while they cannot be read nothing rises, so a rollback mends them."""
    try:
        load_ceilings(settings.migrate_dir)
    except StagesInvalid as error:
        return str(error)
    return ""


def _cap(settings: Settings, names: Sequence[str], reason: str, why: str) -> Record:
    down, damage = dict.fromkeys(names, Stage.SYNC), _damage(settings)
    whose, clean = journal.who(), journal.clean(reason)
    try:
        flagfile.set_ceiling(settings.migrate_dir, down, reason=clean, who=whose, patience=PATIENCE)
    except (KsiError, OSError) as error:
        return Record("", (why, f"ceiling not set: {told(error)}"))
    done = MENDED if damage else "a ceiling holds them at sync until ksi-migrate enable lifts it"
    return Record("a ceiling", (why, done))


def _overwrite(settings: Settings, names: Sequence[str], why: tuple[str, ...]) -> Record:
    """Where no file can be written anew, as on a full disk, `sync` still fits where `async` stands."""
    try:
        flagfile.overwrite(settings.flags_path, dict.fromkeys(names, Stage.SYNC))
    except (KsiError, OSError) as error:
        return Record("", (*why, f"flags.yaml not overwritten: {told(error)}"))
    return Record("flags.yaml", (*why, "flags.yaml was overwritten in place"))


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
