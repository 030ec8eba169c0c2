"""Through the socket: real daemons, a real load, a real ping, and what comes of one that breaks off."""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ksi_migrate import bench_daemon, bench_load, bench_ping, bench_socket
from ksi_migrate.bench_daemon import DaemonFailed, running
from ksi_migrate.bench_load import Outcome, Stream, drain, drive
from ksi_migrate.bench_ping import Pings
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_report import Machine, Report
from ksi_migrate.bench_socket import LoadFailed, SocketRound, case_of, measure, one_round
from ksi_migrate.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def server(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A socket whose first client `answer` serves in a thread, and is then hung up on."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            answer(client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield str(path)
    finally:
        thread.join()
        listener.close()


def wait(done: threading.Event) -> None:
    """Keep a client waiting."""
    assert done.wait(10)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a second instead of seconds."""
    monkeypatch.setattr(bench_socket, "WARM_S", 0.1)
    monkeypatch.setattr(bench_socket, "SECONDS", 0.3)


def test_both_stages_are_measured_and_leave_nothing(tmp_path: Path, short: None):
    """Every acknowledged publish is in the log, pings were answered meanwhile, and the scratch is empty."""
    told: list[str] = []

    cases = measure(tmp_path, 1, told.append)

    assert [case.stage for case in cases] == ["async", "sync"]
    assert told == ["through the socket: all at async", "through the socket: all at sync"]
    assert all(case.publishes_per_s > 100 for case in cases)
    assert cases[0].times_original == cases[0].publishes_per_s / 800
    assert cases[0].pings > 0
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_lacks_an_acknowledged_publish_is_a_finding(tmp_path: Path, short: None, monkeypatch):
    """The log is compared with what the load generator saw acknowledged."""
    load = bench_socket._load

    def more(daemon: bench_daemon.Running) -> tuple[Outcome, Pings]:
        outcome, pings = load(daemon)
        outcome.acknowledged[0] += 1
        return outcome, pings

    monkeypatch.setattr(bench_socket, "_load", more)

    with pytest.raises(Broken, match="were acknowledged"):
        one_round(tmp_path / "root", "async")


def test_a_wrong_reply_is_a_finding(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch):
    """What the load generator says is wrong with a reply ends the run."""
    outcome = Outcome(1, 1.0, [1], "reply 0 is {}")
    monkeypatch.setattr(bench_socket, "_load", lambda _daemon: (outcome, Pings(None, None, 0)))

    with pytest.raises(Broken, match=r"reply 0 is \{\}"):
        one_round(tmp_path / "root", "sync")


def test_medians_leave_out_rounds_without_pings():
    """A round in which no ping was answered has no p99; if none has, there is none."""
    some = [SocketRound(1000.0, Pings(1.0, 5.0, 10)), SocketRound(3000.0, Pings(None, None, 0))]

    case, silent = case_of("async", some), case_of("sync", some[1:])

    assert (case.publishes_per_s, case.publishes_max, case.ping_p99_ms, case.pings) == (2000, 3000, 5.0, 10)
    assert (silent.ping_p50_ms, silent.ping_p99_ms) == (None, None)
    assert silent.document()["original_ping_p99_ms"] == 270


@pytest.mark.parametrize(("pings", "code"), [(99, Exit.INCONCLUSIVE), (100, Exit.DONE)])
def test_few_pings_are_inconclusive(pings: int, code: Exit):
    """Below a hundred there is no 99th percentile."""
    case = case_of("async", [SocketRound(1000.0, Pings(1.0, 5.0, pings))])

    found = Report((), Machine("3.11", "Linux", 2, "now", 0.1), (case,))

    assert found.exit_code is code


def test_a_daemon_that_does_not_start_is_quoted(tmp_path: Path):
    """What it wrote is in the hint."""
    with (
        pytest.raises(DaemonFailed, match="did not start") as raised,
        running(tmp_path / "root", "sync", {"KSI_MAX_LINE_BYTES": "many"}),
    ):
        pass

    assert "KSI_MAX_LINE_BYTES" in raised.value.hint


def test_a_daemon_at_another_stage_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Figures of a stage that is not in force would be lies."""
    text = bench_daemon.flags_text("sync")
    monkeypatch.setattr(bench_daemon, "flags_text", lambda _stage: text)

    with pytest.raises(DaemonFailed, match="in force, not async"), running(tmp_path / "root", "async"):
        pass


def test_a_daemon_that_hangs_or_ends_badly_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that does not end is killed, and its exit code is not 0."""
    monkeypatch.setattr(bench_daemon, "STOPS_S", 0.3)
    deaf = "import signal; signal.signal = lambda *_: None; signal.pthread_sigmask(0, {15}); "
    monkeypatch.setattr(bench_daemon, "RUN", deaf + bench_daemon.RUN)

    with pytest.raises(DaemonFailed, match="exit code -9"), running(tmp_path / "root", "sync"):
        pass


def test_a_child_that_breaks_off_is_quoted():
    """Its own words are in the hint, whether it was waited for or asked for its last line."""
    with bench_socket.Child("bench_ping", "/nowhere", "0") as child:
        with pytest.raises(LoadFailed) as raised:
            child.hear("ready")
        assert "FileNotFoundError" in raised.value.hint

    with bench_socket.Child("bench_load", "{}") as child, pytest.raises(LoadFailed, match="bench_load"):
        child.last()


def test_lines_that_come_at_once_are_all_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last line is given although it was read together with the one before."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nprintf 'over\\nlast\\n'\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))

    with bench_socket.Child("bench_load") as child:
        child.hear("over")
        assert child.last() == "last\n"


def test_the_load_says_which_reply_is_wrong(tmp_path: Path):
    """An error, or a reply out of its place, is found after the time that counts."""

    def answer(client: socket.socket) -> None:
        for number in range(2 * bench_load.BLOCK):
            error = {"error": "full"} if number == 40 else {"status": "published"}
            client.sendall(json.dumps({"data": error, "correlation_id": number}).encode() + b"\n")
        while client.recv(1 << 16):
            pass

    with server(tmp_path / "s", answer) as path:
        stream = Stream(path, 0, 2 * bench_load.BLOCK)
        publishes, seconds = drive([stream], 0.0, 10.0)
        drain([stream])
        stream.socket.close()

    assert stream.acknowledged == 2 * bench_load.BLOCK
    assert 0 <= publishes <= stream.acknowledged
    assert seconds < 10
    assert (stream.wrong() or "").startswith("reply 40 is")


def test_a_daemon_that_hangs_up_or_falls_silent_ends_the_load(tmp_path: Path, monkeypatch):
    """The generator never waits for ever."""
    monkeypatch.setattr(bench_load, "PATIENCE_MS", 50)
    done = threading.Event()

    with server(tmp_path / "s", lambda client: None) as path:
        gone = Stream(path, 0, bench_load.BLOCK)
        gone.send(more=False)
        with pytest.raises(ConnectionError):
            bench_load._turn(*bench_load._poll([gone]), more=False)
        gone.socket.close()
    with server(tmp_path / "t", lambda client: wait(done)) as path:
        silent = Stream(path, 0, bench_load.BLOCK)
        silent.send(more=True)
        with pytest.raises(TimeoutError, match="answered nothing"):
            drain([silent])
        done.set()
        silent.socket.close()


def test_a_reader_that_is_slow_gets_the_rest_later(tmp_path: Path):
    """What the socket does not take at once is sent when there is room, and nothing twice."""
    go, taken = threading.Event(), bytearray()

    def answer(client: socket.socket) -> None:
        wait(go)
        while piece := client.recv(1 << 16):
            taken.extend(piece)

    with server(tmp_path / "s", answer) as path:
        stream = Stream(path, 0, bench_load.BLOCK)
        stream._blocks = large = [block * 100 for block in stream._blocks]
        stream.send(more=True)
        blocked = stream.events & select.POLLOUT
        go.set()
        while stream.events & select.POLLOUT:
            bench_load._turn(*bench_load._poll([stream]), more=True)
        stream.socket.close()

    assert blocked
    assert bytes(taken) == large[0]


def test_a_ping_waits_for_its_whole_reply(tmp_path: Path):
    """A reply in two pieces is one ping; a daemon that hangs up is an error."""

    def answer(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b'{"data":')
        client.sendall(b"{}}\n")
        client.recv(1000)

    with server(tmp_path / "s", answer) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        assert bench_ping.ping(connection) > 0
        with pytest.raises(ConnectionError):
            bench_ping.ping(connection)
