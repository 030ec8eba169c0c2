"""The drawing of bars: a longer bar is a bigger figure, on a scale that fits what is drawn."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_migrate import charts
from tests.report_page import SVG, row_of

MEASURED = st.just(0.0) | st.floats(min_value=1e-5, max_value=1e9)


def lengths(bars: list[charts.Bar]) -> list[float]:
    """How long the bars of one plot are drawn."""
    scale = charts.scale_for(bar.value for bar in bars)
    svg = ET.fromstring(charts.plot("x", "t", bars, scale))
    return [length for _, length, _ in (row_of(group) for group in svg.iter(f"{SVG}g")) if length is not None]


@given(st.lists(MEASURED, min_size=1, max_size=8))
def test_a_bigger_figure_has_a_longer_bar(values: list[float]) -> None:
    """On both kinds of scale never shorter, longer where it is half as much again; the largest fills it."""
    drawn = lengths([charts.Bar("x", "sync", value, "") for value in values])

    assert all(0 <= length <= 100 for length in drawn)
    for (small, short), (large, long) in itertools.permutations(zip(values, drawn, strict=True), 2):
        if small < large:
            assert short <= long
        if small * 1.5 < large and large > 1e-3 * max(values):
            assert short < long
    assert max(drawn) == (100 if max(values) > 0 else 0)


def test_scale_turns_logarithmic_where_figures_span_decades() -> None:
    """Below a hundredfold lengths are in proportion; from there on decades are equally wide."""
    linear, logarithmic = charts.scale_for([1, 99, None]), charts.scale_for([1, 1000, 0])

    assert (linear.log, linear.percent(49.5)) == (False, 50)
    assert logarithmic.log
    assert logarithmic.percent(100) - logarithmic.percent(10) == pytest.approx(25)
    assert logarithmic.percent(0) == 0
    assert logarithmic.ticks() == (0.1, 1, 10, 100, 1000)


@given(st.floats(min_value=1e-4, max_value=1e9), st.floats(min_value=1, max_value=1e9))
def test_ticks_are_few_and_within(low: float, factor: float) -> None:
    """An axis has between one and six labels, in rising order, all within the chart."""
    ticks = charts.scale_for([low, low * factor]).ticks()

    assert 1 <= len(ticks) <= 6
    assert list(ticks) == sorted(set(ticks))
    assert ticks[-1] <= low * factor * 1.000001


def test_whiskers_reach_from_slowest_to_fastest() -> None:
    """The whisker lies on the bar's scale, and the figure stands beyond its end."""
    bar = charts.Bar("x", "sync", 50, "50/s", low=40, high=80)
    svg = ET.fromstring(charts.plot("x", "t", [bar], charts.scale_for(bar.marks())))
    whisker, value = svg.find(f".//{SVG}line[@class='whisker']"), svg.find(f".//{SVG}text[@class='value']")

    assert whisker is not None
    assert value is not None
    assert (whisker.get("x1"), whisker.get("x2"), value.get("x")) == ("50.000%", "100.000%", "100.000%")


def test_lines_on_logarithmic_scales_keep_proportions() -> None:
    """Also where the figures span less than decades: twice as much is as far up, wherever it is."""
    points = [(1.0, 5.0, "5"), (2.0, 10.0, "10"), (4.0, 20.0, "20")]
    drawn = ET.fromstring(charts.lines("x", "t", [charts.Line("sync", "sync", points)], "files", log=True))
    strokes = [line for line in drawn.iter(f"{SVG}line") if line.get("class") == "stroke"]
    rises = [float(line.attrib["y1"]) - float(line.attrib["y2"]) for line in strokes]

    assert rises[0] == pytest.approx(rises[1], abs=0.2)
    assert [line.get("x2") for line in strokes] == ["50.000%", "100.000%"]


@pytest.mark.parametrize("values", [[], [None, 0.0], [0.0, charts.FAINT / 2]])
def test_without_a_figure_there_is_still_a_scale(values: list[float | None]) -> None:
    """Nothing, zeros and what no clock tells from zero give a plain scale on which they stand at the left."""
    scale = charts.scale_for(values)

    assert (scale.log, scale.percent(0)) == (False, 0)
    assert scale.ticks()[0] == 0


def test_one_faint_figure_does_not_flatten_the_rest() -> None:
    """A logarithmic scale spans seven decades at most; what is smaller stands at 0."""
    scale = charts.scale_for([1e-5, 1e6])

    assert scale.percent(1e-5) == 0
    assert scale.low == pytest.approx(0.1)
