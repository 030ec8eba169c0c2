"""The bench report: one well-formed page that needs nothing else, with bars as long as their figures say."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from ksi_migrate import charts, figures
from ksi_migrate.report import render
from ksi_migrate.report_tables import SIDES
from tests.report_page import SVG, Outline, plots, row_of, svgs
from tests.report_sample import FIGURES, NOTHING, case, document, side

HOSTILE = """</title></style><script>alert("x")</script><b title='y'>&amp;"""


def test_page_is_well_formed() -> None:
    """Every tag is closed in its order, and every id that a label needs is there once."""
    outline = Outline(render(document()))
    ids = [str(attrs["id"]) for _, attrs in outline.seen if "id" in attrs]
    wanted = [part for _, attrs in outline.seen for part in (attrs.get("aria-labelledby") or "").split()]

    assert outline.open == []
    assert sorted(ids) == sorted(set(ids)) == sorted(wanted)


def test_a_page_that_is_not_well_formed_would_be_found() -> None:
    """The outline sees tags closed in the wrong order."""
    with pytest.raises(AssertionError):
        Outline("<p><b></p></b>")


def test_page_needs_nothing_else() -> None:
    """No script, no link, no import, and no address but the name of SVG's namespace."""
    page = render(document())

    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) == {charts.SVG_NAMESPACE}
    assert re.findall(r"<script|<link|<img|\bsrc=|\bhref=|@import|url\(", page) == []


def test_drawings_have_title_and_description() -> None:
    """Each chart says what it shows and all its figures in words; axes are hidden from screen readers."""
    for svg in svgs(render(document())):
        if svg.get("aria-hidden") == "true":
            continue
        words = [(svg.findtext(f"{SVG}{name}") or "") for name in ("title", "desc")]
        figure_texts = [
            figure for _, length, figure in map(row_of, svg.iter(f"{SVG}g")) if length is not None
        ]

        assert svg.get("role") == "img"
        assert all(words)
        assert [figure for figure in figure_texts if figure not in words[1]] == []


def test_tables_have_real_markup() -> None:
    """Two tables a component, one more where it has more figures, one for the socket: all with a caption."""
    outline = Outline(render(document()))
    scopes = {attrs.get("scope") for tag, attrs in outline.seen if tag == "th"}

    assert (outline.count("table"), outline.count("caption"), outline.count("thead")) == (11, 11, 11)
    assert scopes == {"col", "row", "rowgroup"}
    assert sum(attrs.get("class") == "scroll" for _, attrs in outline.seen) == 11


def test_same_document_gives_same_page() -> None:
    """There is no clock and no chance in the page, and the document is left as it was."""
    given_document = document()

    assert render(given_document) == render(document())
    assert given_document == document()


def test_strings_are_escaped() -> None:
    """Text of the document comes out as text, wherever it stands, and never as markup."""
    hostile = document()
    hostile["schema_version"] = HOSTILE
    hostile["machine"] = {"python": HOSTILE, "platform": HOSTILE, "at": HOSTILE}
    hostile["components"][0]["name"] = hostile["components"][0]["cases"][0]["name"] = HOSTILE
    hostile["components"][1]["cases"] = []
    hostile["components"][1]["name"] = HOSTILE
    hostile["socket"]["cases"][0] |= {"name": HOSTILE, "stage": HOSTILE}
    page = render(hostile)
    outline = Outline(page)

    assert (outline.count("script"), outline.count("b")) == (0, 0)
    assert HOSTILE not in page
    assert sum(HOSTILE in words for words in outline.words) >= 10
    assert outline.open == []


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, "12", True, {}], ids=repr)
@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_that_is_none_is_a_dash(figure: str, nothing: Any) -> None:
    """What is null, or no number, is never drawn and never printed; the page says what the dash means."""
    page_with = Outline(render(document()))
    changed = document()
    changed["components"][0]["cases"][0]["async"][figure] = nothing
    page = Outline(render(changed))
    dashes = page.words.count(figures.DASH) - page_with.words.count(figures.DASH)

    # one in the table, and one in a chart where the figure has a bar of its own
    assert dashes == (2 if figure in {"throughput_per_s", "loop_stall_max_ms"} else 1)
    assert [word for word in page.words if re.search(r"\b(nan|None|inf)\b", word)] == []
    assert any("never stands for zero" in word for word in page.words)


def test_without_a_figure_there_is_no_bar() -> None:
    """A side that was not measured keeps its row and its label, without a bar; its description says why."""
    page = render(document())

    rows = plots(page)["Throughput of completion: record usage, fsync for each line"]

    assert [(label, length is None) for label, length, _ in rows] == [
        ("reference", False),
        ("sync", False),
        ("async", True),
    ]
    assert "async not measured" in page


@pytest.mark.parametrize(
    "empty",
    [
        {},
        {"components": None, "machine": None, "socket": None, "ok": False},
        {"components": [{"name": "messaging", "cases": []}], "socket": {"cases": []}},
        {"components": [{"cases": [{}]}], "machine": {"cores": 1}, "socket": {"cases": [{}]}},
        {"components": [{"cases": [case("idle", 1, (NOTHING, NOTHING, NOTHING), (None, None, None))]}]},
    ],
)
def test_an_empty_document_is_a_page(empty: dict[str, Any]) -> None:
    """Whatever is missing, the page is whole and still explains its words."""
    page = render(empty)

    assert Outline(page).open == []
    assert "Loop stall" in page
    assert svgs(page) is not None


def test_sides_stand_in_one_order() -> None:
    """Reference, sync and async stand in this order in every chart of a component, with their own names."""
    drawn = plots(render(document())).items()
    rows = [rows for title, rows in drawn if title.startswith(("Throughput", "Loop stall"))]

    assert {tuple(label for label, _, _ in row) for row in rows} == {("reference", "sync", "async")}
    assert len(rows) == 14


def test_all_cases_of_a_chart_share_one_scale() -> None:
    """Over all cases of a chart a bigger figure has a longer bar, and twice the figure twice the length."""
    drawn = plots(render(document()))
    many = drawn["Throughput of messaging: append, 100 callers"]
    one = drawn["Throughput of messaging: append, one caller"]

    assert many[2][2] == "23,400/s"
    assert [length for _, length, _ in many + one] == sorted_like(
        [3890, 3512, 23417, 4210, 3975, 2464], many + one
    )
    assert many[2][1] / many[1][1] == pytest.approx(23417 / 3512, rel=1e-3)  # type: ignore[operator]


def sorted_like(values: list[float], rows: list[tuple[str, float | None, str]]) -> list[float | None]:
    """The lengths of the rows, put where the order of the values wants them."""
    ordered = iter(sorted(length for _, length, _ in rows if length is not None))
    places = {index: next(ordered) for index in sorted(range(len(values)), key=values.__getitem__)}
    return [places[index] for index in range(len(values))]


def test_idle_process_is_a_line_across_the_stall_charts() -> None:
    """The idle heartbeat's longest stall is drawn once in each stall plot, nowhere when it was not taken."""
    without = document()
    del without["machine"]["idle_loop_stall_max_ms"]

    assert render(document()).count('class="guide"') == 7
    assert render(without).count('class="guide"') == 0


def test_original_is_quoted_not_measured() -> None:
    """Beside the original's figures stands where they come from and what it does besides."""
    page = render(document())

    assert "they were not measured in" in page
    assert "event log" in page
    label, length, figure = plots(page)["Publishes of the socket: publish, pipelined"][0]
    assert (label, figure) == ("original", "800/s")
    assert length == pytest.approx(100 * math.log(8) / math.log(1234.567), abs=1e-3)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((6.7, 29), "6.7× to 29× better"),
        ((0.62, 8.3), "1.6× worse to 8.3× better"),
        ((3.0,), "3× better"),
        ((None, None), "–"),
    ],
)
def test_glance_reaches_from_worst_to_best(ratios: tuple[float | None, ...], expected: str) -> None:
    """The card of a component hides no case in which async is worse."""
    one = side(1, 1, 1, 1, 1, 1, 1)
    cases = [case("c", 1, (one, one, one), (ratio, None, None)) for ratio in ratios]

    page = render({"components": [{"name": "messaging", "cases": cases}]})

    assert f"<dt>Throughput</dt><dd>{expected}</dd>" in page


def test_logarithmic_scale_says_so() -> None:
    """Beside the unit of a chart stands that its scale is logarithmic, and only where it is."""
    page = render(document())

    assert page.count("milliseconds, logarithmic scale") == 4
    assert page.count(">operations a second</p>") == 4


def test_figures_of_its_own_stand_in_a_table() -> None:
    """Each with its unit; one that the page does not know under its key; nothing where a case has none."""
    outline = Outline(render(document()))
    words = [word for word in outline.words if word.strip()]

    assert words.count("claude_cli: more figures") == 1
    assert "messaging: more figures" not in words
    at = words.index("claude_cli: more figures")
    assert words[at:][:7] == ["claude_cli: more figures", "Case", "Figure", *SIDES, "Better at async"]
    assert words[at:][7:13] == ["1 agents, 1 s each", "Wall time", "\u2013", "1.03\xa0s", "1.02\xa0s", "1×"]
    assert words[at:][13] == "not_known_to_the_page"
    assert "20 agents, 1 s each: reference and sync: 1 round, since each takes 20 s." in words


def test_wall_time_is_drawn_against_the_number_of_agents() -> None:
    """One line for sync and one for async, left to right; none with too few points."""
    few = document()
    few["components"][1]["cases"].pop()
    (drawn,) = [svg for svg in svgs(render(document())) if "Wall time" in (svg.findtext(f"{SVG}title") or "")]
    strokes = {
        group.get("class"): [
            (float(line.attrib["x1"].rstrip("%")), float(line.attrib["y1"]), float(line.attrib["y2"]))
            for line in group.iter(f"{SVG}line")
        ]
        for group in drawn.iter(f"{SVG}g")
    }

    assert [x for x, _, _ in strokes["sync"]] == [x for x, _, _ in strokes["async"]] == [5, 25]
    assert all(above > below for _, above, below in strokes["sync"])
    assert strokes["sync"][-1][2] == charts.TOP
    assert "async 1.21\xa0s at 20 agents" in (drawn.findtext(f"{SVG}desc") or "")
    assert "Wall time of" not in render(few)


def test_growth_is_drawn_against_the_size() -> None:
    """On two logarithmic scales ten times the cost at ten times the size is a straight line."""
    (drawn,) = [svg for svg in svgs(render(document())) if "Cost of" in (svg.findtext(f"{SVG}title") or "")]
    strokes = {
        group.get("class"): [
            tuple(float(line.attrib[key].rstrip("%")) for key in ("x1", "y1", "x2", "y2"))
            for line in group.iter(f"{SVG}line")
        ]
        for group in drawn.iter(f"{SVG}g")
    }
    slopes = {side: [(y1 - y2) / (x2 - x1) for x1, y1, x2, y2 in found] for side, found in strokes.items()}

    assert [x for x, *_ in strokes["sync"]] == [0, 50]
    assert slopes["sync"][0] == pytest.approx(slopes["sync"][1], rel=0.05)
    assert max(slopes["async"]) < 0.2 * min(slopes["sync"])
    assert "sync 33.6\xa0ms at 200 sessions" in (drawn.findtext(f"{SVG}desc") or "")


def test_what_is_asked_is_told_and_missing_sizes_are_not_drawn() -> None:
    """The bar stands among the notes; a case without sizes has no such chart."""
    few = document()
    (found,) = few["components"][2]["cases"]
    words = Outline(render(few)).words
    found["growth"]["points"] = None
    empty = render(few)
    found["growth"] = None

    assert "nothing changed, 2,000 sessions: asked of async: at least 15 times faster." in words
    assert "Cost of" in empty
    assert "Cost of" not in render(few)


def test_lines_without_points_are_a_drawing() -> None:
    """Nothing measured is an empty chart, not an error."""
    drawn = charts.lines("x", "t", [charts.Line("sync", "sync", [])], "agents")

    assert "stroke" not in drawn
    assert drawn.endswith("</svg>")
