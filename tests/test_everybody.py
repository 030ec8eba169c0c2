"""All rooms at once under load, with flips, disks full and dead, dying processes: every promise is kept."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ksi_daemon.completion.answers import OPEN_LOGS
from ksi_daemon.registry import BUILT
from ksi_migrate import stalldisk
from tests.command import children_of
from tests.daemon import PATIENCE, lines_of, running, write_flags
from tests.everybody import KINDS, Changer, Pinger, Publisher, Recorder, Setter, Sweeper, Talker
from tests.faults import fill, small_disk
from tests.operate import migrate_apart
from tests.standin import place

NAMES = tuple(area.name for area in BUILT)
ALL_ASYNC = dict.fromkeys(NAMES, "async")
WEEKS = sorted({area.week for area in BUILT})
pytestmark = [
    pytest.mark.soak,
    pytest.mark.unmeasured,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc"),
]


def until(holds, daemon, seconds=PATIENCE):
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, daemon.log()[-3000:]
        time.sleep(0.02)


def settled(daemon, stage=None):
    """Whether every component is where it belongs."""
    status = daemon.ask("migration:status")
    return status["settled"] and (
        stage is None or {row["effective"] for row in status["components"]} == {stage}
    )


def used(daemon):
    """Open files, threads and tasks of a daemon that has nothing to do.

    Logs of sessions are kept open, and are no more than may be: they do not count.
    """
    own = Path(f"/proc/{daemon.pid}")
    tasks = daemon.ask("system:health")["background_tasks"]
    files = list((own / "fd").iterdir())
    logs = [fd for fd in files if is_session_log(fd)]
    assert len(logs) <= OPEN_LOGS
    return {
        "files": len(files) - len(logs),
        "threads": len(list((own / "task").iterdir())),
        "tasks": tasks,
    }


def is_session_log(fd):
    """Whether an open file is one."""
    try:
        path = fd.readlink()
    except FileNotFoundError:  # closed meanwhile
        return False
    return path.parent.name == "responses" and path.name != "message_bus.jsonl"


def resident(daemon):
    """Its memory in MiB."""
    text = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


DEAD_S = 1.5
"""Seconds for which a disk answers nothing, again and again."""


@contextmanager
def dead_now_and_then(scratch):
    """A disk that is dead for `DEAD_S` of each four seconds; a directory where there can be none."""
    if stalldisk.unavailable():
        yield scratch
        return
    with stalldisk.stalling_disk(scratch, hold_ms=1000 * DEAD_S, every_ms=4000) as disk:
        yield disk


class Mischief:
    """What happens meanwhile: flips, dying processes, and for a while a disk without room for identities."""

    def __init__(self, daemon, disk, seed):
        self._daemon = daemon
        self._disk = disk
        self._chance = random.Random(seed)
        self.flips = self.killed = 0

    def go_on(self, seconds):
        """For so long; the disk is full in the second quarter."""
        begun, filler = time.monotonic(), None
        while (now := time.monotonic() - begun) < seconds:
            if filler is None and seconds / 4 < now < seconds / 2:
                filler = fill(self._disk)
            if filler is not None and filler.exists() and now > seconds / 2:
                filler.unlink()
            self._flip()
            if self._chance.random() < 0.3:
                self._kill()
            time.sleep(self._chance.uniform(0.1, 0.4))
        if filler is not None and filler.exists():
            filler.unlink()

    def _flip(self):
        write_flags(self._daemon.root, **{name: self._chance.choice(("sync", "async")) for name in NAMES})
        self.flips += 1

    def _kill(self):
        """A worker process, wherever it belongs; the zygote and commands are left to end by themselves."""
        workers = [
            pid for child in children_of(self._daemon.pid) for pid in children_of(child, zombies=False)
        ]
        if workers:
            try:
                os.kill(self._chance.choice(workers), signal.SIGKILL)
            except ProcessLookupError:
                return
            self.killed += 1


def quiet(daemon, clients):
    """Stop the clients, have everything at async, and wait until nothing more is to be done."""
    for client in clients:
        client.stop()
    assert [f"{one.label}: {text}" for one in clients for text in one.failed] == [], daemon.log()[-2000:]
    write_flags(daemon.root, **ALL_ASYNC)
    until(lambda: settled(daemon, "async"), daemon)
    until(lambda: daemon.ask("completion:status")["active"] == 0, daemon)


def begun(daemon, part, seed):
    """One client of each kind, or two."""
    clients = [
        kind(daemon, f"{part}-{kind.__name__}{number}".lower(), seed) for number, kind in enumerate(KINDS)
    ]
    for client in clients:
        client.start()
    return clients


def at_work(daemon, part, seed, seconds, meanwhile):
    """Clients of every kind while `meanwhile(seconds)` goes on and until each event was asked; then quiet."""
    clients = begun(daemon, part, seed)
    meanwhile(seconds)
    until(lambda: all(one.through for one in clients if type(one) is Sweeper), daemon, 120)
    quiet(daemon, clients)
    return clients


def kept(clients, kind):
    """What each client of a kind was promised."""
    return {one.label: one.kept for one in clients if type(one) is kind}


@pytest.mark.timeout(400)
def test_everybody_at_once(tmp_path, count, seed):
    """What was acknowledged is there once and in order; nothing leaks; the daemon answers all the while.

    When the trouble is over also at once: with everything at async a dead disk holds up its own room only.
    """
    root, seconds = tmp_path / "root", count(8, 90)
    root.mkdir()
    write_flags(root, **ALL_ASYNC)
    (root / "shared.yaml").write_text("{}\n")
    claude = place(tmp_path / "bin/claude", orders="[[wait 0.05]] answer")
    with small_disk(tmp_path) as disk, dead_now_and_then(tmp_path) as dead:
        own: dict[str, Any] = {
            "KSI_IDENTITY_STORAGE_PATH": str(disk / "identities.json"),
            "KSI_DAEMON_LOG_DIR": str(dead),
        }
        with running(root, KSI_CLAUDE_BIN=str(claude), **own) as daemon:
            first = at_work(daemon, "a", seed, count(2, 10), time.sleep)
            before, memory = used(daemon), resident(daemon)
            mischief = Mischief(daemon, disk, seed)
            second = at_work(daemon, "b", seed, seconds, mischief.go_on)
            third = at_work(daemon, "c", seed, count(5, 10), time.sleep)
            until(lambda: all(now <= before[what] for what, now in used(daemon).items()), daemon)
            grown = resident(daemon) - memory
            code = daemon.stop()
        identities = json.loads((disk / "identities.json").read_bytes())
        usage = lines_of(dead / "tool_usage.jsonl")

    clients = first + second + third
    asked, refused = sum(one.asked for one in clients), sum(one.refused for one in clients)
    longest = max(one.longest for one in clients if type(one) is Pinger)
    print(  # noqa: T201 - the result of `make soak`
        f"seed {seed}: {asked} requests, {refused} refused, {mischief.flips} flips, {mischief.killed} killed,"
        f" the longest ping {longest:.2f} s, {grown:+.0f} MiB"
    )
    assert code == 0
    assert mischief.flips > 1.7 * seconds
    assert longest < 10
    assert [f"{one.label}: {one.refused}" for one in first + third if one.refused] == []
    assert max(one.longest for one in third if type(one) is Pinger) < DEAD_S
    assert_kept(daemon, clients, identities, usage)
    assert grown < 150


@pytest.mark.timeout(900)
def test_a_busy_daemon_goes_all_the_way_and_back(tmp_path, count, seed):
    """Week by week up, at once or week by week down again: each step is acknowledged, nothing is lost."""
    root = tmp_path / "root"
    root.mkdir()
    write_flags(root)
    (root / "shared.yaml").write_text("{}\n")
    claude = place(tmp_path / "bin/claude", orders="[[wait 0.05]] answer")
    forced = ("--force", "--reason", "parity has its own tests", "--yes", "--json", "--root", root)
    with running(root, KSI_CLAUDE_BIN=str(claude)) as daemon:
        clients = begun(daemon, "m", seed)
        for number in range(count(1, 20)):
            for week in WEEKS:
                up = migrate_apart("enable", "--phase", week, *forced)
                assert (up.code, up.document["applied"]) == (0, True), up.out + up.err
            assert settled(daemon, "async")
            for down in [("--all",)] if number % 2 else [("--phase", week) for week in reversed(WEEKS)]:
                back = migrate_apart("rollback", *down, "--json", "--root", root)
                assert (back.code, back.document["applied"]) == (0, True), back.out + back.err
            until(lambda: settled(daemon, "sync"), daemon)
        quiet(daemon, clients)
        code = daemon.stop()

    assert code == 0
    identities = json.loads((root / "var/db/identities.json").read_bytes())
    assert_kept(daemon, clients, identities, lines_of(root / "var/logs/daemon/tool_usage.jsonl"))


def assert_kept(daemon, clients, identities, usage):
    """What every client was promised is on disk."""
    assert in_order(daemon.bus(), "from", "n", clients, Publisher)
    records = [line for line in usage if line["event"] == "token_usage"]
    assert in_order(records, "agent_id", "input_tokens", clients, Recorder)
    for changer in (one for one in clients if type(one) is Changer):
        assert identities[changer.label]["n"] in changer.since
    shared = yaml.safe_load((daemon.root / "shared.yaml").read_text())
    for label, numbers in kept(clients, Setter).items():
        assert {f"k{number}" for number in numbers} <= shared[label].keys()
    talkers = [one for one in clients if type(one) is Talker]
    answers = written(daemon.root)
    for talker in talkers:
        for request in talker.queued:
            assert answers[request] == (talker.ends[request] == "completion:result"), request


def in_order(lines, whose, number, clients, kind):
    """Whether each client's acknowledged numbers are there once, in order; refused ones may be there too."""
    found = {
        label: [line[number] for line in lines if line.get(whose) == label] for label in kept(clients, kind)
    }
    for label, promised in kept(clients, kind).items():
        there = found[label]
        assert there == sorted(set(there)), label
        assert set(promised) <= set(there), label
    return True


def written(root):
    """How often each request's answer stands in a session's log."""
    logs = [log for log in (root / "var/logs/responses").glob("*.jsonl") if log.name != "message_bus.jsonl"]
    lines = (line for log in logs for line in lines_of(log) if "ksi" in line)
    return Counter(line["ksi"]["request_id"] for line in lines)
