"""The figures that only some cases have: a table of them, and wall time against the number of callers."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate import charts
from ksi_migrate.figures import DASH, milliseconds, number, plain, seconds, times
from ksi_migrate.report_tables import SIDES, cells, name_of, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MORE: Final[dict[str, tuple[str, Callable[[float | None], str]]]] = {
    "wall_s": ("Wall time", seconds),
    "times_single_turn": ("Wall time, in turns by themselves", times),
    "commands_cpu_s": ("CPU of the commands themselves", seconds),
    "loop_ms_per_call": ("Loop time for one call", milliseconds),
    "sampled_s": ("Wall time by samples", seconds),
    "call_ms": ("One call", milliseconds),
    "floor_ms": ("One stat for each file: the floor", milliseconds),
}
"""Key in the document → title and unit; what is not here is shown under its key as a plain figure."""

FEWEST_POINTS: Final = 3
DRAWN: Final = ("sync", "async")


def more_table(component: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """All of them, one body of rows for each case; empty without any."""
    bodies = [_body(case) for case in cases if case.get("more")]
    heads = (*SIDES, "Better at async")
    return table(f"{component}: more figures", ("Case", "Figure"), heads, bodies) if bodies else ""


def notes(cases: Sequence[Mapping[str, Any]]) -> str:
    """What must be known of single cases, and what is asked of them; empty without any."""
    said = [
        f"<li>{escape(name_of(case))}: {lead}{escape(str(case[key]))}.</li>"
        for case in cases
        for key, lead in (("note", ""), ("bar", "asked of async: "))
        if case.get(key)
    ]
    return "\n".join(['<ul class="notes">', *said, "</ul>"]) if said else ""


def walls(ident: str, component: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """Draw the wall time of sync and async against the number of callers, where there are enough of those."""
    drawn = [charts.Line(side, side, _points(side, cases)) for side in DRAWN]
    if min(len(line.points) for line in drawn) < FEWEST_POINTS:
        return ""
    lead = "From the first request to the last answer, in seconds; flat is better."
    chart = charts.lines(ident, f"Wall time of {component}", drawn, "agents")
    return (
        '<figure class="whole">\n<figcaption><h3>Wall time against the number of agents</h3>'
        f'<p>{escape(lead)}</p></figcaption>\n<div class="case"><div class="box wide">{chart}</div></div>\n'
        '<div class="box wide"><p class="sub unit">agents at once</p></div>\n</figure>'
    )


def growths(ident: str, component: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """Draw what a call costs at each size, for each case that has several; empty without any."""
    grown = [case for case in cases if case.get("growth")]
    panels = [_grown(f"{ident}-{index}", component, case) for index, case in enumerate(grown)]
    if not panels:
        return ""
    lead = (
        "One call, in milliseconds, against the size; lower and flatter is better. Both scales are"
        " logarithmic: ten times the size at ten times the cost is a straight line."
    )
    return (
        '<figure class="whole">\n<figcaption><h3>How cost grows</h3>'
        f"<p>{escape(lead)}</p></figcaption>\n{chr(10).join(panels)}\n</figure>"
    )


def _grown(ident: str, component: str, case: Mapping[str, Any]) -> str:
    across, points = str(case["growth"].get("across")), case["growth"].get("points") or ()
    drawn = [charts.Line(side, side, _sized(side, points)) for side in DRAWN]
    title = f"Cost of {component}: {name_of(case)}"
    return (
        f'<div class="case"><div class="case-head"><h4>{escape(name_of(case))}</h4></div>'
        f'<div class="box wide">{charts.lines(ident, title, drawn, across, log=True)}'
        f'<p class="sub unit">{escape(across)}</p></div></div>'
    )


def _sized(side: str, points: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    found = ((number(point, "at"), number(point, side)) for point in points)
    return [(at, cost, milliseconds(cost)) for at, cost in found if at is not None and cost is not None]


def _points(side: str, cases: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    found = {}
    for case in cases:
        callers, wall = number(case, "callers"), number((case.get("more") or {}).get("wall_s"), side)
        if callers and wall is not None:
            found[callers] = (callers, wall, seconds(wall))
    return [found[callers] for callers in sorted(found)]


def _body(case: Mapping[str, Any]) -> str:
    figures = case["more"]
    head = f'<th class="case-name" scope="rowgroup" rowspan="{len(figures)}">{escape(name_of(case))}</th>'
    rows = [_row(key, figures[key]) for key in figures]
    return "\n".join(f"<tr>{'' if index else head}{row}</tr>" for index, row in enumerate(rows))


def _row(key: str, figures: Mapping[str, Any]) -> str:
    title, form = MORE.get(key, (key, _plain))
    told = [*(form(number(figures, side)) for side in SIDES), times(number(figures, "ratio"))]
    return f'<th scope="row">{escape(title)}</th>{cells(told)}'


def _plain(value: float | None) -> str:
    return DASH if value is None else plain(value)
