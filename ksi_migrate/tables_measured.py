"""What `bench` and `demo` measured, as something to look at; nothing is printed here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from ksi_migrate.figures import milliseconds, number, plain, rate, times
from ksi_migrate.tables import table, word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType
    from rich.table import Table

    Document = Mapping[str, Any]

SIDES = ("reference", "sync", "async")


def bench(document: Document) -> Iterator[RenderableType]:
    """Every case's three columns, the ratios, and what went through the socket."""
    heads = ("case", "side", "throughput", "p50", "p99", "stall p99", "stall max", "CPU s/10,000", "MiB")
    for row in document["components"]:
        rows = (_side(case, side) for case in row["cases"] for side in SIDES if case.get(side))
        yield table(heads, rows, title=row["name"])
        yield _ratios(row["cases"])
        if any(case.get("more") for case in row["cases"]):
            yield _more(row["cases"])
        yield from (Text.assemble("· ", word(case["note"])) for case in row["cases"] if case.get("note"))
        yield from _grown(row["cases"])
        yield Text("")
    if "socket" in document:
        yield _socket(document["socket"]["cases"])
    yield from (Text.assemble("· ", word(note)) for note in document.get("notes", ()))


def _side(case: Document, side: str) -> tuple[object, ...]:
    figures = case[side]
    times_ms = ("latency_p50_ms", "latency_p99_ms", "loop_stall_p99_ms", "loop_stall_max_ms")
    rest = (number(figures, key) for key in ("cpu_s", "rss_peak_mib"))
    return (
        case["name"],
        side,
        rate(number(figures, "throughput_per_s")),
        *(milliseconds(number(figures, key)) for key in times_ms),
        *(None if value is None else plain(value) for value in rest),
    )


def _ratios(cases: list[Document]) -> Table:
    keys = ("throughput", "vs_reference", "loop_stall_max")
    rows = (
        (
            case["name"],
            *(times(number(case.get("ratio"), key)) for key in keys),
        )
        for case in cases
    )
    heads = ("async is so many times better", "throughput", "against reference", "loop stall max")
    return table(heads, rows)


def _more(cases: list[Document]) -> Table:
    """What a case measures besides; less is better."""
    rows = (
        (case["name"], name, *(_plain(found.get(side)) for side in SIDES), times(number(found, "ratio")))
        for case in cases
        for name, found in case.get("more", {}).items()
    )
    return table(("case", "figure, less is better", *SIDES, "times better"), rows)


def _grown(cases: list[Document]) -> Iterator[RenderableType]:
    """What one call costs at each size, and what is asked of async."""
    for case in cases:
        if growth := case.get("growth"):
            rows = (
                (f"{point['at']:,}", *(milliseconds(number(point, side)) for side in SIDES))
                for point in growth["points"]
            )
            yield table((growth["across"], *SIDES), rows, title=f"{case['name']}: one call")
    for case in cases:
        if case.get("bar"):
            yield Text.assemble("· ", word(f"{case['name']}: asked of async: {case['bar']}"))


def _plain(value: float | None) -> str | None:
    return None if value is None else plain(value)


def _socket(cases: list[Document]) -> Table:
    rows = (
        (
            case.get("name"),
            case.get("stage"),
            rate(number(case, "publishes_per_s")),
            milliseconds(number(case, "ping_p50_ms")),
            milliseconds(number(case, "ping_p99_ms")),
        )
        for case in cases
    )
    return table(("case", "stage", "acknowledged", "ping p50", "ping p99"), rows, title="through the socket")
