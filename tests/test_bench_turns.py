"""Turns of many agents are measured through the whole room, and a wrong answer is caught."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ksi_daemon.claude_cli import AREA
from ksi_daemon.claude_cli.aio import AsyncClaudeCli
from ksi_migrate import bench_turns
from ksi_migrate.bench_columns import COLUMNS
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_room import Unanswered
from ksi_migrate.bench_turns import Turns
from ksi_migrate.idle import IdleHeartbeat, idle_heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CRASHES = "#!/bin/sh\ncat > /dev/null\necho out of order >&2\nexit 3\n"
FORGETS = bench_turns.STAND_IN.replace('"$session"', "00000000-0000-4000-8000-999999999999")


class Forgetful(AsyncClaudeCli):
    """A side that remembers no directory."""

    async def remember(self, session, cwd):
        """Nothing."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that waits a twentieth of a second."""
    monkeypatch.setattr(bench_turns, "WAITS_S", 0.05)


@pytest.fixture
async def idle() -> AsyncIterator[IdleHeartbeat]:
    """The heartbeat of an idle process."""
    async with idle_heartbeat() as found:
        yield found


async def test_sync_takes_the_sum_and_async_the_longest(tmp_path: Path, idle: IdleHeartbeat, monkeypatch):
    """Each column's wall time stands beside that of one turn by itself; each round was told."""
    monkeypatch.setattr(bench_turns, "AGENTS", (1, 4))
    told: list[str] = []

    one, four = [await part.measure(1, idle, told.append) for part in bench_turns.parts(AREA, tmp_path)]
    document = four.document()

    assert told == ["claude_cli: 1 agent, 0.05 s each", "claude_cli: 4 agents, 0.05 s each"]
    assert (four.callers, four.rounds, four.candidate.calls) == (4, 1, 4)
    assert one.more["times_single_turn"]["reference"] == 1.0
    walls = document["more"]["wall_s"]
    assert walls["reference"] >= 0.2 <= walls["sync"]
    assert 0.05 <= walls["async"] < walls["sync"]
    assert document["more"]["commands_cpu_s"]["async"] > 0
    assert list(tmp_path.iterdir()) == []


def test_columns_that_take_the_sum_get_fewer_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The note says so; nothing is noted where all columns have the same rounds."""
    monkeypatch.setattr(bench_turns, "WAITS_S", 1.0)
    rounds = {
        part.agents: (part.rounds("sync", 7), part.steps(7)) for part in bench_turns.parts(AREA, tmp_path)
    }

    notes = [Turns(AREA, tmp_path, agents).note(7) for agents in (1, 5, 20)]

    assert rounds == {1: (3, 3), 5: (2, 3), 10: (1, 3), 20: (1, 3)}
    assert notes[0] == ""
    assert "2 rounds, since each takes 5 s" in notes[1]
    assert "1 round, since each takes 20 s" in notes[2]


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_command_that_crashes_ends_the_run_with_its_own_words(tmp_path, idle, monkeypatch, column):
    """Whatever column it is, the message names it and says what the command said; no scratch is left."""
    monkeypatch.setattr(bench_turns, "STAND_IN", CRASHES)

    with pytest.raises(Unanswered, match=rf"claude_cli, 2 agents, 0.05 s each, {column}: .*out of order"):
        await Turns(AREA, tmp_path / "place", 2).round(column, idle)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", ["sync", "async"])
async def test_an_answer_to_somebody_else_is_a_finding(tmp_path, idle, monkeypatch, column):
    """A turn whose answer names another session proves nothing for its own."""
    monkeypatch.setattr(bench_turns, "STAND_IN", FORGETS)

    with pytest.raises(Broken, match="not its own"):
        await Turns(AREA, tmp_path / "place", 2).round(column, idle)


async def test_a_session_that_is_not_remembered_is_a_finding(tmp_path: Path, idle: IdleHeartbeat):
    """A turn is over when its directory is remembered too."""
    area = replace(AREA, aio=Forgetful)

    with pytest.raises(Broken, match="remembered as"):
        await Turns(area, tmp_path / "place", 2).round("async", idle)
