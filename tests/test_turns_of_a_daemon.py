"""A real daemon with turns under way: killed, stopped with deaf commands, and flipped under load."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.daemon import PATIENCE, lines_of, running, write_flags
from tests.standin import journal_of, place

pytestmark = pytest.mark.unmeasured
ENDS = ("completion:result", "completion:error", "completion:cancelled")
pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")


def marked(root):
    """Living processes that run below this root's sandbox."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(root / "var/sandbox") in os.readlink(entry / "cwd"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def until(holds, daemon):
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.02)


@pytest.fixture
def root(tmp_path):
    """A root with everything at async."""
    root = tmp_path / "root"
    root.mkdir()
    write_flags(root, **dict.fromkeys(("messaging", "completion", "claude_cli", "agent"), "async"))
    return root


def test_a_killed_daemons_turns_are_ended_at_the_next_start(root, tmp_path):
    """With their tools in sessions of their own; what was acknowledged as a result is in the logs once."""
    claude = place(tmp_path / "bin/claude", orders="[[tool 30]]")
    with running(root, KSI_CLAUDE_BIN=str(claude)) as daemon:
        for number in range(5):
            daemon.ask("completion:async", prompt="go", request_id=str(number))
        until(lambda: len(marked(root)) >= 10, daemon)
        daemon.kill()
    left = len(marked(root))
    with running(root, KSI_CLAUDE_BIN=str(claude)) as daemon:
        until(lambda: not marked(root), daemon)

    assert left >= 5


def test_a_stop_does_not_wait_for_commands_that_are_deaf(root, tmp_path):
    """Twenty that ignore SIGTERM: the daemon ends within 5 s, with exit code 0, and nothing is left."""
    claude = place(tmp_path / "bin/claude", orders="[[deaf]] [[wait 30]]")
    with running(root, KSI_CLAUDE_BIN=str(claude), KSI_CLAUDE_PARALLEL="20") as daemon, daemon.wire() as wire:
        for number in range(20):
            daemon.ask("completion:async", prompt="go", request_id=str(number))
        until(lambda: len(marked(root)) >= 20, daemon)
        began = time.monotonic()
        code = daemon.stop()
        took = time.monotonic() - began
        frames = wire.rest()

    told = {frame["data"]["request_id"]: frame["data"]["code"] for frame in frames if frame["event"] in ENDS}
    assert (code, marked(root)) == (0, [])
    assert told == {str(number): "shutting_down" for number in range(20)}
    assert took < 5.0


@pytest.mark.soak
def test_flips_and_cancels_under_turns_lose_nothing(root, tmp_path, count, seed):
    """Each request comes to one end; a result is in its session's log once; no session overlaps itself."""
    chance, requests = random.Random(seed), count(60, 600)
    journal = tmp_path / "turns.jsonl"
    claude = place(tmp_path / "bin/claude", orders="[[wait 0.02]]", journal=journal)
    with running(root, KSI_CLAUDE_BIN=str(claude)) as daemon, daemon.wire() as wire:
        for number in range(requests):
            daemon.ask(
                "completion:async", prompt="go", request_id=str(number), agent_id=f"a{chance.randrange(10)}"
            )
            if chance.random() < 0.2:
                daemon.ask("completion:cancel", request_id=str(chance.randrange(number + 1)))
            if number % 15 == 0:
                write_flags(
                    root,
                    **{name: chance.choice(("sync", "async")) for name in ("claude_cli", "completion")},
                    messaging="async",
                    agent="async",
                )
        until(lambda: sum(daemon.ask("completion:status")[key] for key in ("queued", "active")) == 0, daemon)
        code = daemon.stop(signal.SIGTERM)
        frames = wire.rest()

    ends = Counter(frame["data"]["request_id"] for frame in frames if frame["event"] in ENDS)
    results = {frame["data"]["request_id"] for frame in frames if frame["event"] == "completion:result"}
    errors = [frame["data"] for frame in frames if frame["event"] == "completion:error"]
    logs = [log for log in (root / "var/logs/responses").glob("*.jsonl") if log.name != "message_bus.jsonl"]
    written = Counter(line["ksi"]["request_id"] for log in logs for line in lines_of(log))
    used = Counter(line["request_id"] for line in lines_of(root / "var/logs/daemon/tool_usage.jsonl"))
    assert (code, errors) == (0, []), json.dumps(errors[:3])
    assert ends == dict.fromkeys(map(str, range(requests)), 1)
    assert written == used == dict.fromkeys(results, 1)
    assert overlaps(journal_of(journal)) == 0
    assert marked(root) == []


def overlaps(records):
    """How often a turn of a session began while another one of it was under way, killed ones aside."""
    killed = {record["pid"] for record in records if record["at"] == "begin"} - {
        record["pid"] for record in records if record["at"] == "end"
    }
    under_way: Counter[str] = Counter()
    session_of, found = {}, 0
    for record in sorted(records, key=lambda record: record["time"]):
        if record["pid"] in killed:
            continue
        if record["at"] == "begin":
            session = session_of[record["pid"]] = record["session"]
            found += under_way[session] > 0
            under_way[session] += 1
        elif record["pid"] in session_of:  # one that is ended before it begins says only that
            under_way[session_of[record["pid"]]] -= 1
    return found
