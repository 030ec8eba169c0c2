"""The colours of the bench report can be told from their ground, by WCAG 2.2, level AA."""

from __future__ import annotations

import re

import pytest

from ksi_migrate.report_style import STYLE


def palettes() -> list[dict[str, str]]:
    """The colours of the stylesheet by name: light first, then dark."""
    return [
        dict(re.findall(r"--([\w]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    ]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of `#rrggbb`."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG 2.2), from 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "card"])
def test_contrast_meets_aa(mode: int, ground: str) -> None:
    """Text has a contrast of 4.5 and what is drawn one of 3, in both modes, on page and card."""
    colours = palettes()[mode]
    text = {name: contrast(colours[name], colours[ground]) for name in ("ink", "muted", "good", "bad")}
    drawn = {
        name: contrast(colours[name], colours[ground])
        for name in ("reference", "sync", "async", "whisker", "guide")
    }

    assert {name: ratio for name, ratio in text.items() if ratio < 4.5} == {}
    assert {name: ratio for name, ratio in drawn.items() if ratio < 3} == {}
