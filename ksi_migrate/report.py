"""One self-contained HTML page from the document that `bench` prints as JSON; pure, and without a clock."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from ksi_migrate import report_figures, report_more
from ksi_migrate.figures import DASH, better, milliseconds, number, plain
from ksi_migrate.report_style import STYLE
from ksi_migrate.report_tables import figures_table, name_of, ratios_table, socket_table
from ksi_migrate.report_words import METHOD, ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def render(document: Mapping[str, Any]) -> str:
    """Give the page as HTML text; figures that are null or missing become dashes, every string is escaped.

    `document` has the JSON shape of `bench`, with `machine`, `socket` and each side's `spread` optional.
    """
    components = document.get("components") or []
    machine = document.get("machine") or {}
    idle = number(machine, "idle_loop_stall_max_ms")
    parts = [
        _header(document, machine),
        "<main>",
        _glance(components),
        *(_component(index, component, idle) for index, component in enumerate(components)),
        _socket(document.get("socket") or {}),
        _method(),
        "</main>",
        _footer(document, machine, idle),
    ]
    return page("KSI daemon: sync against async", "\n".join(part for part in parts if part))


def page(title: str, body: str) -> str:
    """A whole page around its body, in the style of all reports."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _header(document: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    at = f'<p class="muted">Measured {escape(str(machine["at"]))}</p>' if machine.get("at") else ""
    return (
        f"<header>\n<h1>KSI daemon: sync against async</h1>\n{at}\n{_verdict(document.get('ok'))}\n</header>"
    )


def _verdict(ok: object) -> str:
    if ok is None:
        return ""
    if ok:
        return '<p class="verdict good">✓ Bench passed this run.</p>'
    return '<p class="verdict bad">✗ Bench did not pass this run; its own output says why.</p>'


def _glance(components: Sequence[Mapping[str, Any]]) -> str:
    if not components:
        return '<p class="muted">No component was measured in this run.</p>'
    cards = "\n".join(_card(component) for component in components)
    return (
        "<h2>At a glance</h2>\n"
        '<p class="muted">How async compares with sync, from the worst case to the best.</p>\n'
        f'<div class="cards">\n{cards}\n</div>'
    )


def _card(component: Mapping[str, Any]) -> str:
    ratios = [case.get("ratio") for case in component.get("cases") or []]
    throughput = _range(number(ratio, "throughput") for ratio in ratios)
    stall = _range(number(ratio, "loop_stall_max") for ratio in ratios)
    return (
        f'<section class="card"><h3>{escape(name_of(component))}</h3>\n<dl>'
        f"<dt>Throughput</dt><dd>{throughput}</dd>"
        f"<dt>Longest stall</dt><dd>{stall}</dd></dl></section>"
    )


def _range(ratios: Iterable[float | None]) -> str:
    known = [ratio for ratio in ratios if ratio is not None]
    low, high = better(min(known, default=None)), better(max(known, default=None))
    if low == high:
        return high
    return f"{low.removesuffix(high[high.find(' ') :])} to {high}"


def _component(index: int, component: Mapping[str, Any], idle: float | None) -> str:
    name, cases = name_of(component), component.get("cases") or []
    if not cases:
        return f'<h2>{escape(name)}</h2>\n<p class="muted">No case of this component was measured.</p>'
    more = (report_more.more_table(name, cases), report_more.notes(cases))
    inner = "\n".join((figures_table(name, cases), ratios_table(name, cases), *filter(None, more)))
    throughput = report_figures.throughput(f"throughput-{index}", name, cases)
    stall = report_figures.loop_stall(f"stall-{index}", name, cases, idle)
    walls = report_more.walls(f"walls-{index}", name, cases)
    growths = report_more.growths(f"growth-{index}", name, cases)
    drawn = "\n".join(filter(None, (walls, growths, throughput, stall)))
    return (
        f'<h2>{escape(name)}</h2>\n<div class="pair">\n{drawn}\n</div>\n<div class="tables">\n{inner}\n</div>'
    )


def _socket(socket: Mapping[str, Any]) -> str:
    cases = socket.get("cases") or []
    if not cases:
        return ""
    return (
        f'<h2>Through the socket</h2>\n<p class="muted">{escape(ORIGINAL)}</p>\n<div class="pair">\n'
        f"{report_figures.publishes(cases)}\n{report_figures.pings(cases)}\n</div>\n"
        f'<div class="tables">\n{socket_table(cases)}\n</div>'
    )


def _method() -> str:
    terms = "\n".join(f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in METHOD)
    return f'<h2>How it was measured</h2>\n<dl class="method">\n{terms}\n</dl>'


def _footer(document: Mapping[str, Any], machine: Mapping[str, Any], idle: float | None) -> str:
    words = [str(machine["platform"])] if machine.get("platform") else []
    cores = number(machine, "cores")
    words += [f"{plain(cores)} processor {'core' if cores == 1 else 'cores'}"] if cores is not None else []
    words += [f"Python {machine['python']}"] if machine.get("python") else []
    words += [f"idle loop stall at most {milliseconds(idle)}"] if idle is not None else []
    told = escape("; ".join(words) or "The run did not say which machine it ran on")
    version = escape(str(document.get("schema_version") or DASH))
    source = f"<p>ksi-migrate bench, schema version {version}.</p>"
    return f"<footer>\n<h2>The machine</h2>\n<p>{told}.</p>\n{source}\n</footer>"
