"""The charts of the bench report: each has one scale, and a small plot for each case under its heading."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from ksi_migrate import charts
from ksi_migrate.figures import DASH, better, milliseconds, number, plain, quotient, rate, times
from ksi_migrate.report_tables import SIDES, name_of, spread_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """What stands around the plots; `owner` is named in spoken titles, `guide` is a dashed line."""

    ident: str
    title: str
    owner: str
    lead: str
    unit: str
    guide: float | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One case: its heading as HTML, its name, and its bars."""

    heading: str
    name: str
    bars: Sequence[charts.Bar]


def throughput(ident: str, component: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """Draw the acknowledged operations a second of the three sides, whiskers where there is a spread."""
    lead = "Acknowledged operations a second; longer is better. Whiskers: slowest and fastest round."
    panels = [
        _panel(
            case,
            better(number(case.get("ratio"), "throughput")),
            [_throughput(s, case.get(s)) for s in SIDES],
        )
        for case in cases
    ]
    return figure(Figure(ident, "Throughput", component, lead, "operations a second"), panels)


def loop_stall(ident: str, component: str, cases: Sequence[Mapping[str, Any]], idle: float | None) -> str:
    """Draw the longest loop stall of the three sides its p99 as a mark, the idle process's as a line."""
    lead = "The longest one; shorter is better. Upright mark: p99."
    if idle is not None:
        lead += f" Dashed line: an idle process, {milliseconds(idle)}."
    panels = [
        _panel(
            case, better(number(case.get("ratio"), "loop_stall_max")), [_stall(s, case.get(s)) for s in SIDES]
        )
        for case in cases
    ]
    return figure(Figure(ident, "Loop stall", component, lead, "milliseconds", idle), panels)


def publishes(cases: Sequence[Mapping[str, Any]]) -> str:
    """Draw the publishes a second through the socket beside the original's."""
    lead = "Acknowledged, over all connections together; longer is better."
    panels = [
        _panel(
            case, _times_original(case), _beside(case, "original_publishes_per_s", "publishes_per_s", rate)
        )
        for case in cases
    ]
    return figure(Figure("socket-publishes", "Publishes", "the socket", lead, "publishes a second"), panels)


def pings(cases: Sequence[Mapping[str, Any]]) -> str:
    """Draw the p99 of a ping under that load beside the original's."""
    lead = "How long one ping in a hundred waits, or longer, under that load; shorter is better."
    panels = [
        _panel(case, _ping_ratio(case), _beside(case, "original_ping_p99_ms", "ping_p99_ms", milliseconds))
        for case in cases
    ]
    return figure(Figure("socket-pings", "Ping p99", "the socket", lead, "milliseconds"), panels)


def _throughput(side: str, figures: Mapping[str, Any] | None) -> charts.Bar:
    value = number(figures, "throughput_per_s")
    low, high = spread_of(figures)
    return charts.Bar(side, side, value, rate(value), low=low, high=high)


def _stall(side: str, figures: Mapping[str, Any] | None) -> charts.Bar:
    value = number(figures, "loop_stall_max_ms")
    return charts.Bar(side, side, value, milliseconds(value), notch=number(figures, "loop_stall_p99_ms"))


def _beside(
    case: Mapping[str, Any], original: str, ours: str, form: Callable[[float | None], str]
) -> list[charts.Bar]:
    before, now = number(case, original), number(case, ours)
    role = "sync" if case.get("stage") == "sync" else "async"
    return [
        charts.Bar("original", "reference", before, form(before)),
        charts.Bar("this run", role, now, form(now)),
    ]


def _times_original(case: Mapping[str, Any]) -> str:
    ratio = number(case, "times_original")
    return DASH if ratio is None else f"{times(ratio)} the original"


def _ping_ratio(case: Mapping[str, Any]) -> str:
    return better(quotient(number(case, "original_ping_p99_ms"), number(case, "ping_p99_ms")))


def _panel(case: Mapping[str, Any], note: str, bars: Sequence[charts.Bar]) -> Panel:
    verse = "" if note == DASH else f'<span class="verse">{escape(note)}</span>'
    heading = (
        f'<div class="case-head"><h4>{escape(name_of(case))}</h4>{verse}</div>'
        f'<p class="sub">{escape(" · ".join(_conditions(case)))}</p>'
    )
    return Panel(heading, name_of(case), bars)


def _conditions(case: Mapping[str, Any]) -> list[str]:
    counted = ((number(case, word), word) for word in ("callers", "connections", "rounds"))
    words = [
        f"{plain(count)} {word[:-1] if count == 1 else word}" for count, word in counted if count is not None
    ]
    return [*words, str(case["stage"])] if case.get("stage") else words


def figure(around: Figure, panels: Sequence[Panel]) -> str:
    """Draw the plots below one another, over one scale and its axis."""
    scale = charts.scale_for(
        [around.guide, *(mark for panel in panels for bar in panel.bars for mark in bar.marks())]
    )
    plots = "\n".join(
        _plot(f"{around.ident}-{index}", around, panel, scale) for index, panel in enumerate(panels)
    )
    unit = f"{around.unit}, logarithmic scale" if scale.log else around.unit
    return (
        f"<figure>\n<figcaption><h3>{escape(around.title)}</h3><p>{escape(around.lead)}</p></figcaption>\n{plots}\n"
        f'<div class="box">{charts.axis(scale)}<p class="sub unit">{escape(unit)}</p></div>\n</figure>'
    )


def _plot(ident: str, around: Figure, panel: Panel, scale: charts.Scale) -> str:
    title = f"{around.title} of {around.owner}: {panel.name}"
    drawn = charts.plot(ident, title, panel.bars, scale, around.guide)
    return f'<div class="case">{panel.heading}<div class="box">{drawn}</div></div>'
