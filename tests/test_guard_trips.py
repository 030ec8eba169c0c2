"""What trips the loop guard: each kind of blocking call, one row each; and that a thread may make it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.guard import LoopBlocked, loop_guard

HERE = (__file__,)
watch = partial(loop_guard, watched=HERE)
Act = Callable[[Path], object]


def read_fd(path: Path) -> bytes:
    """os.read of a regular file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1)
    finally:
        os.close(fd)


def on_open(path: Path, mode: str, act: Callable) -> None:
    """Something done to a file that is open."""
    with path.open(mode) as file:
        act(file)


def on_raw(path: Path, act: Callable) -> None:
    """Something done to an unbuffered file."""
    with path.open("r+b", buffering=0) as file:
        act(file)


def on_fd(path: Path, act: Callable[[int], object]) -> None:
    """Something done to a descriptor of a file."""
    with path.open("r+b") as file:
        act(file.fileno())


def run_sql(path: Path) -> None:
    """A statement on a database in a file."""
    connection = sqlite3.connect(path.with_suffix(".db"))
    connection.execute("create table t (x)")
    connection.close()


def wait_for_lock(_path: Path) -> None:
    """A lock that another thread holds for a moment."""
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(0.02, lock.release).start()
    lock.acquire()


def receive(_path: Path) -> None:
    """A socket that blocks."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        ours.recv(1)


def resolve(_path: Path) -> None:
    """A name, or rather an address, resolved on the spot."""
    socket.getaddrinfo("127.0.0.1", 80)


def burn(seconds: float) -> None:
    """Keep the CPU in Python code."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def keep_the_lock(_path: Path) -> None:
    """One call in C that never lets another thread run, long enough on any machine."""
    sum(range(20_000_000))


TRIPS: dict[str, tuple[str, Act]] = {
    "open": ("open", lambda p: p.open().close()),
    "os.open": ("open", lambda p: os.close(os.open(p, os.O_RDONLY))),
    "listdir": ("os.listdir", lambda p: os.listdir(p.parent)),
    "scandir": ("os.scandir", lambda p: os.scandir(p.parent).close()),
    "scandir's next": ("os.scandir", lambda p: list(os.scandir(p.parent))),
    "mkdir": ("os.mkdir", lambda p: p.with_name("new").mkdir()),
    "rename": ("os.rename", lambda p: p.rename(p.with_name("new"))),
    "replace": ("os.rename", lambda p: p.replace(p.with_name("new"))),
    "remove": ("os.remove", os.remove),
    "unlink": ("os.remove", lambda p: p.unlink()),
    "rmdir": ("os.rmdir", lambda p: os.rmdir(p.parent / "empty")),
    "link": ("os.link", lambda p: p.with_name("new").hardlink_to(p)),
    "symlink": ("os.symlink", lambda p: p.with_name("new").symlink_to(p)),
    "truncate": ("os.truncate", lambda p: os.truncate(p, 1)),
    "ftruncate": ("os.truncate", lambda p: on_fd(p, lambda fd: os.ftruncate(fd, 1))),
    "chmod": ("os.chmod", lambda p: p.chmod(0o600)),
    "utime": ("os.utime", os.utime),
    "flock": ("fcntl.flock", lambda p: on_fd(p, lambda fd: fcntl.flock(fd, fcntl.LOCK_EX))),
    "lockf": ("fcntl.lockf", lambda p: on_fd(p, lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX))),
    "Popen": ("subprocess.Popen", lambda _: subprocess.run([sys.executable, "-c", ""], check=True)),
    "system": ("os.system", lambda _: os.system("true")),
    "waitpid": ("os.waitpid", lambda _: subprocess.run([sys.executable, "-c", ""], check=True)),
    "getaddrinfo": ("socket.getaddrinfo", resolve),
    "stat": ("os.stat", lambda p: p.stat()),
    "exists": ("os.stat", os.path.exists),
    "lstat": ("os.lstat", os.path.lexists),
    "sleep": ("time.sleep", lambda _: time.sleep(0.001)),
    "os.read": ("os.read", read_fd),
    "os.write": ("os.write", lambda p: on_fd(p, lambda fd: os.write(fd, b"x"))),
    "os.pwrite": ("os.pwrite", lambda p: on_fd(p, lambda fd: os.pwrite(fd, b"x", 0))),
    "os.writev": ("os.writev", lambda p: on_fd(p, lambda fd: os.writev(fd, [b"x"]))),
    "fsync": ("os.fsync", lambda p: on_fd(p, os.fsync)),
    "text write": ("io.TextIOWrapper.write", lambda p: on_open(p, "w", lambda f: f.write("x"))),
    "text flush": ("io.TextIOWrapper.flush", lambda p: on_open(p, "w", lambda f: f.flush())),
    "text read": ("io.TextIOWrapper.read", lambda p: p.read_text()),
    "text readline": ("io.TextIOWrapper.readline", lambda p: on_open(p, "r", lambda f: f.readline())),
    "bytes write": ("io.BufferedWriter.write", lambda p: on_open(p, "wb", lambda f: f.write(b"x"))),
    "bytes flush": ("io.BufferedWriter.flush", lambda p: on_open(p, "wb", lambda f: f.flush())),
    "bytes read": ("io.BufferedReader.read", lambda p: p.read_bytes()),
    "raw write": ("io.FileIO.write", lambda p: on_raw(p, lambda f: f.write(b"x"))),
    "raw read": ("io.FileIO.read", lambda p: on_raw(p, lambda f: f.read(1))),
    "sqlite connect": ("sqlite3.connect", run_sql),
    "sqlite": ("sqlite3.Connection.execute", run_sql),
    "lock": ("threading.Lock.acquire", wait_for_lock),
    "socket": ("socket.socket.recv", receive),
    "CPU in Python": ("held the loop for more than 100 ms", lambda _: burn(0.3)),
    "CPU in C": ("held the loop for more than 100 ms", keep_the_lock),
    "a wait unknown to all": ("held the loop for more than 100 ms", lambda _: select.select([], [], [], 0.3)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two lines, an empty directory beside it."""
    file = tmp_path / "file"
    file.write_text("one\ntwo\n")
    (tmp_path / "empty").mkdir()
    return file


@pytest.mark.parametrize("name", TRIPS)
async def test_blocking_calls_trip(name: str, path: Path) -> None:
    """Each kind of blocking call on the loop fails the block, is named and shown with its line."""
    expected, act = TRIPS[name]

    with pytest.raises(LoopBlocked) as caught, watch(stall_ms=100) as guard:
        act(path)

    assert expected in guard.names
    assert expected in str(caught.value)
    if name != "CPU in C":  # no other thread runs meanwhile: its stack may be one of just afterwards
        assert f"{__file__}:" in str(caught.value)
        assert "in test_blocking_calls_trip: act(path)" in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(TRIPS) - {"CPU in C"}))
async def test_the_same_calls_pass_in_a_thread(name: str, path: Path) -> None:
    """Off the loop's thread everything is allowed, as long as the loop goes on."""
    with ThreadPoolExecutor(1) as pool, watch(stall_ms=5_000):
        await asyncio.get_running_loop().run_in_executor(pool, TRIPS[name][1], path)
