"""Phase 3 on a running daemon: planned, enabled, used, and rolled back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ksi_daemon import settings
from ksi_daemon.proctable import table
from ksi_migrate import enable, plan, rollback, status
from ksi_migrate.exits import Exit
from ksi_migrate.step import Order
from tests.daemon import PATIENCE, running, write_flags
from tests.test_enable import means

EARLIER = ("messaging", "completion", "claude_cli", "agent")
WEEK_3 = ("conversation", "config")
LINE = {"type": "user", "timestamp": "2025-07-01T09:00:00Z", "content": "hello"}


@pytest.fixture
def root(tmp_path):
    """A root whose earlier weeks are done, with a conversation and a configuration file."""
    write_flags(tmp_path, **dict.fromkeys(EARLIER, "async"))
    log = tmp_path / "var/logs/responses/s-1.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(LINE) + "\n")
    (tmp_path / "ksi_daemon.yaml").write_text("daemon:\n  log_level: INFO\n")
    return tmp_path


def phase_3(root):
    """What `plan` says of it."""
    (found,) = plan.run(settings.load(root), 3).phases
    return found


def in_use(daemon, value):
    """The two rooms answer, and the key is in its file when it was acknowledged."""
    listed = daemon.ask("conversation:list")
    done = daemon.ask("config:set", key="daemon.level", value=value)
    return (
        [row["session_id"] for row in listed["conversations"]],
        done["status"],
        f"level: {value}\n" in Path(done["file_path"]).read_text(),
    )


def workers(pid):
    """The worker processes below the daemon."""
    known, found = {pid}, table().look()
    while more := {one.pid for one in found if one.parent in known and one.alive} - known:
        known |= more
    return known - {pid}


def test_phase_3_goes_up_and_down_on_a_running_daemon(root):
    """`plan` has it as next, `enable` brings it into force, both sides answer alike, `rollback` undoes it."""
    here = settings.load(root)
    with running(root) as daemon:
        before = phase_3(root).state, in_use(daemon, 1)
        raised = enable.run(here, WEEK_3, Order(), means())
        above = phase_3(root).state, in_use(daemon, 2)
        rows = status.run(here).document()["components"]
        shown = {row["name"]: row["effective"] for row in rows if row["name"] in WEEK_3}
        lowered = rollback.run(here, WEEK_3)
        below = phase_3(root).state, in_use(daemon, 3)

    answers = (["s-1"], "set", True)
    assert [raised.exit_code, lowered.exit_code] == [Exit.DONE, Exit.DONE]
    assert [before, above, below] == [("next", answers), ("done", answers), ("next", answers)]
    assert shown == dict.fromkeys(WEEK_3, "async")
    assert [change.name for change in lowered.changes] == ["config", "conversation"]


def test_phase_3_waits_for_the_weeks_before(root):
    """Its gate is closed while an earlier component is at sync, and says which."""
    write_flags(root, **dict.fromkeys(EARLIER[:-1], "async"))
    found = phase_3(root)

    (gate,) = (gate for gate in found.gates if gate.name == "earlier phases")
    assert (found.state, gate.open, gate.why) == ("later", False, "not at async yet: agent")


def test_nothing_is_left_of_the_workers(root):
    """At async there are worker processes, after a rollback none, and none outlives the daemon."""
    write_flags(root, **dict.fromkeys((*EARLIER, *WEEK_3), "async"))
    with running(root) as daemon:
        in_use(daemon, 1)
        there = workers(daemon.pid)
        rollback.run(settings.load(root), WEEK_3)
        end = time.monotonic() + PATIENCE
        while (left := workers(daemon.pid)) and time.monotonic() < end:
            time.sleep(0.02)
    gone = {one.pid for one in table().look() if one.alive}

    assert len(there) >= 3
    assert left == set()
    assert not there & gone
