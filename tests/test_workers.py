"""Worker processes: what comes of a job, whatever becomes of its process or of its caller."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from ksi_daemon import settings, worker, zygote
from ksi_daemon.errors import ComponentBusy, ComponentClosed, IoFailed, NotFound, WorkerFailed
from ksi_daemon.lane import CancelledTooLate
from ksi_daemon.workerlink import WorkerLink, _Frames, _Job
from ksi_daemon.workers import Workers
from tests.guard import loop_guard
from tests.worker_jobs import JOBS


@pytest.fixture
async def workers(tmp_path):
    """Two workers, ended with the test."""
    made = Workers("test", JOBS, settings.load(tmp_path), count=2)
    made.open()
    yield made
    assert await made.close(5)


def alive(pid):
    """Whether there is such a process that is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(true, seconds=5.0):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def begun(workers, path, job="patient", **options):
    """A task with a job that runs until it is stopped."""
    task = asyncio.create_task(workers.run(job, str(path), **options))
    await until(path.exists)
    return task


async def test_a_job_gives_its_result_and_its_words(workers):
    """The words come first, in order; a large result comes whole."""
    words: list[int] = []

    assert await workers.run("add", 1, 2) == 3
    assert await workers.run("count", 1000, told=words.append) == 1000
    assert words == list(range(1000))
    assert await workers.run("large", 3_000_000) == b"x" * 3_000_000


async def test_others_have_their_turn_between_two_words(workers):
    """However many come at once."""
    turns: list[int] = []
    heard: list[int] = []
    looking = True

    def look():
        turns.append(len(heard))
        if looking:
            asyncio.get_running_loop().call_soon(look)

    asyncio.get_running_loop().call_soon(look)
    await workers.run("count", 1000, told=heard.append)
    looking = False

    assert heard == list(range(1000))
    assert max(after - before for before, after in itertools.pairwise(turns)) == 1


async def test_a_word_that_cannot_be_taken_in_ends_its_job(workers):
    """The fault is for the loop to report; the caller is told at once, and the next job has a new process."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, fault: faults.append(fault))

    with pytest.raises(WorkerFailed, match="died"):
        await workers.run("count", 10, told=lambda word: 1 // (word - 3))

    assert isinstance(faults[0]["exception"], ZeroDivisionError)
    assert await workers.run("add", 1, 2) == 3


async def test_the_words_of_a_process_that_died_are_taken_in(workers):
    """All that came before its end."""
    heard: list[int] = []
    with pytest.raises(WorkerFailed):
        await workers.run("count_and_die", 1000, told=heard.append)

    assert heard == list(range(1000))


async def test_a_last_word_that_cannot_be_taken_in_hides_no_end():
    """The caller is told, and a close finds the process gone."""
    link = WorkerLink("test")
    job, gone = asyncio.create_task(link.outcome(1)), asyncio.get_running_loop().create_future()
    link._job, link._gone = _Job(lambda word: 1 // word), gone
    link._waiting.extend(map(memoryview, map(pickle.dumps, [(worker.TOLD, 1), (worker.TOLD, 0)])))

    with pytest.raises(ZeroDivisionError):
        link.connection_lost(None)

    with pytest.raises(WorkerFailed, match="died"):
        await job
    assert gone.done()


async def test_the_loop_is_never_blocked(workers, tmp_path):
    """Not by the start of processes, by frames, by a kill or by an end."""
    other = Workers("other", JOBS, settings.load(tmp_path))
    with loop_guard():
        other.open()
        await other.run("large", 1_000_000)
        with pytest.raises(ComponentBusy):
            await other.run("deaf", str(tmp_path / "began"), silence_s=0.1)
        assert await other.close(5)


async def test_errors_travel(workers):
    """The system's and ours as they are; anything else is a fault, told with its name and logged whole."""
    with pytest.raises(FileNotFoundError, match="/missing"):
        await workers.run("read", "/missing")
    with pytest.raises(NotFound, match="nothing of that name"):
        await workers.run("refuse")
    with pytest.raises(IoFailed) as caught:
        await workers.run("fail_io")
    with capture_logs() as logs, pytest.raises(WorkerFailed, match=r"^test: ZeroDivisionError: "):
        await workers.run("fault")

    assert caught.value.fields() == {
        "code": "io_error",
        "component": "agent",
        "errno": "ENOSPC",
        "retryable": True,
    }
    assert "worker_jobs.py" in logs[0]["reason"]


async def test_a_process_that_dies_fails_its_job_and_is_replaced(workers):
    """Its number stays, its memory is gone, and its generation tells."""
    await workers.run("keep", "a", at=0)
    before = workers.generation(0), workers.generation(1)

    with pytest.raises(WorkerFailed, match="died"):
        await workers.run("die", at=0)

    assert await workers.run("keep", "b", at=0) == ["b"]
    assert (workers.generation(0), workers.generation(1)) == (before[0] + 1, before[1])


async def test_an_idle_process_that_was_killed_is_replaced(workers):
    """The next job does not notice."""
    pid = await workers.run("pid", at=1)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid))
    await asyncio.sleep(0.01)

    assert await workers.run("pid", at=1) != pid


async def test_jobs_run_side_by_side_and_in_the_order_of_the_calls(workers, tmp_path):
    """Two at once; who asks for a worker gets that one, and does not hold up who wants any."""
    first = await begun(workers, tmp_path / "one", at=1)
    later = [asyncio.create_task(workers.run("keep", word, at=1)) for word in "ab"]

    assert await workers.run("add", 1, 1) == 2
    assert not any(task.done() for task in later)
    first.cancel()
    assert await asyncio.gather(*later) == [["a"], ["a", "b"]]


async def test_a_cancelled_caller_stops_its_job(workers, tmp_path):
    """It waits for nothing; the process goes on to serve others."""
    pid = await workers.run("pid", at=0)
    task = await begun(workers, tmp_path / "began", at=0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await workers.run("pid", at=0) == pid
    assert not (tmp_path / "began").exists()


async def test_a_job_that_does_not_stop_is_killed(workers, tmp_path, monkeypatch):
    """Others wait for its worker as long as that takes."""
    monkeypatch.setattr("ksi_daemon.workerlink.STOPPING", 0.05)
    pid = await workers.run("pid", at=0)
    task = await begun(workers, tmp_path / "began", "deaf", at=0)
    task.cancel()

    assert await workers.run("pid", at=0) != pid
    await until(lambda: not alive(pid))


async def test_silence_ends_a_job(workers, tmp_path):
    """Words keep it alive, whatever they say."""
    assert await workers.run("alive", 0.5, silence_s=0.3) == "over"
    with pytest.raises(ComponentBusy, match=r"within 0\.1 s"):
        await workers.run("deaf", str(tmp_path / "began"), silence_s=0.1)


async def test_a_caller_that_leaves_the_queue_takes_nobody_s_turn(workers, tmp_path):
    """Also when it was let in at that moment."""
    busy = await begun(workers, tmp_path / "began", at=0)
    waiting = [asyncio.create_task(workers.run("add", n, n, at=0)) for n in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    await asyncio.sleep(0)
    second = workers._queue[0].ticket
    second.add_done_callback(lambda _ticket: waiting[1].cancel())
    busy.cancel()

    assert await waiting[2] == 4


async def test_a_finished_job_has_an_outcome_for_a_cancelled_caller(workers, tmp_path):
    """It goes on to its end; what came of it is told with the cancellation."""
    task = asyncio.create_task(workers.finish("slow", 0.2, str(tmp_path / "file")))
    await asyncio.sleep(0.05)
    task.cancel()

    with pytest.raises(CancelledTooLate) as caught:
        await task
    assert (caught.value.error, (tmp_path / "file").read_text()) == (None, "done")
    with pytest.raises(NotFound):
        await workers.finish("refuse")


async def test_an_idle_process_that_does_not_leave_holds_up_no_close(tmp_path):
    """It is killed soon: it has nothing to finish. A loaded machine would make a clean stop look unclean."""
    made = Workers("test", JOBS, settings.load(tmp_path), count=1)
    made.open()
    pid = await made.run("pid")
    os.kill(pid, signal.SIGSTOP)
    begun_at = asyncio.get_running_loop().time()

    assert await made.close(30)
    assert asyncio.get_running_loop().time() - begun_at < 15
    await until(lambda: not alive(pid))


async def test_a_close_lets_jobs_end_and_takes_no_more(tmp_path):
    """A second close has nothing to do; after an open all begins anew."""
    made = Workers("test", JOBS, settings.load(tmp_path), count=1)
    made.open()
    task = asyncio.create_task(made.finish("slow", 0.1, str(tmp_path / "file")))
    await asyncio.sleep(0.02)
    queued = asyncio.create_task(made.run("add", 1, 2))
    await asyncio.sleep(0)

    assert (await made.close(5), await made.close(5)) == (True, True)
    assert await task == "done"
    for late in (queued, made.run("add", 1, 2)):
        with pytest.raises(ComponentClosed):
            await late
    made.open()
    assert await made.run("add", 1, 2) == 3
    assert await made.close(5)


async def test_a_close_waits_for_no_start(tmp_path, monkeypatch):
    """A process that has not said its first word has nothing to do, and one that comes later is let go."""
    apart = zygote.Zygote()  # one that has to import everything first
    monkeypatch.setattr("ksi_daemon.workers.ZYGOTE", apart)
    for pause in (0.0, 0.01, 0.05):
        made = Workers("test", JOBS, settings.load(tmp_path), count=2)
        made.open()
        await asyncio.sleep(pause)
        began = time.monotonic()
        assert await made.close(5)
        assert time.monotonic() - began < 2
    assert apart._process is None


async def test_a_close_kills_what_does_not_end(tmp_path):
    """And tells the caller, also one who wanted to know the outcome."""
    made = Workers("test", JOBS, settings.load(tmp_path), count=2)
    made.open()
    pids = [await made.run("pid", at=number) for number in (0, 1)]
    task = await begun(made, tmp_path / "began", "deaf")
    other = asyncio.create_task(made.finish("deaf", str(tmp_path / "other")))
    await until((tmp_path / "other").exists)

    assert await made.close(0.1)
    await until(lambda: not any(alive(pid) for pid in pids))
    for one in (task, other):
        with pytest.raises(WorkerFailed):
            await one


async def test_a_process_that_cannot_be_started_is_an_error(tmp_path, monkeypatch):
    """It is tried again by the next job."""

    def refuse():
        raise OSError(11, "Resource temporarily unavailable")

    made = Workers("test", JOBS, settings.load(tmp_path), count=1)
    with monkeypatch.context() as patched:
        patched.setattr(zygote.ZYGOTE, "fork", refuse)
        made.open()
        with pytest.raises(IoFailed, match="could not start a worker process"):
            await made.run("add", 1, 2)

    assert await made.run("add", 1, 2) == 3
    assert await made.close(5)


async def test_a_process_that_ends_before_its_first_word_is_an_error(tmp_path, monkeypatch):
    """As when the zygote finds no room for one more."""

    def closed():
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    made = Workers("test", JOBS, settings.load(tmp_path), count=1)
    monkeypatch.setattr(zygote.ZYGOTE, "fork", closed)
    made.open()
    with pytest.raises(WorkerFailed):
        await made.run("add", 1, 2)
    assert await made.close(5)


async def test_a_worker_ignores_a_stop_of_the_whole_group(workers):
    """The daemon's own stop lets its jobs end."""
    pid = await workers.run("pid", at=0)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)

    assert await workers.run("pid", at=0) == pid


async def test_workers_make_way(workers):
    """They are nicer than the daemon by five."""
    pid = await workers.run("pid")
    mine = os.getpriority(os.PRIO_PROCESS, 0)

    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, mine + worker.NICE)


KILLED = """
import asyncio, sys
from ksi_daemon import settings
from ksi_daemon.workers import Workers
from tests.worker_jobs import JOBS
async def main():
    made = Workers("test", JOBS, settings.load(sys.argv[1]), count=2)
    made.open()
    print(*[await made.run("pid", at=number) for number in (0, 1)], flush=True)
    await made.run("patient", sys.argv[1] + "/began")
asyncio.run(main())
"""


async def test_nothing_is_left_after_a_kill(tmp_path):
    """Idle or busy, workers and zygote end with the process that they belong to."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    with child:
        assert child.stdout is not None
        pids = [int(word) for word in child.stdout.readline().split()]
        with open(f"/proc/{pids[0]}/stat") as file:
            pids.append(int(file.read().rpartition(")")[2].split()[1]))
        await until((tmp_path / "began").exists)
        assert all(alive(pid) for pid in pids)
        child.kill()

    await until(lambda: not any(alive(pid) for pid in pids))


def test_a_zygote_that_was_killed_is_replaced():
    """Whoever needs one has a new one; the last one who lets go ends it."""
    own = zygote.Zygote()
    own.hold()
    with own.fork() as first:
        assert worker.receive(first)[0] == worker.HELLO
    old = own._process
    assert old is not None
    old.kill()
    old.wait()
    with own.fork() as second:
        assert worker.receive(second)[0] == worker.HELLO
    new = own._process
    assert new is not None
    own.let_go()

    assert (new.returncode, own._process) == (0, None)


def test_a_zygote_that_cannot_be_reached_leaves_no_socket_open(monkeypatch):
    """The error is the system's."""
    own = zygote.Zygote()
    own.hold()

    def refuse(*_args):
        raise BrokenPipeError

    own.fork().close()
    monkeypatch.setattr(socket, "send_fds", refuse)
    with pytest.raises(BrokenPipeError):
        own.fork()
    own.let_go()


def test_frames_come_whole_from_pieces_of_any_size():
    """A byte at a time, all at once, or cut anywhere."""
    frames: list[object] = [None, (1, "x" * 300), (2, b"y" * 70_000), (3, [])]
    stream = b"".join(worker.packed(frame) for frame in frames)

    for size in (1, 3, 4, 5, 1000, len(stream)):
        pieces, found = _Frames(), list[object]()
        for at in range(0, len(stream), size):
            found += map(pickle.loads, pieces.feed(stream[at : at + size]))
        assert found == frames


def test_a_turn_without_a_socket_keeps_its_words():
    """For tests of jobs in their own process."""
    turn = worker.Turn()
    turn.tell(1)
    turn.check()

    assert turn.told == [1]


def test_a_turn_speaks_up_and_hears_the_word_to_stop(monkeypatch):
    """A check says that it goes on when there was silence; a word to stop ends the job."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        turn = worker.Turn(theirs)
        turn.check()
        monkeypatch.setattr(worker, "HEARTBEAT", 0.0)
        turn.check()
        assert worker.receive(ours) == (worker.TOLD, None)
        worker.send(ours, worker.STOP)
        with pytest.raises(worker.Stopped):
            turn.check()
        with pytest.raises(worker.Stopped):
            turn.tell("x")


def test_serving_ends_with_the_socket():
    """Jobs in turn; a late word to stop is nobody's; a stopped job says so."""
    ours, theirs = socket.socketpair()
    with theirs:
        for frame in (("add", (1, 2)), worker.STOP, ("refuse", ()), ("fault", ())):
            worker.send(ours, frame)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            worker.serve(theirs, JOBS)
        assert worker.receive(ours) == (worker.DONE, 3)
        kind, error = worker.receive(ours)
        assert (kind, str(error)) == (worker.FAILED, "nothing of that name")
        assert worker.receive(ours)[1].startswith("ZeroDivisionError")
        ours.close()
