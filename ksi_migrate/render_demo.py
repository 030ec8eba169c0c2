"""The demo as something to look at: the live panel, a line of log where no terminal is, and the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ksi_migrate.figures import better, milliseconds, number, plain, quotient, rate, seconds
from ksi_migrate.tables import table, word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import RenderableType

    from ksi_migrate.demo_frame import Frame

MEANS = {"os": "a reply means: handed to the kernel", "fsync": "a reply means: on the disk"}
ROWS: tuple[tuple[str, str, Callable[[float | None], str], bool], ...] = (
    ("acknowledged", "rate_per_s", rate, True),
    ("loop stall p99", "loop_stall_p99_ms", milliseconds, False),
    ("loop stall max", "loop_stall_max_ms", milliseconds, False),
    ("ping p99", "ping_p99_ms", milliseconds, False),
)
"""Title, key, how it is written, and whether more is better."""
WORK_ROWS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("all answered", "seconds", seconds),
    ("loop stall max", "loop_stall_max_ms", milliseconds),
    ("ping p99", "ping_p99_ms", milliseconds),
)
FAULTS = ("lost", "doubled", "out_of_order", "torn", "foreign", "refused", "not_undone")


def live(frame: Frame) -> RenderableType:
    """The panel that is drawn anew with each frame."""
    title = Text.assemble((f"{frame.elapsed_s:5.1f} s  ", "dim"), (frame.phase, "bold"))
    figures = Table.grid(padding=(0, 3))
    figures.add_row(*(Text(head, style="dim") for head, _ in _figures(frame)))
    figures.add_row(*(Text(value, style="bold") for _, value in _figures(frame)))
    stages = Table.grid(padding=(0, 3))
    for name, stage in frame.components:
        stages.add_row(word(name), word(stage) if stage != "not built" else Text(stage, style="dim"))
    return Panel(
        Group(word(frame.note), Text(""), figures, Text(""), stages), title=title, title_align="left"
    )


def line(frame: Frame) -> str:
    """One frame as one line, for logs and pipes."""
    figures = ", ".join(f"{head} {value}" for head, value in _figures(frame))
    stages = " ".join(f"{name}={stage}" for name, stage in frame.components if stage != "not built")
    return f"{frame.elapsed_s:5.1f} s  {frame.phase}: {figures}; {stages}"


def _figures(frame: Frame) -> tuple[tuple[str, str], ...]:
    return (
        ("rate", rate(frame.rate_per_s)),
        ("acknowledged", f"{frame.acknowledged:,}"),
        ("loop stall p99", milliseconds(frame.loop_stall_p99_ms)),
        ("max", milliseconds(frame.loop_stall_max_ms)),
        ("ping p99", milliseconds(frame.ping_p99_ms)),
    )


def summary(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The finished demo: what was done, before and after under the same load, the count, what is off."""
    yield table(("step", "", "seconds", "what came of it"), map(_step, document["steps"]))
    yield Text("")
    yield before_after(document)
    yield Text("")
    yield agents(document["agents"])
    yield Text("")
    if any(document["files"].values()):
        yield files(document["files"])
        yield Text("")
    yield counts(document["counted"])
    yield Text("")
    for problem in document["problems"]:
        yield Text.assemble(("! ", "bold red"), word(problem))
    if document["kept"]:
        yield Text.assemble("kept for a look: ", word(document["kept"]))
    yield verdict(document)


def _step(step: Mapping[str, Any]) -> tuple[object, ...]:
    return step["name"], "ok" if step["ok"] else "error", f"{step['seconds']:.1f}", step["detail"]


def before_after(document: Mapping[str, Any]) -> RenderableType:
    """The same load on both sides, for each durability; a dash where the demo did not come."""
    made = Table("the same load", "before: sync", "after: async", "", box=None, pad_edge=False)
    windows = (("os", document), ("fsync", document["fsync"]))
    for durability, found in windows:
        made.add_row(Text(f"durability {durability}: {MEANS[durability]}", style="bold"))
        for title, key, written, more in ROWS:
            before, after = (number(found[when], key) for when in ("before", "after"))
            ratio = quotient(after, before) if more else quotient(before, after)
            made.add_row(f"  {title}", written(before), written(after), better(ratio))
    return made


def agents(found: Mapping[str, Any]) -> RenderableType:
    """The same agents on both sides; a dash where the demo did not come."""
    first = found["before"] or found["after"] or {"agents": 0, "turn_s": 0.0}
    return _work(f"{first['agents']} agents, a turn of {first['turn_s']:g} s each", found)


def files(found: Mapping[str, Any]) -> RenderableType:
    """The same work on files on both sides."""
    first = found["before"] or found["after"]
    words = f"{first['conversations']} conversations of {first['lines']:,} lines, {first['sets']} keys set"
    return _work(words, found)


def _work(title: str, found: Mapping[str, Any]) -> RenderableType:
    made = Table(title, "before: sync", "after: async", "", box=None, pad_edge=False)
    for name, key, written in WORK_ROWS:
        before, after = (number(found[when], key) for when in ("before", "after"))
        made.add_row(f"  {name}", written(before), written(after), better(quotient(before, after)))
    return made


def counts(counted: Mapping[str, Any]) -> RenderableType:
    """Each log's records by what became of them."""
    heads = ("log", "acknowledged", "on disk", *(name.replace("_", " ") for name in FAULTS))
    rows = (_count_row(row["component"], row) for row in counted["files"])
    return table(heads, (*rows, _count_row("all", counted)))


def _count_row(name: str, row: Mapping[str, Any]) -> tuple[object, ...]:
    return (name, *(f"{row[key]:,}" for key in ("acknowledged", "on_disk", *FAULTS)))


def verdict(document: Mapping[str, Any]) -> Text:
    """The last line."""
    if not document["ok"]:
        found = len(document["problems"])
        return Text("1 problem" if found == 1 else f"{found} problems", style="bold red")
    told = plain(document["counted"]["acknowledged"], 9)
    return Text(
        f"every one of {told} acknowledged records is on disk once, whole and in order", style="bold green"
    )
