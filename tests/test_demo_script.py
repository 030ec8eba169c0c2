"""The demo's script: which acts it plays, and that nothing which goes wrong passes for done."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
from typing import TYPE_CHECKING, cast

import pytest

from ksi_migrate import demo_script
from ksi_migrate.demo_command import StepFailed
from ksi_migrate.demo_frame import Figures
from ksi_migrate.demo_meter import Sample
from ksi_migrate.demo_scratch import scratch
from ksi_migrate.demo_script import FAST, Script, Steps

if TYPE_CHECKING:
    from ksi_migrate.demo_meter import Meter


class Ended:
    """A process that is over, with that exit code, or that never ends."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def wait(self, timeout: float) -> int:
        """As `Popen.wait`."""
        if self.code is None:
            raise subprocess.TimeoutExpired("daemon", timeout)
        return self.code


class Still:
    """A meter of a daemon that never shows a change."""

    def say(self, phase: str, note: str = "") -> None:
        """Nothing."""

    async def next_sample(self):
        """The same again and again."""
        await asyncio.sleep(0.01)
        return Sample(0.0, 0, (), {}, {})

    async def measure(self, seconds: float):
        """Without figures, as of a daemon that is gone."""
        return Figures({}, "", seconds, 0.0, None, None, None)


@pytest.fixture
def still():
    """A script whose meter never sees a change."""
    with scratch() as place:
        script = Script(place, Steps(), FAST)
        script._meter = cast("Meter", Still())
        yield script


@pytest.mark.parametrize(
    ("code", "told"), [(None, "still runs 10 s after its stop"), (1, "ended with exit code 1")]
)
async def test_a_daemon_that_does_not_end_well_is_a_problem(still, code, told):
    """Its stop is only good when the process is over with exit code 0."""
    await still.stop(Ended(code))

    [problem] = still.steps.problems
    assert told in problem


async def test_a_change_that_the_daemon_does_not_show_is_a_problem(still, monkeypatch):
    """Waiting ends; a change that its command did not see in force, and missing figures, fail a step too."""
    monkeypatch.setattr(demo_script, "SETTLE_S", 0.1)

    with pytest.raises(StepFailed, match="does not say durability os"):
        await still._measure("before", "os")
    with pytest.raises(StepFailed, match="recorded but is not in force"):
        await still._flip("rollback", "sync", ("messaging",))
    monkeypatch.setattr(still, "_until", lambda *_: asyncio.sleep(0))
    with pytest.raises(StepFailed, match="no figures"):
        await still._measure("before", "os")

    assert len(still.steps.problems) == 3


async def test_the_long_demo_runs_parity_by_itself_too(still, monkeypatch):
    """Each phase goes through plan, parity and enable; then one component goes down and up again."""
    done: list[tuple] = []

    def noted(name: str):
        async def act(*args: object) -> None:
            done.append((name, *args))

        return act

    async def set_until(_socket, over):
        await over.wait()
        return 7

    monkeypatch.setattr(still.work, "set_until", set_until)
    for name in ("_measure", "_ask", "_flip", "_let_agents_work", "_work_on_files"):
        monkeypatch.setattr(still, name, noted(name))
    monkeypatch.setattr(still, "tempo", dataclasses.replace(FAST, parity_apart=True, forced=()))

    await still.play(still._meter)

    week, second, third = ("messaging", "completion"), ("claude_cli", "agent"), ("conversation", "config")
    assert done[4:-4] == [
        ("_ask", "plan", "week 1", "plan", "--phase", "1"),
        ("_ask", "parity", "both sides of messaging, completion", "parity", *week),
        ("_flip", "enable", "async", week, "--yes"),
        ("_ask", "plan", "week 2", "plan", "--phase", "2"),
        ("_ask", "parity", "both sides of claude_cli, agent", "parity", *second),
        ("_flip", "enable", "async", second, "--yes"),
        ("_ask", "plan", "week 3", "plan", "--phase", "3"),
        ("_ask", "parity", "both sides of conversation, config", "parity", *third),
        ("_flip", "enable", "async", third, "--yes"),
        ("_ask", "plan", "week 4", "plan", "--phase", "4"),
        ("_ask", "parity", "both sides of discovery", "parity", "discovery"),
        ("_flip", "enable", "async", ("discovery",), "--yes"),
        ("_flip", "rollback", "sync", ("messaging",)),
        ("_flip", "enable", "async", ("messaging",), "--yes"),
    ]
    assert [step.detail for step in still.steps.done] == ["7 keys set meanwhile"]
    assert done[:4] + done[-4:] == [
        ("_measure", "before_fsync", "fsync"),
        ("_measure", "before", "os"),
        ("_let_agents_work", "before"),
        ("_work_on_files", "before"),
        ("_measure", "after_fsync", "fsync"),
        ("_measure", "after", "os"),
        ("_let_agents_work", "after"),
        ("_work_on_files", "after"),
    ]


async def test_a_set_that_fails_during_a_flip_is_a_problem(still, monkeypatch):
    """The flip itself ends first; one that fails is what is told, whatever became of the sets."""

    async def refused(_socket, _over):
        raise StepFailed("config:set: no room")

    async def flipped(*, well):
        await asyncio.sleep(0)
        if not well:
            raise StepFailed("not in force")

    monkeypatch.setattr(still.work, "set_until", refused)

    with pytest.raises(StepFailed, match="no room"):
        await still._while_files_change(("config",), flipped(well=True))
    with pytest.raises(StepFailed, match="not in force"):
        await still._while_files_change(("config",), flipped(well=False))
    assert still.steps.problems == ["sets during the flip: config:set: no room"]


def test_what_a_command_found_is_told_in_its_step():
    """Of a plan the state and the closed gates, of parity the cases and mismatches of each component."""
    gates = [
        {"name": "built", "open": True, "why": "yes"},
        {"name": "parity", "open": False, "why": "not run"},
    ]
    plan = {"phases": [{"phase": 1, "state": "next", "gates": gates}]}
    parity = {"components": [{"name": "messaging", "cases": 7, "mismatches": [{}]}]}

    assert list(demo_script.TOLD["plan"](plan)) == ["week 1 is next", "parity: not run"]
    assert list(demo_script.TOLD["parity"](parity)) == ["messaging 7 cases, 1 mismatches"]
