"""`roadmap`: every box of the analysis, ticked by evidence, open for a reason, or not provable."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ksi_migrate import evidence, measured, proofs, roadmap
from ksi_migrate.roadmap_items import WEEKS
from tests.daemon import running
from tests.operate import migrate
from tests.proofs import (
    ELSEWHERE,
    NAMES,
    ago,
    agreed,
    asked,
    at_async,
    flip,
    held,
    lay,
    made,
    run,
    through_socket,
)

EVERYTHING = held(
    *(run(name, made("100 callers"), made("5 agents, 1 s each"), made("first refresh, x")) for name in NAMES),
    through_socket(3000),
    entries=[
        *(flip(name) for name in NAMES),
        asked("rollback", "agent", "sync"),
        flip("agent", "sync"),
        flip("agent", at=ago(days=5)),
    ],
    parity=agreed(),
    names=NAMES,
)


def boxes(found):
    """Every box by its text."""
    return {item.text: roadmap.box_of(item, found) for week in WEEKS for item in week.items}


def test_the_boxes_are_those_of_the_analysis():
    """The analysis's roadmap has seventeen boxes in four weeks, in its order and words."""
    listed = [[item.text for item in week.items if item.part == "roadmap"] for week in WEEKS if week.number]

    assert [len(week) for week in listed] == [5, 4, 4, 4]
    assert listed[0][2:] == [
        "Convert message bus logging to async",
        "Convert token usage logging to async",
        "Performance testing and validation",
    ]
    assert listed[3][-1] == "Documentation updates"


def test_without_evidence_nothing_is_ticked():
    """An empty root proves only what is installed; every open box says what is missing."""
    found = boxes(held())

    assert [text for text, box in found.items() if box.state == "ticked"] == ["Add aiofiles dependency"]
    assert all(one.text for box in found.values() for one in box.found)


def test_with_all_evidence_only_the_unprovable_is_left():
    """Then each box has its figure and its time, and what no tool can prove is still not ticked."""
    found = boxes(EVERYTHING)

    assert [text for text, box in found.items() if box.state == "open"] == []
    assert found["Documentation updates"].state == "not provable"
    told = [one for box in found.values() if box.state == "ticked" for one in box.found]
    assert [one for one in told if not one.at] == []
    assert proofs.Found(ok=True, text="agent at async, generation 7", at=ago(days=5)) in told
    assert any(one.text == "parity passed 20 cases" for one in told)
    assert any("2× the throughput of sync (100 callers)" in one.text for one in told)
    assert any("3× the publishes of sync" in one.text for one in told)
    assert any("went back, in 3.2\N{NO-BREAK SPACE}ms" in one.text for one in told)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ()}, "messaging not acknowledged at any stage"),
        ({"entries": []}, "messaging at async, but the journal has been told to go back, or lacks the flip"),
        ({"entries": [flip("messaging"), asked("rollback", "messaging", "sync")]}, "told to go back"),
        ({"parity": {}}, "parity of messaging: not run"),
        ({"parity": agreed("messaging", ok=False)}, "parity of messaging: the sides differ"),
        ({"parity": agreed("messaging", inconclusive=("no disk",))}, "not all could be compared"),
        ({"parity": agreed("messaging", origin=None)}, "run with release an earlier one"),
    ],
)
def test_a_conversion_needs_stage_journal_and_parity(change, said):
    """Flags that say async prove nothing; each of the three must be there, and of this release."""
    base: dict[str, Any] = {
        "entries": [flip("messaging")],
        "parity": agreed("messaging"),
        "names": ("messaging",),
    }
    good = boxes(held(**base))["Convert message bus logging to async"]
    bad = boxes(held(**{**base, **change}))["Convert message bus logging to async"]

    assert (good.state, bad.state) == ("ticked", "open")
    assert said in bad.found[0].text


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([run("claude_cli", made("5 agents, 1 s each"), place=ELSEWHERE)], "measured on another machine"),
        ([run("claude_cli", made("5 agents, 1 s each", times=0.9))], "0.9× the throughput of sync"),
        ([run("claude_cli", made("20 agents, 1 s each"))], "no figures are kept"),
        ([run("claude_cli", {"name": "5 agents, x", "ratio": None})], "no ratio on record"),
    ],
)
def test_a_bench_box_needs_figures_of_this_machine(runs, said):
    """Figures of another machine, a slower async side and another case leave the box open."""
    box = boxes(held(*runs))["Test multi-agent concurrent scenarios"]

    assert box.state == "open"
    assert said in box.found[0].text


def test_the_socket_needs_both_stages():
    """One stage alone is no comparison, and a slower one no proof."""
    whole = through_socket(900)
    half = run("socket", whole.cases[0])
    text = "Test high-frequency message scenarios"

    assert boxes(held(half))[text].found[0].text == "through the socket: only one stage on record"
    assert boxes(held(whole))[text].state == "open"


def test_an_old_case_counts_until_it_is_measured_again():
    """Of each case the newest run counts, and a run without it does not hide it."""
    old, new = (
        run("messaging", made("100 callers", times=9), made("stall")),
        run("messaging", made("100 callers")),
    )
    found = held(new, old)

    assert [kept.run is old for kept in found.cases("messaging", "stall")] == [True]
    (kept,) = found.cases("messaging", "100 callers")
    assert kept.case["ratio"]["throughput"] == 2


def test_a_package_that_is_gone():
    """What is not installed is not ticked."""
    assert not proofs.Installed("no-such-package").look(held()).ok


def test_a_real_migration_ticks_its_boxes(tmp_path):
    """Daemon, enable and evidence on a real root: the flip is found in state and journal."""
    with running(tmp_path):
        migrate("enable", "messaging", "--force", "--reason", "x", "--root", tmp_path)
    place = tmp_path / "var/migrate"
    evidence.store(place, agreed("messaging").values())
    before = sorted(tmp_path.rglob("*"))
    ended = migrate("roadmap", "--json", "--root", tmp_path)

    items = {item["text"]: item for week in ended.document["weeks"] for item in week["items"]}
    assert ended.code == 0
    assert items["Convert message bus logging to async"]["state"] == "ticked"
    assert items["Convert token usage logging to async"]["state"] == "open"
    assert sorted(tmp_path.rglob("*")) == before


def test_dates_json_and_markdown(tmp_path):
    """--start puts a Monday to Sunday on each week; Markdown has the boxes, the table the same."""
    ended = migrate("roadmap", "--start", "2025-07-14", "--json", "--root", tmp_path)
    marked = migrate("roadmap", "--start", "2025-07-14", "--markdown", "--root", tmp_path)
    people = migrate("roadmap", "--start", "2025-07-14", "--root", tmp_path)

    days = [(week["week"], week["from"], week["to"]) for week in ended.document["weeks"]]
    assert days[0] == (1, "2025-07-14", "2025-07-20")
    assert days[3:] == [(4, "2025-08-04", "2025-08-10"), (None, None, None)]
    assert "## Week 4: Discovery System and Finalization (2025-08-04 to 2025-08-10)" in marked.out
    assert "- [x] Add aiofiles dependency (aiofiles " in marked.out
    assert "- [ ] Documentation updates (no evidence can tick it: " in marked.out
    assert "[x] Add aiofiles dependency" in people.out
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("words", [("--start", "soon"), ("--start", "9999-12-31"), ("--json", "--markdown")])
def test_wrong_usage_is_exit_2(tmp_path, words):
    """A start that is no date or leaves no room, and two documents at once."""
    assert migrate("roadmap", *words, "--root", tmp_path).code == 2


def test_a_journal_that_cannot_be_read_is_a_finding(tmp_path):
    """What is no file in its place is exit 1, and a state that cannot be used proves nothing."""
    place = lay(tmp_path / "var/migrate", [flip("messaging")], ["messaging"])
    (place / "state.json").write_text("{")
    assert json.loads(migrate("roadmap", "--json", "--root", tmp_path).out)["ticked"] == 1
    (place / "journal.jsonl").unlink()
    (place / "journal.jsonl").mkdir()

    ended = migrate("roadmap", "--json", "--root", tmp_path)
    assert (ended.code, ended.document["error"]["code"]) == (1, "journal_unreadable")


def test_evidence_is_read_from_the_root(tmp_path):
    """What bench and parity kept is what the roadmap finds."""
    place = lay(tmp_path / "var/migrate", [flip("messaging")], ["messaging"])
    measured._store(place / "evidence", run("completion", made("100 callers")))
    ended = migrate("roadmap", "--json", "--root", tmp_path)

    items = {item["text"]: item for week in ended.document["weeks"] for item in week["items"]}
    assert items["Test API call logging performance"]["state"] == "ticked"
    assert at_async("messaging")["messaging"].stage == "async"
