"""The page of `ksi-migrate report --html`, from its `--json` document; pure, and without a clock."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate import charts
from ksi_migrate.claims import SOURCES
from ksi_migrate.figures import DASH, mebibytes, number, plain, times
from ksi_migrate.report import page
from ksi_migrate.report_figures import Figure, Panel, figure
from ksi_migrate.report_tables import cells, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Row = Mapping[str, Any]

TITLE: Final = "KSI daemon: what was promised, and what was measured"
MARKS: Final = {"pass": "✓", "fail": "✗", "not measured": "–"}
TONES: Final = {"pass": "good", "fail": "bad", "not measured": "muted"}
NOTES: Final = (
    "Async against sync, both on this machine. A claim holds when the worst of its cases reaches the bar,"
    " which is the least that was claimed. Figures of another machine or release count as not measured."
)
TIMES_LEAD: Final = (
    "How many times better async is than sync; longer is better, and it has to pass the claim."
)
MS_LEAD: Final = "Shorter is better, and it has to stay below the claim."
MEMORY_LEAD: Final = "The most memory held at once while that was measured."


def render(document: Mapping[str, Any]) -> str:
    """Give the page as HTML text; every string is escaped, what was not measured is a dash."""
    rows = document["rows"]
    parts = [
        _header(document),
        "<main>",
        *(_table(source, [row for row in rows if row["source"] == source]) for source in SOURCES),
        _charts(rows),
        "</main>",
        _footer(document["machine"]),
    ]
    return page(TITLE, "\n".join(part for part in parts if part))


def _header(document: Mapping[str, Any]) -> str:
    counts = (f"{document[key]} {key.replace('_', ' ')}" for key in ("passed", "failed", "not_measured"))
    good = document["ok"]
    mark, tone = ("✓", "good") if good else ("✗", "bad")
    return (
        f'<header>\n<h1>{TITLE}</h1>\n<p class="verdict {tone}">{mark} {", ".join(counts)}.</p>\n'
        f'<p class="muted">{NOTES}</p>\n</header>'
    )


def _table(source: str, rows: Sequence[Row]) -> str:
    heads = ("Peak memory, sync", "Peak memory, async", "When")
    words = ("Claim", "Verdict", "Claimed", "How", "Measured here")
    drawn = table(f"Claims of the {source}", words, heads, ["\n".join(map(_row, rows))])
    return f'<h2>{escape(source.capitalize())}</h2>\n<div class="tables">\n{drawn}\n</div>'


def _row(row: Row) -> str:
    verdict = row["verdict"]
    head = f'<th class="case-name" scope="row">{escape(row["name"])}</th>'
    mark = f'<th scope="row"><span class="verdict {TONES[verdict]}">{MARKS[verdict]} {verdict}</span></th>'
    words = "".join(
        f'<th class="case-name" scope="row"><span class="sub">{escape(row[key])}</span></th>'
        for key in ("claimed", "how")
    )
    memory = [mebibytes(number(row["memory_mib"], side)) for side in ("sync", "async")]
    said = f'<th class="case-name" scope="row"><span class="sub">{escape(row["said"])}</span></th>'
    return f"<tr>{head}{mark}{words}{said}{cells([*memory, row['at'] or DASH])}</tr>"


def _charts(rows: Sequence[Row]) -> str:
    better, short = _compared(rows, "times"), _compared(rows, "ms")
    drawn = (
        _figure("times", "Times better", TIMES_LEAD, "times", better, times),
        _figure("ms", "Milliseconds", MS_LEAD, "milliseconds", short, _ms),
        _figure("memory", "Peak memory", MEMORY_LEAD, "MiB", _memory(rows), mebibytes),
    )
    return f'<h2>In pictures</h2>\n<div class="pair">\n{"".join(drawn)}\n</div>' if any(drawn) else ""


Bars = list[tuple[str, str, float | None]]


def _compared(rows: Sequence[Row], unit: str) -> list[tuple[Row, Bars]]:
    """Claimed beside measured, of the rows of one unit that were measured."""
    chosen = [row for row in rows if row["unit"] == unit and row["measured"] is not None]
    return [
        (row, [("claimed", "reference", number(row, "bar")), ("measured", "async", number(row, "measured"))])
        for row in chosen
    ]


def _memory(rows: Sequence[Row]) -> list[tuple[Row, Bars]]:
    chosen = [row for row in rows if number(row["memory_mib"], "async") is not None]
    return [
        (row, [(side, side, number(row["memory_mib"], side)) for side in ("sync", "async")]) for row in chosen
    ]


def _figure(
    ident: str,
    title: str,
    lead: str,
    unit: str,
    panels: Sequence[tuple[Row, Bars]],
    form: Callable[[float | None], str],
) -> str:
    if not panels:
        return ""
    drawn = [
        Panel(
            _heading(row),
            row["name"],
            [charts.Bar(label, role, value, form(value)) for label, role, value in bars],
        )
        for row, bars in panels
    ]
    return figure(Figure(f"report-{ident}", title, "the claims", lead, unit), drawn)


def _heading(row: Row) -> str:
    verse = f'<span class="verse {TONES[row["verdict"]]}">{MARKS[row["verdict"]]} {row["verdict"]}</span>'
    return (
        f'<div class="case-head"><h4>{escape(row["name"])}</h4>{verse}</div>'
        f'<p class="sub">{escape(row["how"])}</p>'
    )


def _ms(value: float | None) -> str:
    return DASH if value is None else f"{plain(value)}\N{NO-BREAK SPACE}ms"


def _footer(machine: Mapping[str, Any]) -> str:
    words = (
        f"{machine['node']} ({machine['machine']}); {machine['platform']};"
        f" {machine['cores']} processor cores; Python {machine['python']}; ksi-migrate {machine['release']}"
    )
    return f"<footer>\n<h2>The machine</h2>\n<p>{escape(words)}.</p>\n</footer>"
