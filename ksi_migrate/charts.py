"""Charts as inline SVG: lengths are per cent of the box, text is not: one drawing fits every screen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from ksi_migrate.figures import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SVG_NAMESPACE = "http://www.w3.org/2000/svg"
LOG_SPAN = 100.0  # the largest is this many times the smallest: a linear scale would hide the small ones
DEPTH = 1e6  # what is smaller than the largest by more than this stands at 0 on a logarithmic scale
FAINT = 1e-6  # no clock here tells such a figure from 0
ROW = 26
BAR = 14
STEM = 2
DOT = 5
TALL = 190  # px: where zero lies in a chart of lines
TOP = 12
FOOT = 24
MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a chart; a `value` of None draws no bar, only the label and `text`.

    `role` is the CSS class that gives the colour, `low` and `high` end the whisker, `notch` is a second mark.
    """

    label: str
    role: str
    value: float | None
    text: str
    low: float | None = None
    high: float | None = None
    notch: float | None = None

    def marks(self) -> tuple[float | None, ...]:
        """Give every figure that must have room on the scale."""
        return (self.value, self.low, self.high, self.notch)


@dataclass(frozen=True, slots=True)
class Scale:
    """From `low` (0 per cent of the width) to `high` (100 per cent); linear scales begin at 0."""

    low: float
    high: float
    log: bool

    def percent(self, value: float) -> float:
        """Place a figure; what lies below `low` (a zero on a logarithmic scale) stands at 0."""
        if value <= self.low:
            return 0.0
        if self.log:
            return 100 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100 * value / self.high

    def ticks(self) -> tuple[float, ...]:
        """Give at most five round figures, the decades on a logarithmic scale."""
        return _decades(self.low, self.high) if self.log else _steps(self.high)


def scale_for(values: Iterable[float | None]) -> Scale:
    """Choose a linear scale, or a logarithmic one where the largest is 100 times the smallest and more."""
    positive = [value for value in values if value is not None and value > FAINT]
    if not positive:
        return Scale(0.0, 1.0, log=False)
    smallest, largest = min(positive), max(positive)
    if largest / smallest < LOG_SPAN:
        return Scale(0.0, largest, log=False)
    return _logarithmic(smallest, largest)


def _logarithmic(smallest: float, largest: float) -> Scale:
    lowest = max(smallest, largest / DEPTH)
    return Scale(10.0 ** (math.ceil(math.log10(lowest)) - 1), largest, log=True)


def _decades(low: float, high: float) -> tuple[float, ...]:
    first, last = round(math.log10(low)), math.floor(math.log10(high))
    stride = math.ceil((last - first + 1) / MOST_TICKS)
    return tuple(10.0**power for power in range(first, last + 1, stride))


def _steps(high: float) -> tuple[float, ...]:
    rough = high / (MOST_TICKS - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return tuple(step * count for count in range(int(high / step) + 1))


def plot(ident: str, title: str, bars: Sequence[Bar], scale: Scale, guide: float | None = None) -> str:
    """Draw `bars` from top to bottom; `guide` is a dashed line over all of them.

    `ident` must be unique in the page: title and description, which say all figures in words, hang on it.
    Labels stand left of the box and figures right of the bars: the page must leave room on both sides.
    """
    height = ROW * len(bars)
    spoken = "; ".join(f"{bar.label} {'not measured' if bar.value is None else bar.text}" for bar in bars)
    parts = [
        _open("plot", height, f'role="img" aria-labelledby="{ident}-title {ident}-desc"'),
        f'<title id="{ident}-title">{escape(title)}</title>',
        f'<desc id="{ident}-desc">{escape(spoken)}</desc>',
        *(_upright("grid", scale.percent(tick), 0, height) for tick in scale.ticks()),
        *(_row(bar, scale, ROW * index + ROW // 2) for index, bar in enumerate(bars)),
    ]
    if guide is not None:
        parts.append(_upright("guide", scale.percent(guide), 0, height))
    return "\n".join([*parts, "</svg>"])


def axis(scale: Scale) -> str:
    """Draw the tick labels that belong below the last plot of a scale; hidden from screen readers."""
    labels = "".join(
        f'<text class="tick" x="{scale.percent(tick):.3f}%" y="14">{short(tick)}</text>'
        for tick in scale.ticks()
    )
    return _open("axis", 20, 'aria-hidden="true"') + labels + "</svg>"


def _open(name: str, height: int, attributes: str) -> str:
    return f'<svg xmlns="{SVG_NAMESPACE}" class="{name}" width="100%" height="{height}" {attributes}>'


def _row(bar: Bar, scale: Scale, middle: int) -> str:
    reach = max((scale.percent(mark) for mark in bar.marks() if mark is not None), default=0.0)
    inner = [
        f'<text class="label" x="-10" y="{middle}" dy="0.35em">{escape(bar.label)}</text>',
        _length(bar.value, scale, middle),
        _notch(bar.notch, scale, middle),
        _whisker(bar.low, bar.high, scale, middle),
        f'<text class="value" x="{reach:.3f}%" dx="10" y="{middle}" dy="0.35em">{escape(bar.text)}</text>',
    ]
    return f'<g class="row {escape(bar.role)}">{"".join(inner)}</g>'


def _length(value: float | None, scale: Scale, middle: int) -> str:
    if value is None:
        return ""
    end = f"{scale.percent(value):.3f}%"
    thick = STEM if scale.log else BAR
    rect = f'<rect class="bar" x="0" y="{middle - thick // 2}" width="{end}" height="{thick}" rx="2"/>'
    return rect + (f'<circle class="dot" cx="{end}" cy="{middle}" r="{DOT}"/>' if scale.log else "")


def _notch(value: float | None, scale: Scale, middle: int) -> str:
    return "" if value is None else _upright("notch", scale.percent(value), middle - 9, middle + 9)


def _whisker(low: float | None, high: float | None, scale: Scale, middle: int) -> str:
    if low is None or high is None:
        return ""
    left, right = scale.percent(low), scale.percent(high)
    beam = f'<line class="whisker" x1="{left:.3f}%" x2="{right:.3f}%" y1="{middle}" y2="{middle}"/>'
    caps = (_upright("whisker", end, middle - 4, middle + 4) for end in (left, right))
    return beam + "".join(caps)


def _upright(name: str, percent: float, top: int, bottom: int) -> str:
    return f'<line class="{name}" x1="{percent:.3f}%" x2="{percent:.3f}%" y1="{top}" y2="{bottom}"/>'


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its points as (across, up, the figure in words), from left to right."""

    label: str
    role: str
    points: Sequence[tuple[float, float, str]]


def lines(ident: str, title: str, drawn: Sequence[Line], across: str, *, log: bool = False) -> str:
    """Draw lines over one linear scale each way, both from 0; `across` names what goes from left to right.

    With `log` both scales are logarithmic. The figures stand at the last points and all of them in words in
    the description, as for `plot`.
    """
    spoken = "; ".join(
        f"{line.label} {text} at {short(x)} {across}" for line in drawn for x, _, text in line.points
    )
    places = sorted({x for line in drawn for x, _, _ in line.points})
    wide = _wide(places, log=log)
    scale = _tall([y for line in drawn for _, y, _ in line.points], log=log)
    parts = [
        _open("lines", TALL + FOOT, f'role="img" aria-labelledby="{ident}-title {ident}-desc"'),
        f'<title id="{ident}-title">{escape(title)}</title>',
        f'<desc id="{ident}-desc">{escape(spoken)}</desc>',
        *(_level(tick, scale) for tick in scale.ticks()),
        *(_across(x, wide) for x in places),
        *(_line(line, wide, scale) for line in drawn),
    ]
    return "\n".join([*parts, "</svg>"])


def scale_for_lines(values: Iterable[float]) -> Scale:
    """A linear scale from 0, whatever the figures span: a line's slope must mean something."""
    return Scale(0.0, max(values, default=0.0) or 1.0, log=False)


def _wide(places: Sequence[float], *, log: bool) -> Scale:
    """From left to right; a logarithmic one begins at the first place, if there are two."""
    if log and len(places) > 1 and places[0] > 0:
        return Scale(places[0], places[-1], log=True)
    return scale_for_lines(places)


def _tall(values: Sequence[float], *, log: bool) -> Scale:
    positive = [value for value in values if value > FAINT]
    return _logarithmic(min(positive), max(positive)) if log and positive else scale_for_lines(values)


def _height(value: float, scale: Scale) -> float:
    return TOP + (TALL - TOP) * (1 - scale.percent(value) / 100)


def _level(tick: float, scale: Scale) -> str:
    at = _height(tick, scale)
    return (
        f'<line class="grid" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="label" x="-10" y="{at:.1f}" dy="0.35em">{short(tick)}</text>'
    )


def _across(x: float, wide: Scale) -> str:
    return f'<text class="tick" x="{wide.percent(x):.3f}%" y="{TALL + 16}">{short(x)}</text>'


def _line(line: Line, wide: Scale, scale: Scale) -> str:
    places = [(f"{wide.percent(x):.3f}%", f"{_height(y, scale):.1f}") for x, y, _ in line.points]
    strokes = (
        f'<line class="stroke" x1="{x}" y1="{y}" x2="{right}" y2="{below}"/>'
        for (x, y), (right, below) in pairwise(places)
    )
    dots = (f'<circle class="dot" cx="{x}" cy="{y}" r="{DOT - 1}"/>' for x, y in places)
    value = ""
    if line.points:
        x, y = places[-1]
        value = (
            f'<text class="value" x="{x}" dx="10" y="{y}" dy="0.35em">'
            f"{escape(line.label)} {escape(line.points[-1][2])}</text>"
        )
    return f'<g class="{escape(line.role)}">{"".join(strokes)}{"".join(dots)}{value}</g>'
