"""The monitor: it finds the newest session of a directory, and tells it each completion frame."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest

from ksi_daemon import monitor, settings
from ksi_daemon.claude_cli.standin import PROGRAM
from ksi_daemon.monitor import NoSession, newest_session, projects
from tests.daemon import PATIENCE, command, environment, running, write_flags

OLD = "11111111-2222-4333-8444-555555555555"
NEW = "66666666-7777-4888-9999-aaaaaaaaaaaa"


def begin(place, directory, session, at):
    """A session of a directory, written to at that time."""
    name = "".join(char if char.isascii() and char.isalnum() else "-" for char in str(directory))
    path = place / name / f"{session}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    os.utime(path, (at, at))
    return path


def test_the_newest_session_of_a_directory_is_found(tmp_path):
    """By its last write; what is not named by a UUID is no session of its own."""
    directory = tmp_path / "my_project.é"
    begin(tmp_path / "projects", directory, OLD, 2000)
    begin(tmp_path / "projects", directory, NEW, 3000)
    begin(tmp_path / "projects", directory, "agent-1234", 4000)
    begin(tmp_path / "projects", tmp_path / "another", OLD, 5000)

    assert newest_session(directory, tmp_path / "projects") == NEW


def test_a_directory_without_a_session_is_named(tmp_path):
    """With the place in which one was looked for."""
    with pytest.raises(NoSession, match=f"no claude session of {tmp_path} in {tmp_path}/projects/"):
        newest_session(tmp_path, tmp_path / "projects")


def test_a_session_that_vanishes_meanwhile_counts_as_old(tmp_path, monkeypatch):
    """Between the listing and the look at it."""
    path = begin(tmp_path / "projects", tmp_path, OLD, 2000)
    begin(tmp_path / "projects", tmp_path, NEW, 1000)
    real = monitor._written

    def written(one):
        if one == path:
            one.unlink()
        return real(one)

    monkeypatch.setattr(monitor, "_written", written)

    assert newest_session(tmp_path, tmp_path / "projects") == NEW


def test_the_commands_own_setting_says_where_sessions_are(tmp_path, monkeypatch):
    """CLAUDE_CONFIG_DIR, else the home directory."""
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    at_home = projects(tmp_path)
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "elsewhere"))

    assert at_home == tmp_path / ".claude/projects"
    assert projects() == tmp_path / "elsewhere/projects"


@pytest.fixture
def root(tmp_path):
    """A root with a stand-in for the claude command."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    program = root / "bin/claude"
    program.write_bytes(PROGRAM)
    program.chmod(0o700)
    write_flags(root)
    return root


def monitoring(root, directory, tmp_path):
    """The command, in a process of its own."""
    return subprocess.Popen(
        command("monitor", "--root", str(root), "--directory", str(directory)),
        env=environment(CLAUDE_CONFIG_DIR=str(tmp_path / "claude"), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stage", ["sync", "async"])
def test_each_frame_is_passed_on(root, tmp_path, stage):
    """On either side; an injection makes no frame of its own; without the daemon the monitor ends with 3."""
    project = tmp_path / "project"
    project.mkdir()
    begin(tmp_path / "claude/projects", project, OLD, 1000)
    write_flags(root, claude_cli=stage)
    with running(root, KSI_CLAUDE_BIN="bin/claude", KSI_MEASURE_LOOP="true") as daemon:
        monitored = monitoring(root, project, tmp_path)
        wait_for_clients(daemon, 2)
        daemon.ask("completion:async", prompt="hello", request_id="r-1")
        lines = [monitored.stdout.readline() for _ in range(2)]
        begin(tmp_path / "claude/projects", project, NEW, 2000)
        daemon.ask("completion:async", prompt="exit:3", request_id="r-2")
        lines += [monitored.stdout.readline() for _ in range(2)]
        daemon.stop()
        rest, told = monitored.communicate(timeout=PATIENCE)

    events = [line.split(": ")[0] for line in lines]
    assert events == ["completion:progress", "completion:result", "completion:progress", "completion:error"]
    assert all(f": told {OLD}: told" in line for line in lines), lines
    assert (rest, monitored.returncode) == ("", 3)
    assert "hung up" in told


def test_a_failed_injection_looks_for_the_session_anew(root, tmp_path):
    """Six frames are one too many in a minute: that is told, and by then another session is the newest."""
    project = tmp_path / "project"
    project.mkdir()
    begin(tmp_path / "claude/projects", project, OLD, 1000)
    with running(root, KSI_CLAUDE_BIN="bin/claude", KSI_MEASURE_LOOP="true") as daemon:
        found = settings.load(root)
        passed: list[monitor.Passed] = []
        ended = threading.Event()

        def listen():
            for one in monitor.watch(found, project, tmp_path / "claude/projects"):
                passed.append(one)
                if len(passed) == 6:
                    begin(tmp_path / "claude/projects", project, NEW, 2000)
            ended.set()

        thread = threading.Thread(target=listen)
        thread.start()
        wait_for_clients(daemon, 2)
        for number in range(4):
            daemon.ask("completion:async", prompt="hello", request_id=f"r-{number}")
        wait_until(lambda: len(passed) == 8, daemon)
        daemon.stop()
        thread.join(PATIENCE)

    assert [one.ok for one in passed] == [True] * 5 + [False, True, True]
    assert [one.session for one in passed] == [OLD] * 6 + [NEW] * 2
    assert "injections" in passed[5].text
    assert ended.is_set()


def test_without_a_session_it_ends_with_1(root, tmp_path):
    """And says where it looked."""
    with running(root):
        monitored = monitoring(root, tmp_path, tmp_path)
        _, told = monitored.communicate(timeout=PATIENCE)

    assert monitored.returncode == 1
    assert "no claude session" in told


def test_without_a_daemon_it_ends_with_3(root, tmp_path):
    """Nobody could inject anything."""
    begin(tmp_path / "claude/projects", tmp_path, OLD, 1000)
    monitored = monitoring(root, tmp_path, tmp_path)
    _, told = monitored.communicate(timeout=PATIENCE)

    assert monitored.returncode == 3
    assert "no daemon answers" in told


def wait_until(holds, daemon):
    """Until it is so."""
    ended = threading.Event()
    for _ in range(int(PATIENCE / 0.02)):
        if holds():
            return
        ended.wait(0.02)
    raise AssertionError(daemon.log())


def wait_for_clients(daemon, more):
    """Until that many clients are there beside the one that asks."""
    wait_until(lambda: daemon.ask("system:loop").get("connections", 0) > more, daemon)
