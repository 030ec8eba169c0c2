"""Listings and searches of conversations are measured on every column, and no answer is believed unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ksi_migrate import bench_conversations, bench_history, bench_parts
from ksi_migrate.bench_columns import COLUMNS
from ksi_migrate.bench_conversations import Conversations, What, _Proof
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_sessions import Sessions, name_of, prove_listing, prove_search
from ksi_migrate.bench_sizes import Sizes
from ksi_migrate.idle import IdleHeartbeat, idle_heartbeat
from tests.bench_toys3 import CONVERSATIONS, AsyncHistories, SyncHistories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Forgets(SyncHistories):
    """A side that never sees the last line of a conversation."""

    def listing(self, now, limit):
        """One less."""
        found = super().listing(now, limit)
        rows = [{**row, "message_count": row["message_count"] - 1} for row in found["conversations"]]
        return {**found, "conversations": rows}


class Stale(AsyncHistories):
    """A side that lists what it listed first."""

    first: Any = None

    async def listing(self, now, limit):
        """Not again."""
        self.first = self.first or await super().listing(now, 1000)
        return {**self.first, "conversations": self.first["conversations"][:limit]}


class Sleepy(AsyncHistories):
    """A side that finds a word but not where."""

    async def search(self, query):
        """The first line."""
        found = await super().search(query)
        for row in found["results"]:
            row["matches"] = [{**match, "line_num": 0} for match in row["matches"]]
        return found


class Wordy(AsyncHistories):
    """A side that says something that the other one does not."""

    async def listing(self, now, limit):
        """A key more."""
        return {**await super().listing(now, limit), "note": "hello"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of 20 ms."""
    monkeypatch.setattr(bench_conversations, "ROUND_S", 0.02)


@pytest.fixture
async def idle() -> AsyncIterator[IdleHeartbeat]:
    """The heartbeat of an idle process."""
    async with idle_heartbeat() as found:
        yield found


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    """Eight conversations of twelve lines."""
    return Sessions(tmp_path / "root", 8, 12, 150)


def untold(_text: str) -> None:
    """A progress that nobody reads."""


@pytest.mark.parametrize("what", What)
async def test_every_case_has_right_answers_and_figures(sessions, idle, what):
    """All three columns list and find what is there; what a call takes stands beside the floor."""
    told: list[str] = []

    case = await Conversations(CONVERSATIONS, sessions, what).measure(2, idle, told.append)

    assert told == [f"conversation: {what.value}, 8 sessions of 12 lines"] * 2
    assert (case.callers, case.rounds, case.note) == (1, 2, "")
    assert all((case.more["call_ms"][column] or 0) > 0 for column in COLUMNS)
    assert ("floor_ms" in case.more) == (what is What.UNCHANGED)
    assert (case.candidate.calls == 2) == (what in bench_conversations.FRESH)
    assert case.bar.endswith("loop stall of at most 15 ms, p99 2 ms")


async def test_sizes_are_one_case_with_a_point_each(tmp_path, idle):
    """Its own figures are those of the largest; each point has what a call takes on each column."""
    sized = tuple(
        (count, Conversations(CONVERSATIONS, Sessions(tmp_path / str(count), count, 8, 150), What.FIRST))
        for count in (4, 6)
    )
    part = Sizes(sized, "sessions")

    case = await part.measure(1, idle, untold)
    growth = json.loads(json.dumps(case.document()))["growth"]

    assert (part.steps(7), part.area) == (14, CONVERSATIONS)
    assert case.name == "first refresh, 6 sessions of 8 lines, from 4 on"
    assert (growth["across"], [point["at"] for point in growth["points"]]) == ("sessions", [4, 6])
    assert all(point[column] > 0 for point in growth["points"] for column in COLUMNS)


@pytest.mark.parametrize(
    ("what", "sides", "text"),
    [
        (What.FIRST, {"sync": Forgets}, "sync: row 0 of the listing"),
        (What.APPENDED, {"aio": Stale}, "async: row 0 of the listing"),
        (What.RARE, {"aio": Sleepy}, "async: the search found"),
        (What.UNCHANGED, {"aio": Wordy}, "answered differently"),
    ],
)
async def test_a_wrong_answer_is_a_finding(sessions, idle, what, sides, text):
    """Whatever side it comes from: figures for wrong answers are worth nothing."""
    broken = replace(CONVERSATIONS, **sides)

    with pytest.raises(Broken, match=text):
        await Conversations(broken, sessions, what).measure(1, idle, untold)


def test_a_listing_that_is_too_short_is_a_finding(sessions):
    """Also when what it lists is right."""
    sessions.make()
    rows = sessions.rows()

    prove_listing("here", {"conversations": rows, "total": 8}, sessions)
    with pytest.raises(Broken, match="here: 7 of 8 are listed, there are 8"):
        prove_listing("here", {"conversations": rows[1:], "total": 8}, sessions)


def test_a_measured_answer_belongs_to_the_whole():
    """The few rows that were asked for are the first of the many that were proved."""
    proof = _Proof("here")
    proof.beginning("here", {"conversations": [1]}, {"conversations": [1, 2]})

    with pytest.raises(Broken, match="beginning"):
        proof.beginning("here", {"conversations": [2]}, {"conversations": [1, 2]})


def test_the_rare_word_stands_in_three_conversations(sessions):
    """In six lines in all, and a word that is in none is in none."""
    sessions.make()
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sessions.folder.iterdir()}

    assert {name: text.count("Quagga") for name, text in texts.items() if "Quagga" in text} == {
        session: len(lines) for session, lines in sessions.matches()
    }
    assert [len(lines) for _, lines in sessions.matches()] == [3, 2, 1]
    assert not any("thylacine" in text.lower() for text in texts.values())
    prove_search("here", {"results": []}, [])


def test_lines_have_about_the_size_asked_for(tmp_path):
    """So that 200 conversations of 2,000 lines are 200 MB."""
    sessions = Sessions(tmp_path, 4, 100, 500)
    sessions.make()
    sessions.make()  # a second time does nothing

    assert 45_000 < (sessions.folder / f"{name_of(0)}.jsonl").stat().st_size < 55_000


async def test_what_was_kept_is_forgotten_before_a_first_refresh(sessions):
    """The derived index would make the second one quicker than a first one is."""
    kept = sessions.root / "var/cache/index"
    kept.parent.mkdir(parents=True)
    kept.touch()

    async with bench_history.opened(CONVERSATIONS, "async", sessions, "here"):
        assert kept.exists()
    async with bench_history.opened(CONVERSATIONS, "async", sessions, "here", forget=True):
        assert not kept.exists()


def test_the_room_has_its_own_cases(tmp_path):
    """Short and long conversations, and two that grow."""
    names = [part.name for part in bench_parts.parts([CONVERSATIONS], tmp_path)]

    assert names == [
        "first refresh, 10,000 sessions of 20 lines",
        "nothing changed, 10,000 sessions of 20 lines",
        "first refresh, 200 sessions of 2,000 lines",
        "first refresh after a restart, 200 sessions of 2,000 lines",
        "nothing changed, 200 sessions of 2,000 lines",
        "one line appended, 200 sessions of 2,000 lines",
        "search, a word in 3 conversations, 200 sessions of 2,000 lines",
        "search, a word in none, 200 sessions of 2,000 lines",
        "first refresh, 2,000 sessions of 20 lines, from 20 on",
        "nothing changed, 2,000 sessions of 20 lines, from 20 on",
    ]
