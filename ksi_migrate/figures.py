"""Numbers as people read them: three figures that matter, the unit, and a dash for what was not measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DASH = "–"
FIGURES = 3
MILLION = 1e6
LONG_MS = 10_000
COARSE = 100  # below it a ratio's third figure is noise


def number(source: Mapping[str, Any] | None, key: str) -> float | None:
    """Give `source[key]` as a finite float; None where it is missing, null, or no number at all."""
    value = (source or {}).get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def plain(value: float, figures: int = FIGURES) -> str:
    """Round to `figures` significant figures, never more than two decimals: 23,400, 12.4, 0.83."""
    if value == 0:
        return "0"
    places = min(figures - 1 - math.floor(math.log10(abs(value))), 2)
    rounded = round(value, places)
    if rounded == 0:
        return "< 0.01" if value > 0 else "0"
    text = f"{rounded:,.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _with_unit(value: float | None, unit: str) -> str:
    return DASH if value is None else plain(value) + unit


def rate(value: float | None) -> str:
    """Give events a second: 23,400/s, from a million on 1.23M/s."""
    if value is not None and value >= MILLION:
        return _with_unit(value / MILLION, "M/s")
    return _with_unit(value, "/s")


def milliseconds(value: float | None) -> str:
    """Give a time that came in milliseconds: 0.8 ms, from 10,000 on in seconds. The space does not break."""
    if value is not None and value >= LONG_MS:
        return seconds(value / 1000)
    return _with_unit(value, "\N{NO-BREAK SPACE}ms")


def seconds(value: float | None) -> str:
    """Give a time that came in seconds: 1.24 s. The space does not break."""
    return _with_unit(value, "\N{NO-BREAK SPACE}s")


def mebibytes(value: float | None) -> str:
    """Give an amount of memory that came in MiB: 48.3 MiB. The space does not break."""
    return _with_unit(value, "\N{NO-BREAK SPACE}MiB")


def times(value: float | None) -> str:
    """Give a ratio with two significant figures below 100 (6.7×, 0.62×) and three above."""
    if value is None:
        return DASH
    return plain(value, 2 if abs(value) < COARSE else FIGURES) + "\N{MULTIPLICATION SIGN}"


def better(ratio: float | None) -> str:
    """Put a ratio of "how many times better" in words: 0.62 is 1.6× worse, what rounds to one is the same."""
    if ratio is None or ratio <= 0:
        return DASH
    if times(ratio) == times(1.0) or times(1 / ratio) == times(1.0):
        return "about the same"
    return f"{times(ratio)} better" if ratio > 1 else f"{times(1 / ratio)} worse"


def short(value: float) -> str:
    """Label a tick in as little room as possible: 20k, 1M, 0.1, 0.001."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def quotient(part: float | None, whole: float | None) -> float | None:
    """Divide two figures of which either may be missing; None where the quotient is not defined."""
    return None if part is None or not whole else part / whole
