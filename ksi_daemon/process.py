"""The daemon as a process: one per root, with its lock, PID file and socket, and its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import sys
import time
from typing import TYPE_CHECKING

import structlog

from ksi_daemon import logs, transport
from ksi_daemon.app import Daemon
from ksi_daemon.errors import DaemonRunning
from ksi_daemon.linefile import private_directory
from ksi_daemon.proctable import become_subreaper
from ksi_daemon.replace import replace_file

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from ksi_daemon.settings import Settings

log = structlog.get_logger("ksi.daemon")

LEFT_OVER = 0.5
"""Seconds that what still runs at the end has to notice that it is cancelled."""

UNFINISHED = 1
"""Exit code when something accepted could not be answered or written before the end."""


def run(settings: Settings) -> int:
    """Run a daemon in this process until it is told to stop; its exit code.

    Raises `DaemonRunning` and `SocketUnusable` before anything of the root is touched. Everything it makes
    is private to its user.
    """
    transport.check_path(settings.socket_path)
    umask = os.umask(0o077)
    try:
        with _lock(settings):
            become_subreaper()
            bound = transport.bind(settings.socket_path)
            writer = logs.configure(settings)
            with _pid_file(settings.daemon_pid_file), _unlinked(settings.socket_path):
                favour_loop()
                clean = _run(settings, bound)
            writer.close()
    finally:
        os.umask(umask)
    if not clean:
        os._exit(UNFINISHED)  # a thread may hang in a dead disk for ever: do not wait for it
    return 0


def favour_loop() -> None:
    """Keep from the loop's thread what holds it up for milliseconds.

    The cycle collector leaves alone what lives as long as the daemon: a pass over all of it takes 35 ms. A
    thread that computes gives the interpreter back after 1 ms, not 5. No thread is started for each child
    that is waited for (2 to 4 ms under load), where the kernel has descriptors of processes; asyncio does so
    by itself from Python 3.12 on.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    sys.setswitchinterval(0.001)
    if sys.version_info < (3, 12) and _has_pidfds():
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def _has_pidfds() -> bool:
    """Whether the kernel has them: Linux from 5.3 on, where no sandbox forbids it."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _run(settings: Settings, bound: socket.socket) -> bool:
    """As `asyncio.run`, but what still waits for a dead disk at an unclean end is not waited for."""
    runner = asyncio.Runner()
    try:
        clean = runner.run(_serve(settings, bound))
    except BaseException:
        runner.close()
        raise
    if clean:
        runner.close()
    else:
        runner.get_loop().close()
    return clean


async def _serve(settings: Settings, bound: socket.socket) -> bool:
    try:
        clean = await Daemon(settings).serve(bound)
    finally:
        bound.close()
    return await _nothing_left() and clean


async def _nothing_left() -> bool:
    """End what still runs, such as a recording of the stages; False when it hangs in a dead disk."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    return not left or not (await asyncio.wait(left, timeout=LEFT_OVER))[1]


def holder(settings: Settings) -> int | None:
    """The pid of the daemon that holds the root, 0 if it is unknown, None if there is none."""
    try:
        fd = os.open(settings.lock_path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(fd)
    finally:
        os.close(fd)
    return None


@contextlib.contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """Hold the root; the kernel lets go of it however we end. The file stays: removing it would race."""
    private_directory(settings.lock_path.parent)
    fd = os.open(settings.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not _locked(fd):
            raise DaemonRunning(settings.root, _pid_in(fd) or None)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    """Try for a tenth of a second: `holder` in another process holds the lock for a moment."""
    for _ in range(10):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return True
    return False


def _pid_in(fd: int) -> int:
    text = os.pread(fd, 32, 0).split()
    return int(text[0]) if text and text[0].isdigit() else 0


@contextlib.contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    """`PID` and a newline, as the original's tools read it; a stale one is replaced whole."""
    private_directory(path.parent)
    replace_file(path, f"{os.getpid()}\n".encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _unlinked(path: Path) -> Iterator[None]:
    """Remove our socket at the end, and only ours: another root's daemon may have put its own there."""
    ours = _identity(path)
    try:
        yield
    finally:
        if _identity(path) == ours:
            path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
