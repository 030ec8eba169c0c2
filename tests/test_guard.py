"""The loop guard's manners: innocent code passes, errors stay themselves, reports are short."""

from __future__ import annotations

import asyncio
import fcntl
import io
import logging
import os
import socket
import sys
import threading
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import structlog

from tests.guard import GuardAsleep, LoopBlocked, LoopGuard, expect_trip, loop_guard
from tests.guard_stack import Site, counts

HERE = (__file__,)
watch = partial(loop_guard, watched=HERE)
Act = Callable[[Path], object]


def burn(seconds: float) -> None:
    """Keep the CPU in Python code."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two lines, an empty directory beside it."""
    file = tmp_path / "file"
    file.write_text("one\ntwo\n")
    (tmp_path / "empty").mkdir()
    return file


def test_the_same_calls_pass_without_a_loop(path: Path) -> None:
    """On the very thread, but with no loop running, nothing is recorded."""
    with watch(stall_ms=50):
        burn(0.2)
        path.write_text("x")
        time.sleep(0.001)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one line with itself."""
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def talk(where: Path) -> bytes:
    """A Unix socket's whole life on asyncio, a stale socket in its way included."""
    server = await asyncio.start_unix_server(echo, where)
    async with server:
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(b"ping\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
    return line


async def test_asyncio_itself_passes(tmp_path: Path) -> None:
    """Sockets, timers, locks, queues, executors and signals as asyncio does them are innocent."""
    stale = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    with ThreadPoolExecutor(2) as pool, watch():
        loop = asyncio.get_running_loop()
        assert await talk(stale) == b"ping\n"
        await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 0.001) for _ in range(20)))
        await asyncio.to_thread(time.sleep, 0.001)
        async with asyncio.Lock(), asyncio.timeout(5):
            await asyncio.sleep(0.002)


async def test_one_start_of_a_child_passes() -> None:
    """asyncio.create_subprocess_exec may block for its fork; reading, writing and waiting go on without."""
    with watch():
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        assert (await child.communicate(b"line\n"))[0] == b"line\n"


async def test_a_shell_does_not_pass() -> None:
    """The other way to start a child through asyncio is no exemption."""
    with pytest.raises(LoopBlocked, match=r"subprocess\.Popen"), watch():
        await (await asyncio.create_subprocess_shell("true")).wait()


async def test_imports_pass(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module found and read while the loop runs is the import system's doing."""
    path.with_name("guarded_late_import.py").write_text("import os\nHERE = os.path.dirname(__file__)\n")
    monkeypatch.syspath_prepend(path.parent)

    with watch():
        import guarded_late_import  # type: ignore[import-not-found]  # noqa: PLC0415

    assert str(path.parent) == guarded_late_import.HERE


async def test_logs_pass(capfd: pytest.CaptureFixture[str]) -> None:
    """structlog, logging, print and a written-out traceback may use stderr and stdout."""
    with watch():
        structlog.wrap_logger(structlog.PrintLogger(sys.stderr)).info("structlog speaks")
        structlog.wrap_logger(structlog.WriteLogger(sys.stderr)).info("structlog writes")
        print("print speaks", flush=True)  # noqa: T201
        logging.StreamHandler(sys.stderr).emit(logging.makeLogRecord({"msg": "logging speaks"}))
        try:
            os.fspath(3)  # type: ignore[call-overload]
        except TypeError:
            logging.getLogger(__name__).exception("a traceback opens sources")

    assert "structlog speaks" in capfd.readouterr().err


async def test_buffers_in_memory_and_free_locks_pass(path: Path) -> None:
    """Files in memory, locks that nobody holds and locks that do not wait touch nothing slow."""
    with path.open() as file, watch():
        io.StringIO("x").read()
        io.TextIOWrapper(io.BytesIO(b"x")).read()
        threading.Lock().acquire()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


async def test_many_short_callbacks_are_no_stall() -> None:
    """A loop that is busy but comes round often is not held, however long that goes on."""

    async def busy() -> None:
        for _ in range(60):
            burn(0.005)
            await asyncio.sleep(0)

    with watch(stall_ms=100):
        await busy()


async def test_a_loop_on_another_thread_passes(path: Path) -> None:
    """Only the loop of the thread that put the guard up is watched."""

    async def read() -> str:
        return path.read_text()

    with watch():
        assert await asyncio.to_thread(asyncio.run, read()) == "one\ntwo\n"


async def test_stalls_are_seen_without_cpu_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a thread's CPU time cannot be read from outside (macOS), wall time takes its place."""
    monkeypatch.delattr(time, "pthread_getcpuclockid", raising=False)

    with expect_trip(watched=HERE, stall_ms=50) as guard:
        burn(0.2)

    assert guard.names == {"held the loop for more than 50 ms"}


async def test_a_stall_is_reported_once_with_its_stack() -> None:
    """One long callback is one finding, and the stack shows where it was held."""
    with expect_trip(watched=HERE, stall_ms=50) as guard:
        burn(0.4)

    assert [n for (what, _), n in guard.seen.items() if what.startswith("held")] == [1]
    assert "in burn: " in guard.report()


async def test_what_the_test_does_itself_passes(path: Path) -> None:
    """By default only the daemon's code is under guard: a test may look at files on the loop."""
    with loop_guard():
        assert path.read_text() == "one\ntwo\n"
        burn(0.01)


def site(path: str, function: str = "f") -> Site:
    """A frame in the file `path`."""
    return Site(path, 1, function)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/d/room/aio.py", "/t/test.py"], True),
        (["/usr/lib/pathlib.py", "/d/room/aio.py", "/d/room/exercise.py"], True),
        (["/usr/lib/pathlib.py", "/d/room/exercise.py", "/t/test.py"], False),
        (["/usr/lib/pathlib.py", "/t/test.py"], False),
        ([], False),
    ],
)
def test_whose_call_it_is(paths: list[str], expected: bool) -> None:
    """The innermost frame of the watched code decides; an exercise stands for the caller."""
    assert counts(tuple(map(site, paths)), ("/d",)) is expected


async def test_paused_overlooks(path: Path) -> None:
    """Within `paused` nothing is recorded; after it the guard is awake again."""
    with expect_trip(watched=HERE, stall_ms=50) as guard:
        with guard.paused():
            path.read_text()
            burn(0.2)
        assert guard.names == set()
        path.stat()

    assert guard.names == {"os.stat"}


async def test_expect_trip_fails_when_nothing_trips() -> None:
    """On the sync side silence is a failure: the guard sleeps, or nothing ran."""
    with pytest.raises(GuardAsleep, match="the guard sleeps"), expect_trip(watched=HERE):
        await asyncio.sleep(0)


async def test_calls_go_on_while_they_are_recorded(path: Path) -> None:
    """The guard changes nothing in what the code under test gets: values and errors are the call's own."""
    with expect_trip(watched=HERE):
        path.write_text("new")
        assert path.read_text() == "new"
        with pytest.raises(FileNotFoundError):
            path.with_name("none").stat()


async def test_an_error_of_the_body_goes_first(path: Path) -> None:
    """The body's own error is what fails the test; what blocked is a note on it."""
    with pytest.raises(ZeroDivisionError) as caught, watch():
        _ = path.stat().st_size // 0
    with pytest.raises(ZeroDivisionError) as clean, watch():
        _ = 1 // 0

    assert "os.stat" in caught.value.__notes__[0]
    assert not hasattr(clean.value, "__notes__")


async def test_repeats_are_counted_not_kept(path: Path) -> None:
    """A thousand calls from one line are one entry, and the report says how many."""
    with expect_trip(watched=HERE) as guard:
        for _ in range(1_000):
            path.stat()

    assert list(guard.seen.values()) == [1_000]
    assert "blocked 1000 times, here:\n  1000 × os.stat" in guard.report()


def test_a_long_report_is_cut() -> None:
    """Only the most frequent places are shown, with the number of all."""
    guard = LoopGuard(())
    for number in range(20):
        guard.seen[f"call{number}", ()] = number + 1

    assert "at 20 places, the first 8:\n  20 × call19" in guard.report()
    assert "call11" not in guard.report()


async def test_two_guards_at_once_are_refused() -> None:
    """The second would take the first one's findings."""
    with watch(), pytest.raises(RuntimeError, match="watching already"), watch():
        pytest.fail("entered")
