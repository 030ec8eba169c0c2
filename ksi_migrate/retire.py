"""`ksi-migrate retire`: what can be deleted of a component that has been at async for its hold time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.flags import Stage
from ksi_daemon.recorder import JOURNAL
from ksi_daemon.registry import AREAS, BUILT
from ksi_migrate import held, history, journal, leftovers, log
from ksi_migrate.exits import Exit, Finding, Inconclusive, document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ksi_daemon.stages import InForce
    from ksi_migrate.journal import Journal
    from ksi_migrate.leftovers import Leftovers


TOGETHER: Final = (
    "the switch is still needed by others: delete what is listed, let sync=None stand where the side was"
    " declared, and set the component to async in flags.yaml"
)


class NoJournal(Inconclusive):
    """Without a journal nobody knows how long anything has been at async."""

    code = "no_journal"


class Overdue(Finding):
    """The hold is over, and the flag still chooses between two sides."""

    code = "overdue"


@dataclass(frozen=True, slots=True)
class Retiring:
    """One component: since when it is at async, until when it is held, and what is left of two sides."""

    name: str
    since: str | None
    until: str | None
    retirable: bool
    why: str
    two_sides: bool
    rest: Leftovers

    @property
    def overdue(self) -> bool:
        """Whether it could be retired and is not."""
        return self.retirable and self.two_sides

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        return {
            "name": self.name,
            "async_since": self.since,
            "hold_until": self.until,
            "retirable": self.retirable,
            "why": self.why,
            "two_sides": self.two_sides,
            **self.rest.document(),
        }


@dataclass(frozen=True, slots=True)
class RetireReport:
    """All components asked for; `switch` has something only when none will need it any more."""

    hold_days: int
    journal: str
    damaged: int
    components: tuple[Retiring, ...]
    switch: Leftovers
    check: bool

    @property
    def notes(self) -> list[str]:
        """What has to be known before anything is deleted."""
        if self.switch == leftovers.NOTHING and any(one.overdue for one in self.components):
            return [TOGETHER]
        return []

    @property
    def error(self) -> Overdue | None:
        """With `--check`: the components whose hold is over."""
        names = [one.name for one in self.components if one.overdue]
        if not self.check or not names:
            return None
        text = f"at async for {self.hold_days} days and more, and still two sides: {', '.join(names)}"
        return Overdue(text, "ksi-migrate retire lists what to delete")

    @property
    def exit_code(self) -> Exit:
        """1 for what is overdue when that is checked, else 0."""
        return self.error.exit if self.error else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        error = self.error
        body = document(
            "retire",
            ok=error is None,
            hold_days=self.hold_days,
            journal=self.journal,
            damaged=self.damaged,
            components=[one.document() for one in self.components],
            switch=self.switch.document(),
            notes=self.notes,
        )
        if error is not None:
            body["error"] = {"code": error.code, "message": str(error), "hint": error.hint}
        return body


def run(
    names: Sequence[str],
    migrate_dir: Path,
    *,
    hold_days: int,
    check: bool = False,
    now: datetime | None = None,
    tree: Path | None = None,
) -> RetireReport:
    """Look at the named components, or all that are built. Writes nothing.

    `migrate_dir` is a `var/migrate`, or a directory with the journal exported from one. Raises `NoJournal`
    when there is none, or an empty one, and `JournalUnreadable`.
    """
    found = _journal(migrate_dir)
    where, time = tree or leftovers.source(), now or datetime.now(UTC)
    acknowledged = held.acknowledged(migrate_dir)
    looked = {area.name: _look(area.name, found, acknowledged, time, hold_days, where) for area in BUILT}
    chosen = tuple(one for name, one in looked.items() if name in names or not names)
    last = all(area.built for area in AREAS) and all(
        one.retirable or not one.two_sides for one in looked.values()
    )
    switch = leftovers.of_switch(where) if last else leftovers.NOTHING
    return RetireReport(hold_days, str(migrate_dir / JOURNAL), found.damaged, chosen, switch, check)


def _journal(migrate_dir: Path) -> Journal:
    path = migrate_dir / JOURNAL
    try:
        found = journal.read(migrate_dir)
    except OSError as error:
        raise log.unreadable(path, error) from error
    if not found.entries:
        raise NoJournal(f"there is no journal in {path}", "give --evidence a directory with the exported one")
    return found


def _look(
    name: str,
    found: Journal,
    acknowledged: Mapping[str, InForce],
    now: datetime,
    hold_days: int,
    tree: Path,
) -> Retiring:
    stay = history.stay_of(found.entries, name)
    known = acknowledged.get(name)
    since = stay.since() if stay else None
    two = leftovers.two_sided(tree, name)
    if known is not None and known.stage != Stage.ASYNC:
        return _kept(name, f"at {known.stage}", two=two)
    if stay is None or since is None:
        return _kept(name, "not at async" if stay is None else f"since {stay.at}, which is no time", two=two)
    until = since + timedelta(days=hold_days)
    done = now >= until
    why = (
        f"at async for {(now - since).days} days without a rollback" if done else f"held for {hold_days} days"
    )
    rest = leftovers.of_component(tree, name) if done else leftovers.NOTHING
    text = until.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Retiring(name, stay.at, text, done, why, two, rest)


def _kept(name: str, why: str, *, two: bool) -> Retiring:
    return Retiring(name, None, None, retirable=False, why=why, two_sides=two, rest=leftovers.NOTHING)
