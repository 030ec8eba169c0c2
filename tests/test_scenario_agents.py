"""Twenty agents at once, through a rollback, another enable and a stop: nothing is lost, nobody is left."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.daemon import PATIENCE, lines_of, running, write_flags
from tests.operate import migrate_apart
from tests.standin import journal_of, place

pytestmark = pytest.mark.unmeasured
AGENTS = 20
TURN_S = 0.15
ROOMS = ("messaging", "completion", "claude_cli", "agent")
ALL_ASYNC = dict.fromkeys(ROOMS, "async")
ENDS = ("completion:result", "completion:error", "completion:cancelled")


class Frames(threading.Thread):
    """A client that only listens: every frame, until the daemon hangs up."""

    def __init__(self, daemon):
        super().__init__(name="frames", daemon=True)
        self._wire = daemon.wire(timeout=PATIENCE)
        self.all: list[dict] = []

    def run(self):
        """Keep what comes."""
        self.all.extend(iter(self._wire.frame, None))
        self._wire.close()

    def ended(self, *events):
        """The data of each request that came to such an end, by request."""
        return {frame["data"]["request_id"]: frame["data"] for frame in self.all if frame["event"] in events}


def until(holds, daemon):
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, daemon.log()
        time.sleep(0.02)


def in_force(daemon, stage):
    """Whether the daemon has settled with both rooms of week 2 at that stage."""
    status = daemon.ask("migration:status")
    stages = {row["name"]: row["effective"] for row in status["components"]}
    return status["settled"] and stages["claude_cli"] == stages["agent"] == stage


def descendants_of(root):
    """Processes that carry this root's mark or run below its sandbox."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(root / "var/sandbox") in os.readlink(entry / "cwd"):
                    found.append((entry.name, (entry / "cmdline").read_bytes()))
            except OSError:
                continue
    return found


def most_of_one_session(records):
    """How many turns of one session were under way at the same time, at the most."""
    most, session_of = 0, {}
    under_way: Counter[str] = Counter()
    for record in sorted(records, key=lambda record: record["time"]):
        if record["at"] == "begin":
            session = session_of[record["pid"]] = record["session"]
            under_way[session] += 1
            most = max(most, under_way[session])
        else:
            under_way[session_of[record["pid"]]] -= 1
    return most


def names():
    """The agents."""
    return [f"agent-{number:02}" for number in range(AGENTS)]


def spawn_all(daemon, listening):
    """Everybody takes a first turn; their requests."""
    spawned = [daemon.ask("agent:spawn", agent_id=name, prompt=f"I am {name}") for name in names()]
    assert [reply["status"] for reply in spawned] == ["created"] * AGENTS
    until(lambda: len(listening.ended(*ENDS)) == AGENTS, daemon)
    return [reply["request_id"] for reply in spawned]


def talk(daemon, number):
    """Direct messages, a broadcast to some, a change of each speaker; the requests that they became."""
    requests = []
    for here, there in ((0, 1), (2, 3)):
        sender, to = names()[here], names()[there]
        message = {"content": f"round {number} from {sender}"}
        sent = daemon.ask("agent:send_message", agent_id=to, sender=sender, message=message)
        assert sent["status"] == "sent"
        requests.append(sent["request_id"])
        identity = {"round": number, "speaks": True}
        assert daemon.ask("agent:create_identity", agent_id=sender, identity=identity)["status"] == "created"
    silent = names()[4:]
    told = daemon.ask("agent:broadcast", message={"content": f"all, {number}"}, exclude_agents=silent)
    assert sorted(told["agents"]) == names()[:4]
    return requests


@pytest.mark.timeout(180)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_many_agents_through_rollback_enable_and_stop(tmp_path):
    """Each acknowledged thing is on disk once; no two turns of a session overlapped; no process is left."""
    root, journal = tmp_path / "root", tmp_path / "turns.jsonl"
    claude = place(tmp_path / "bin" / "claude", orders=f"[[wait {TURN_S}]]", journal=journal)
    root.mkdir()
    write_flags(root, **ALL_ASYNC)
    with running(root, KSI_CLAUDE_BIN=str(claude), KSI_CLAUDE_PARALLEL=str(AGENTS)) as daemon:
        listening = Frames(daemon)
        listening.start()
        asked = spawn_all(daemon, listening)
        asked += talk(daemon, 1)
        rolled_back = migrate_apart("rollback", "--phase", 2, "--root", root, "--json")
        asked += talk(daemon, 2)
        until(lambda: in_force(daemon, "sync"), daemon)
        write_flags(root, **ALL_ASYNC)
        until(lambda: in_force(daemon, "async"), daemon)
        asked += talk(daemon, 3)
        until(lambda: set(asked) <= listening.ended(*ENDS).keys(), daemon)
        late = [
            daemon.ask("completion:async", prompt="once more", agent_id=name)["request_id"]
            for name in names()
        ]
        code = daemon.stop()
        listening.join(PATIENCE)

    assert (rolled_back.code, code) == (0, 0), daemon.log()
    ends = Counter(frame["data"]["request_id"] for frame in listening.all if frame["event"] in ENDS)
    assert {request: ends[request] for request in (*asked, *late)} == dict.fromkeys((*asked, *late), 1)
    results = listening.ended("completion:result")
    assert set(asked) <= results.keys()
    assert written(root) == dict.fromkeys(results, 1)
    assert {
        listening.ended("completion:error")[request]["code"] for request in late if request not in results
    } <= {"shutting_down"}
    identities = json.loads((root / "var/db/identities.json").read_bytes())
    assert {name: identity["round"] for name, identity in identities.items()} == {
        names()[0]: 3,
        names()[2]: 3,
    }
    assert most_of_one_session(journal_of(journal)) == 1
    assert descendants_of(root) == []
    said = [record for record in daemon.bus() if record["type"] == "COMPLETION_RESULT"]
    assert Counter(record["request_id"] for record in said) >= Counter(asked)


def written(root):
    """How often each request's answer stands in a session's log."""
    logs = (root / "var/logs/responses").glob("*.jsonl")
    lines = (line for log in logs if log.name != "message_bus.jsonl" for line in lines_of(log))
    return Counter(line["ksi"]["request_id"] for line in lines)
