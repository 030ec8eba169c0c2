"""`report`: each claim of the analysis against the evidence of this machine: pass, fail, not measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksi_migrate import judge, measured, success, success_page
from ksi_migrate.claims import CLAIMS, AtMost, Times
from ksi_migrate.exits import Exit
from tests.operate import migrate
from tests.proofs import ELSEWHERE, HERE, held, made, run, through_socket
from tests.report_page import Outline, plots

BY_NAME = {claim.name: claim for claim in CLAIMS}
AGENTS = [made(f"{count} agents, 1 s each", times_single_turn=(count, 1.1)) for count in (5, 10, 20)]
GOOD = (
    through_socket(11_000),
    run("messaging", made("100 callers", times=11), made("100 callers, fsync", times=30)),
    run("completion", made("100 callers", times=12)),
    run("claude_cli", *AGENTS),
    run("agent", made("1 update at a time, 10,000 stored", loop_ms_per_call=(60.0, 0.4))),
    run(
        "conversation",
        made("first refresh, a", call_ms=(900, 100)),
        made("first refresh, b", call_ms=(90, 9)),
    ),
    run(
        "config",
        made("100 sets at once, 20 files of 50 kB", times=20),
        made("get from an unchanged file of 50 kB", call_ms=(50, 0.5)),
    ),
    run(
        "discovery",
        made("20 different searches at once", times=3),
        made("details, examples mined, 2,000 files", times=9),
        made("through the socket, a ping beside it, 2,000 files", ping_p99_ms=(4000.0, 6.0)),
    ),
)


def row(name, *runs):
    """The row of a claim by these runs."""
    return judge.judge(BY_NAME[name], held(*runs))


def test_every_claim_can_hold():
    """With good figures of this machine each row passes, with both sides, memory, machine and time."""
    rows = [judge.judge(claim, held(*GOOD)) for claim in CLAIMS]

    assert [(found.name, found.said) for found in rows if found.verdict != "pass"] == []
    assert all(found.at and found.machine == HERE.machine and found.release == HERE.release for found in rows)
    assert all(None not in (found.memory.sync, found.memory.candidate, found.measured) for found in rows)


def test_nothing_passes_without_a_measurement_of_this_machine():
    """The same figures of another machine or another release are not measured, and say whose they are."""
    for place, said in ((ELSEWHERE, "another machine"), (replace(HERE, release="0.0.1"), "release 0.0.1")):
        rows = [judge.judge(claim, held(*(replace(one, origin=place) for one in GOOD))) for claim in CLAIMS]

        assert {found.verdict for found in rows} == {"not measured"}
        assert all(said in found.said and found.measured is None for found in rows)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_that_does_not_hold_says_so(claim):
    """Just below the bar is a fail, at the bar a pass, and the figure stands beside it."""
    bar = claim.bar

    def verdict(factor):
        if isinstance(bar, AtMost):
            pair = (9.0, bar.most / factor)
        else:
            pair = (1.0, bar.least * factor) if bar.of in judge.FASTER else (bar.least * factor, 1.0)
        return judge.judge(claim, held(*runs_of(claim, pair)))

    assert (verdict(1.0).verdict, verdict(0.9).verdict) == ("pass", "fail")
    assert verdict(0.9).said


def runs_of(claim, pair):
    """Runs with one case for each pattern of the claim, with this figure on both sides."""
    figure = claim.bar.of
    if claim.component == "socket":
        stages = [
            {"name": claim.cases[0], "stage": side, figure: value}
            for side, value in zip(("sync", "async"), pair, strict=True)
        ]
        return [run("socket", *stages)]
    own = ("throughput_per_s", "loop_stall_max_less_idle_ms")
    cases = [
        {
            "name": name.replace("*", "x"),
            **{side: {figure: value} for side, value in zip(("sync", "async"), pair, strict=True)},
        }
        if figure in own
        else {"name": name.replace("*", "x"), "more": {figure: {"sync": pair[0], "async": pair[1]}}}
        for name in claim.cases
    ]
    return [run(claim.component, *cases)]


def test_the_worst_case_counts():
    """A claim about all conversations fails with one kind of them, and names it."""
    found = row(
        "cache refresh",
        run(
            "conversation",
            made("first refresh, a", call_ms=(90, 9)),
            made("first refresh, b", call_ms=(40, 10)),
        ),
    )

    assert (found.verdict, found.measured) == ("fail", 4)
    assert (
        found.said
        == "4×: sync 40\N{NO-BREAK SPACE}ms, async 10\N{NO-BREAK SPACE}ms (first refresh, b, the worst of 2)"
    )


@pytest.mark.parametrize(
    ("name", "runs", "said"),
    [
        ("token logging", [], "no figures are kept; ksi-migrate bench completion measures it"),
        ("message throughput", [], "ksi-migrate bench messaging --socket measures it"),
        ("message throughput", [run("socket", through_socket(9).cases[0])], "no figures are kept"),
        ("concurrent agents", [run("claude_cli", *AGENTS[:2])], "no figures are kept"),
        ("cache refresh", [run("conversation", made("first refresh, a"))], "first refresh, a has no call_ms"),
        ("agent identity", [run("agent", made("1 update at a time, 10,000 stored", loop_ms_per_call=(1, 0)))],
         "has no loop_ms_per_call"),
        ("message throughput", [run("socket", *({"name": "message:publish, pipelined", "stage": stage}
                                                for stage in ("sync", "async")))], "has no publishes"),
    ],
)  # fmt: skip
def test_what_is_missing_is_not_measured(name, runs, said):
    """No run, one stage, one case of three, no such figure, nothing to divide by: all say what is missing."""
    found = row(name, *runs)

    assert (found.verdict, found.measured) == ("not measured", None)
    assert said in found.said


def test_no_stall_at_all_passes():
    """Nothing over the idle process is the best there is."""
    still = {"name": "warm", "async": {"loop_stall_max_less_idle_ms": 0.0}}

    assert row("discovery does not block", run("discovery", still)).verdict == "pass"


def keep(root, *runs):
    """These runs in the evidence of a root."""
    for one in runs:
        measured._store(root / "var/migrate/evidence", one)


@pytest.mark.parametrize(
    ("runs", "code"),
    [((), 5), (GOOD, 0), ((through_socket(2000),), 1), ((*GOOD[1:], through_socket(2000)), 1)],
)
def test_exit_codes(tmp_path, runs, code):
    """5 without any figure, 0 when all that was measured holds, 1 when anything does not."""
    keep(tmp_path, *runs)
    before = sorted(tmp_path.rglob("*"))
    ended = migrate("report", "--json", "--root", tmp_path)

    assert (ended.code, ended.document["ok"]) == (code, code == 0)
    found = ended.document
    assert found["passed"] + found["failed"] + found["not_measured"] == len(found["rows"])
    assert sorted(tmp_path.rglob("*")) == before


def test_rows_stand_in_the_order_of_the_analysis(tmp_path):
    """Success metrics first, then the impact table; every metric of the analysis has its row."""
    found = success.run(tmp_path)

    sources = [one.source for one in found.rows]
    assert sources == sorted(sources, reverse=True)
    assert [one.name for one in found.rows if one.source == "success metrics"] == [
        "message throughput",
        "cache refresh time",
        "concurrent agents",
        "discovery does not block",
        "a ping beside discovery",
        "race conditions",
        "file corruption",
        "error handling",
        "test coverage",
    ]
    assert found.exit_code is Exit.INCONCLUSIVE


def test_markdown_and_tables(tmp_path, monkeypatch):
    """Both show verdict, figures, memory and machine of each row."""
    monkeypatch.setenv("COLUMNS", "200")
    keep(tmp_path, *GOOD)
    marked, people = (migrate("report", *words, "--root", tmp_path).out for words in (["--markdown"], []))

    assert "| message throughput | ✓ pass | 10 times | 11×: sync 1,000/s, async 11,000/s" in marked
    assert "50\N{NO-BREAK SPACE}MiB → 50\N{NO-BREAK SPACE}MiB" in marked
    assert HERE.machine in marked
    assert "race conditions | not measured" in marked
    assert "11×: sync 1,000/s, async 11,000/s" in people
    assert "0 failed" in people


def test_page_is_whole_and_needs_nothing_else(tmp_path):
    """One page in the style of the bench report: every row, three charts, nothing from elsewhere."""
    keep(tmp_path, *GOOD[:-1], run("discovery", made("20 different searches at once", times=1.5)))
    path = tmp_path / "report.html"
    ended = migrate("report", "--html", path, "--root", tmp_path)

    text = path.read_text()
    outline, drawn = Outline(text), plots(text)
    assert ended.code == 1
    assert outline.open == []
    assert (outline.count("table"), outline.count("figure"), outline.count("script")) == (2, 3, 0)
    assert drawn["Times better of the claims: message throughput"] == [
        ("claimed", drawn["Times better of the claims: message throughput"][0][1], "10×"),
        ("measured", drawn["Times better of the claims: message throughput"][1][1], "11×"),
    ]
    assert "✗ 12 passed, 1 failed, 5 not measured." in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_page_of_nothing_and_of_hostile_names():
    """Without figures there are no charts; whatever a name holds comes out as text."""
    document = success.SuccessReport(
        (judge.judge(CLAIMS[0], held()),), replace(HERE, node="<script>")
    ).document()
    document["rows"][0]["name"] = "<script>alert(1)</script>"
    outline = Outline(success_page.render(document))

    assert (outline.count("figure"), outline.count("script"), outline.open) == (0, 0, [])


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    """The error names the path of --html."""
    ended = migrate("report", "--html", tmp_path / "none/report.html", "--json", "--root", tmp_path)

    assert (ended.code, ended.document["error"]["code"]) == (4, "refused")
    assert "none" in ended.document["error"]["message"]


def test_bars_are_the_least_that_was_claimed():
    """A range such as 10 to 100 times is held against its lower end."""
    bars = {claim.name: claim.bar for claim in CLAIMS}

    assert bars["message throughput"] == Times("publishes_per_s", 10)
    assert bars["cache refresh time"] == Times("call_ms", 2)
    assert bars["agent identity"] == Times("loop_ms_per_call", 50)
    assert bars["agent identity blocks"] == AtMost("loop_ms_per_call", 1, "ms")
