"""The tables of the bench report: every figure of the run, one body of rows for each case."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from ksi_migrate.figures import DASH, mebibytes, milliseconds, number, quotient, rate, seconds, times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SIDES = ("reference", "sync", "async")

FIGURE_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("Throughput", "throughput_per_s", rate),
    ("Latency p50", "latency_p50_ms", milliseconds),
    ("Latency p99", "latency_p99_ms", milliseconds),
    ("Stall p99", "loop_stall_p99_ms", milliseconds),
    ("Stall max", "loop_stall_max_ms", milliseconds),
    ("CPU", "cpu_s", seconds),
    ("Peak memory", "rss_peak_mib", mebibytes),
)
RATIO_COLUMNS = (
    "Throughput, async to sync",
    "Throughput, async to reference",
    "Throughput, sync to reference",
    "Stall max, sync to async",
)
SOCKET_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("Connections", "connections", lambda value: DASH if value is None else f"{value:,.0f}"),
    ("Publishes", "publishes_per_s", rate),
    ("Original", "original_publishes_per_s", rate),
    ("Times the original", "times_original", times),
    ("Ping p50", "ping_p50_ms", milliseconds),
    ("Ping p99", "ping_p99_ms", milliseconds),
    ("Original ping p99", "original_ping_p99_ms", milliseconds),
)


def figures_table(component: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """Set all figures of a component: a body of rows per case, a row per side."""
    heads = [title for title, _, _ in FIGURE_COLUMNS]
    heads.insert(1, "Slowest to fastest round")
    bodies = [_case_body(case) for case in cases]
    return table(f"{component}: all figures", ("Case", "Side"), heads, bodies)


def ratios_table(component: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """Set the ratios of a component, one row per case; sync to reference is worked out here."""
    bodies = [f"<tr>{_row_head(name_of(case))}{cells(_ratios(case))}</tr>" for case in cases]
    return table(f"{component}: ratios", ("Case",), RATIO_COLUMNS, ["\n".join(bodies)])


def socket_table(cases: Sequence[Mapping[str, Any]]) -> str:
    """Set what went through the socket, one row per case, beside the original's figures."""
    rows = [
        f"<tr>{_row_head(name_of(case))}{_row_head(str(case.get('stage') or DASH))}"
        f"{cells(form(number(case, key)) for _, key, form in SOCKET_COLUMNS)}</tr>"
        for case in cases
    ]
    heads = [title for title, _, _ in SOCKET_COLUMNS]
    return table("Through the socket: all figures", ("Case", "Stage"), heads, ["\n".join(rows)])


def spread_of(side: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """Give the throughput of the slowest and of the fastest round, or None where the run kept no spread."""
    spread = (side or {}).get("spread")
    return number(spread, "throughput_min"), number(spread, "throughput_max")


def name_of(thing: Mapping[str, Any]) -> str:
    """Give the name of a case or component, not escaped; a dash where the document has none."""
    return str(thing.get("name") or DASH)


def _ratios(case: Mapping[str, Any]) -> list[str]:
    ratio = case.get("ratio")
    control = quotient(
        number(case.get("sync"), "throughput_per_s"), number(case.get("reference"), "throughput_per_s")
    )
    figures = (
        number(ratio, "throughput"),
        number(ratio, "vs_reference"),
        control,
        number(ratio, "loop_stall_max"),
    )
    return [times(figure) for figure in figures]


def _case_body(case: Mapping[str, Any]) -> str:
    head = f'<th class="case-name" scope="rowgroup" rowspan="{len(SIDES)}">{escape(name_of(case))}</th>'
    rows = []
    for index, side in enumerate(SIDES):
        key = f'<th scope="row"><span class="key {side}"></span>{side}</th>'
        rows.append(f"<tr>{'' if index else head}{key}{cells(_side_figures(case.get(side)))}</tr>")
    return "\n".join(rows)


def _side_figures(side: Mapping[str, Any] | None) -> list[str]:
    figures = [form(number(side, key)) for _, key, form in FIGURE_COLUMNS]
    low, high = spread_of(side)
    spread = DASH if low is None or high is None else f"{rate(low)} to {rate(high)}"
    return [figures[0], spread, *figures[1:]]


def _row_head(text: str) -> str:
    return f'<th class="case-name" scope="row">{escape(text)}</th>'


def cells(texts: Iterable[str]) -> str:
    """One cell for each text; a dash says aloud what it means."""
    return "".join(f"<td>{_spoken(text)}</td>" for text in texts)


def _spoken(text: str) -> str:
    if text == DASH:
        return f'<span role="img" aria-label="no figure" title="not measured, or not defined">{DASH}</span>'
    return escape(text)


def table(caption: str, words: Iterable[str], heads: Iterable[str], bodies: Iterable[str]) -> str:
    """Set bodies of rows under headings, the first of them for words; in a box of its own that scrolls."""
    columns = "".join(f'<th scope="col" class="words">{escape(word)}</th>' for word in words)
    columns += "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "\n".join(f"<tbody>\n{rows}\n</tbody>" for rows in bodies)
    title = escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{title}">\n<table>\n'
        f"<caption>{title}</caption>\n<thead><tr>{columns}</tr></thead>\n{body}\n</table>\n</div>"
    )
