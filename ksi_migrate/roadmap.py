"""`ksi-migrate roadmap`: the analysis's four weeks, each box ticked by what this root can prove, or not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Literal

from ksi_migrate import held
from ksi_migrate.choose import WrongUsage
from ksi_migrate.exits import Exit, document
from ksi_migrate.proofs import Found
from ksi_migrate.roadmap_items import WEEKS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ksi_migrate.held import Held
    from ksi_migrate.roadmap_items import Item, Week

State = Literal["ticked", "open", "not provable"]
DAYS = 7


@dataclass(frozen=True, slots=True)
class Box:
    """One item: ticked with what was found and when, or why not."""

    text: str
    part: str
    state: State
    found: tuple[Found, ...]

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        found = [{"text": one.text, "at": one.at} for one in self.found]
        return {"text": self.text, "part": self.part, "state": self.state, "found": found}


@dataclass(frozen=True, slots=True)
class Stretch:
    """One week with its boxes, and its first and last day where a start was given."""

    number: int
    title: str
    boxes: tuple[Box, ...]
    days: tuple[str, str] | None

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        first, last = self.days or (None, None)
        return {
            "week": self.number or None,
            "title": self.title,
            "from": first,
            "to": last,
            "items": [box.document() for box in self.boxes],
        }


@dataclass(frozen=True, slots=True)
class RoadmapReport:
    """All weeks; it ends well whatever is open, since a roadmap is no check."""

    weeks: tuple[Stretch, ...]
    exit_code: Exit = Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        states = [box.state for week in self.weeks for box in week.boxes]
        return document(
            "roadmap",
            ok=True,
            weeks=[week.document() for week in self.weeks],
            ticked=states.count("ticked"),
            open=states.count("open"),
            not_provable=states.count("not provable"),
        )


def run(migrate_dir: Path, *, start: str | None = None) -> RoadmapReport:
    """Look at every box. `start` is the first day of week 1, as 2025-07-14. Writes nothing.

    Raises `WrongUsage` for what is no date, `JournalUnreadable`.
    """
    first = None if start is None else _date(start)
    found = held.gather(migrate_dir)
    return RoadmapReport(tuple(_stretches(found, first)))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise WrongUsage(f"--start {text} is no date", "give it as 2025-07-14") from None


def _stretches(found: Held, first: date | None) -> Iterator[Stretch]:
    for week in WEEKS:
        boxes = tuple(box_of(item, found) for item in week.items)
        yield Stretch(week.number, week.title, boxes, _days(week, first))


def _days(week: Week, first: date | None) -> tuple[str, str] | None:
    if first is None or not week.number:
        return None
    try:
        begins = first + timedelta(days=DAYS * (week.number - 1))
        return begins.isoformat(), (begins + timedelta(days=DAYS - 1)).isoformat()
    except OverflowError:
        raise WrongUsage(f"--start {first} leaves no room for four weeks", "give an earlier date") from None


def box_of(item: Item, found: Held) -> Box:
    """Ticked when every proof holds; an open one tells only what is missing."""
    if not item.proofs:
        return Box(item.text, item.part, "not provable", (Found(ok=False, text=item.why),))
    looks = tuple(proof.look(found) for proof in item.proofs)
    missing = tuple(look for look in looks if not look.ok)
    return Box(item.text, item.part, "open" if missing else "ticked", missing or looks)
