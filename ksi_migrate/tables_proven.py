"""What is proven, as something to look at: the roadmap, the claims, what can be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from ksi_migrate.figures import DASH, mebibytes, number
from ksi_migrate.tables import table, when, word, yes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

    Document = Mapping[str, Any]

MARKS = {"ticked": "[x]", "open": "[ ]", "not provable": " - "}
STYLES = {"ticked": "green", "open": "", "not provable": "dim"}
VERDICTS = {"pass": "green", "fail": "red", "not measured": "dim"}


def roadmap(document: Document) -> Iterator[RenderableType]:
    """A heading a week, a line a box, below it what was found or is missing."""
    for week in document["weeks"]:
        days = "" if week["from"] is None else f"  {week['from']} to {week['to']}"
        number_ = "" if week["week"] is None else f"week {week['week']}  "
        yield Text.assemble((f"{number_}{week['title']}", "bold"), days)
        for item in week["items"]:
            yield from _box(item)
        yield Text("")
    counts = (f"{document[key]} {key.replace('_', ' ')}" for key in ("ticked", "open", "not_provable"))
    yield Text(", ".join(counts))


def _box(item: Document) -> Iterator[RenderableType]:
    style = STYLES[item["state"]]
    part = "" if item["part"] == "roadmap" else f"{item['part']}: "
    yield Text.assemble(f"{MARKS[item['state']]} ", (f"{part}{item['text']}", style))
    for found in item["found"]:
        at = f"{when(found['at'])}  " if found["at"] else ""
        yield Text.assemble("      ", (at, "dim"), word(found["text"]))


def report(document: Document) -> Iterator[RenderableType]:
    """A table of claims, and below it how each was measured."""
    rows = document["rows"]
    heads = ("claim", "", "claimed", "measured here", "MiB", "when")
    yield table(heads, (_row(row) for row in rows), title="what was promised, and what was measured")
    yield Text("")
    yield table(("claim", "how it is measured"), ((row["name"], row["how"]) for row in rows))
    machine = document["machine"]
    counts = (f"{document[key]} {key.replace('_', ' ')}" for key in ("passed", "failed", "not_measured"))
    yield word(f"{', '.join(counts)}; machine {machine['node']} ({machine['machine']})")


def _row(row: Document) -> tuple[object, ...]:
    before, after = (number(row["memory_mib"], side) for side in ("sync", "async"))
    memory = (
        None
        if after is None
        else f"{mebibytes(before)} → {mebibytes(after)}".replace("\N{NO-BREAK SPACE}MiB", "")
    )
    return (row["name"], row["verdict"], row["claimed"], row["said"], memory, when(row["at"]))


def retire(document: Document) -> Iterator[RenderableType]:
    """Each component's hold, then what can be deleted."""
    heads = ("component", "async since", "held until", "retirable", "why")
    rows = document["components"]
    keys = ("async_since", "hold_until")
    yield table(
        heads,
        ((row["name"], *(when(row[key]) for key in keys), yes(row["retirable"]), row["why"]) for row in rows),
    )
    for row in (*rows, document["switch"]):
        yield from _leftovers(row)
    yield from (Text.assemble("· ", word(note)) for note in document["notes"])
    if document["damaged"]:
        yield Text(f"{document['damaged']} damaged lines passed over in the journal", style="yellow")


def _leftovers(row: Document) -> Iterator[RenderableType]:
    if row["delete"] or row["edit"]:
        yield Text("")
        yield Text.assemble((row.get("name") or "the switch, with the last component", "bold"))
    yield from (Text.assemble("  delete  ", word(path)) for path in row["delete"])
    for one in row["edit"]:
        yield Text.assemble(
            "  edit    ", word(f"{one['path']}:{one['line']}"), (f"  {one['text'] or DASH}", "dim")
        )
