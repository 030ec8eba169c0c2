"""Each command's `--json` document as something to look at: tables and lines, nothing is printed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ksi_migrate.figures import DASH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    Document = Mapping[str, Any]

COLOURS = {
    "sync": "yellow",
    "async": "green",
    "ok": "green",
    "open": "green",
    "done": "green",
    "next": "cyan",
    "closed": "red",
    "differs": "red",
    "error": "red",
    "warning": "yellow",
}
WHOLE = frozenset({"component", "desired", "in force", "acknowledged", "from", "to", "applied", "action"})
"""Columns of single words, which a narrow terminal must not cut; the others are folded instead."""
SHOWN = 5
"""Mismatches of one component before the rest is only counted; `--json` and `--junit` have them all."""


def word(value: object) -> Text:
    """One value as text that cannot command the terminal, coloured when it is a stage or a verdict."""
    if value is None:
        return Text(DASH, style="dim")
    plain = str(value).replace("\N{NO-BREAK SPACE}", " ")
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in plain)
    return Text(text, style=COLOURS.get(text, ""))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """A plain table; None is a dash."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, show_edge=False)
    for head in heads:
        made.add_column(head, no_wrap=head.strip() in WHOLE, overflow="fold")
    for row in rows:
        made.add_row(*(word(value) for value in row))
    return made


def status(document: Document) -> Iterator[RenderableType]:
    """Where every component stands, and what does not agree."""
    daemon = document["daemon"]
    state = f"running, pid {daemon['pid'] or 'unknown'}" if daemon["running"] else "not running"
    if daemon["running"] and not daemon["answers"]:
        state += ", does not answer"
    yield word(f"daemon: {state}, generation {daemon['generation'] or 0}")
    heads = ("component", "desired", "in force", "acknowledged", "why", "since", "parity")
    yield table(heads, map(_status_row, document["components"]))
    for problem in document["problems"]:
        yield Text.assemble(("! ", "bold red"), word(problem))


def _status_row(row: Mapping[str, Any]) -> tuple[object, ...]:
    """What fits 80 columns: the plan has the week and when parity ran; a ceiling is part of the why."""
    stages = (row["desired"], row["effective"], row["acknowledged"])
    last, why = row["last_parity"], row["reason"]
    if row["ceiling"] is not None and "ceiling" not in why:
        why += f"; ceiling {row['ceiling']}"
    if row["pending"] is not None:
        why += f"; {row['pending']}"
    verdict = None if last is None else "ok" if last["ok"] else "differs"
    return (row["name"], *stages, why, when(row["since"]), verdict)


def when(at: object) -> object:
    """A time (UTC) in two words, so that a narrow column breaks it between date and time."""
    return at.replace("T", " ", 1) if isinstance(at, str) else at


def plan(document: Document) -> Iterator[RenderableType]:
    """Each week with its components and gates, and the next command."""
    for phase in document["phases"]:
        yield Text.assemble(("week ", "bold"), (str(phase["phase"]), "bold"), "  ", word(phase["state"]))
        rows = ((row["name"], row["desired"], row["effective"], row["title"]) for row in phase["components"])
        yield table(("  component", "desired", "in force", "what it is"), _indented(rows))
        gates = ((gate["name"], "open" if gate["open"] else "closed", gate["why"]) for gate in phase["gates"])
        yield table(("  gate", "", "why"), _indented(gates))
        yield Text("")
    if document["next"]:
        yield Text.assemble("next: ", (document["next"], "bold"))


def _indented(rows: Iterable[Sequence[object]]) -> Iterator[Sequence[object]]:
    return ((f"  {first}", *rest) for first, *rest in rows)


def changes(document: Document) -> Iterator[RenderableType]:
    """What `enable` and `rollback` did to each component."""
    heads = ("component", "from", "to", "applied", "why")
    keys = ("name", "from", "to")
    rows = document["components"]
    yield table(heads, ((*(row[key] for key in keys), yes(row["applied"]), row["reason"]) for row in rows))
    if document.get("gates"):
        gates = (
            (gate["name"], "open" if gate["open"] else "closed", gate["why"]) for gate in document["gates"]
        )
        yield table(("gate", "", "why"), gates)
    for row in document.get("parity", ()):
        yield from _mismatches(row)
    yield from (Text.assemble("· ", word(note)) for note in document["notes"])


def yes(value: object) -> str:
    """A boolean in words."""
    return "yes" if value else "no"


def parity(document: Document) -> Iterator[RenderableType]:
    """Each component's verdict, and the first mismatches."""
    rows = document["components"]
    verdicts = (
        (row["name"], "ok" if row["ok"] else "differs", row["cases"], len(row["mismatches"])) for row in rows
    )
    yield table(("component", "parity", "cases", "mismatches"), verdicts)
    for row in rows:
        yield from _mismatches(row)
        yield from (word(f"{row['name']} has no verdict: {why}") for why in row.get("inconclusive", ()))
        yield from (word(f"{row['name']}, async only: {what}") for what in row.get("one_sided", ()))
        yield from (word(f"{row['name']}, not tried: {what}") for what in row.get("left_out", ()))
    if "faults" in document:
        heads = ("component", "method", "planted fault", "caught by")
        keys = ("component", "method", "fault")
        faults = document["faults"]
        yield table(
            heads, ((*(one[key] for key in keys), ", ".join(one["caught_by"]) or None) for one in faults)
        )


def _mismatches(row: Mapping[str, Any]) -> Iterator[RenderableType]:
    found = row["mismatches"]
    if found:
        keys = ("case", "what", "sync", "async")
        heads = ("case", "what", "sync gives", "async gives")
        yield table(heads, (tuple(one[key] for key in keys) for one in found[:SHOWN]), title=row["name"])
    if len(found) > SHOWN:
        yield Text(f"and {len(found) - SHOWN} more; --json shows all")


def log(document: Document) -> Iterator[RenderableType]:
    """The journal, newest last."""
    keys = ("who", "action", "component", "from", "to", "why", "generation")
    rows = document["entries"]
    yield table(("at", *keys), ((when(row.get("at")), *(row.get(key) for key in keys)) for row in rows))
    if document["damaged"]:
        yield Text(f"{document['damaged']} damaged lines passed over in {document['path']}", style="yellow")


def doctor(document: Document) -> Iterator[RenderableType]:
    """Each check, with what to do where it failed."""
    rows = document["checks"]
    heads = ("check", "", "found", "what to do")
    shown = ("ok" if row["ok"] else row["level"] for row in rows)
    keys = ((row["name"], row["found"], "" if row["ok"] else row["hint"]) for row in rows)
    yield table(
        heads, ((name, state, found, hint) for state, (name, found, hint) in zip(shown, keys, strict=True))
    )


def flags(document: Document) -> Iterator[RenderableType]:
    """Valid, or file, line and reason."""
    if document["valid"]:
        yield word(f"{document['path']} is valid")
    yield from map(word, document["errors"])
