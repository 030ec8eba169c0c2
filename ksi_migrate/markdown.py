"""Documents as Markdown, for an issue or a page; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate.figures import DASH, mebibytes, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Document = Mapping[str, Any]

COMMANDS: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")
MARKS: Final = {"pass": "✓ pass", "fail": "✗ fail", "not measured": "not measured"}


def roadmap(document: Document) -> str:
    """The checklist: a heading a week, a box an item."""
    lines = ["# Roadmap", ""]
    for week in document["weeks"]:
        lines += [f"## {_title(week)}", "", *map(_box, week["items"]), ""]
    lines.append(
        f"{document['ticked']} ticked, {document['open']} open, {document['not_provable']} not provable."
    )
    return "\n".join(lines)


def _title(week: Document) -> str:
    title = plain(week["title"]) if week["week"] is None else f"Week {week['week']}: {plain(week['title'])}"
    return title if week["from"] is None else f"{title} ({week['from']} to {week['to']})"


def _box(item: Document) -> str:
    mark = "x" if item["state"] == "ticked" else " "
    part = "" if item["part"] == "roadmap" else f"{item['part']}: "
    found = "; ".join(f"{plain(one['text'])}{_when(one['at'])}" for one in item["found"])
    why = {"ticked": "", "open": "open: ", "not provable": "no evidence can tick it: "}[item["state"]]
    return f"- [{mark}] {part}{plain(item['text'])} ({why}{found})"


def _when(at: str | None) -> str:
    return f", {at}" if at else ""


def report(document: Document) -> str:
    """The claims as one table."""
    heads = ("claim", "verdict", "claimed", "measured here", "how", "peak memory", "when")
    lines = [
        "# What was promised, and what was measured",
        "",
        *_table(heads, map(_row, document["rows"])),
        "",
    ]
    machine = document["machine"]
    lines.append(
        f"{document['passed']} pass, {document['failed']} fail, {document['not_measured']} not measured; on"
        f" {plain(machine['node'])} ({machine['machine']}), {machine['cores']} cores,"
        f" Python {machine['python']}, ksi-migrate {plain(machine['release'])}."
    )
    return "\n".join(lines)


def _row(row: Document) -> tuple[str, ...]:
    before, after = (number(row["memory_mib"], side) for side in ("sync", "async"))
    memory = DASH if after is None else f"{mebibytes(before)} → {mebibytes(after)}"
    words = (row["claimed"], row["said"], row["how"])
    return (row["name"], MARKS[row["verdict"]], *map(plain, words), memory, row["at"] or DASH)


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield _line(heads)
    yield _line(["---"] * len(heads))
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Text that Markdown takes as it is, on one line."""
    return COMMANDS.sub(r"\\\1", " ".join(text.split()))
