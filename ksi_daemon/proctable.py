"""The process table: what runs, whose child it is and since when; from /proc on Linux, elsewhere from ps."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "KSI_TURN"
"""The environment variable by whose value the processes of one run are found."""

_SUBREAPER_SET, _SUBREAPER_GET = 36, 37  # prctl(2)
_KEY = f"\0{MARK}=".encode()


class Process(NamedTuple):
    """One process. Its `pid` may be used again, `pid` and `start` together are not.

    `group` is the session, or where ps tells none the process group: what a child shares with its parent, and
    strangers cannot enter. `start` is in the table's own unit. One that is not `alive` is a zombie.
    """

    pid: int
    parent: int
    group: int
    start: int
    alive: bool


class Table(Protocol):
    """What an operating system tells of processes and does to them. Everything here blocks, shortly."""

    def now(self) -> int:
        """The earliest `start` of a process that begins after this call."""

    def look(self) -> list[Process]:
        """Every process that can be seen. Raises `OSError` when the table cannot be read, never a part."""

    def mark(self, pid: int) -> str | None:
        """The value of the mark in the environment with which its program began; None without one."""

    def own_group(self) -> int:
        """The group of this process."""

    def adopts(self) -> bool:
        """Whether orphaned descendants of this process become its children."""

    def send(self, process: Process, number: signal.Signals) -> None:
        """Signal `process`, if it is still there and may be signalled, and never another one of its pid."""

    def reap(self, process: Process) -> bool:
        """Take the exit status of a dead child of this process; False when it has none yet, or no longer."""


def table() -> Table:
    """The table of this system."""
    return Proc() if sys.platform == "linux" else Ps()


def become_subreaper() -> bool:
    """Have orphaned descendants become children of this process (Linux, prctl(2)); False elsewhere."""
    return sys.platform == "linux" and _prctl(_SUBREAPER_SET, ctypes.c_ulong(1)) == 0


def _prctl(option: int, value: ctypes.c_ulong | ctypes._CArgObject) -> int:
    unused = ctypes.c_ulong(0)
    return int(ctypes.CDLL(None).prctl(option, value, unused, unused, unused))


class Proc:
    """Linux's /proc, and descriptors of processes (pidfd_open(2)), which cannot come to mean another one."""

    def now(self) -> int:
        """Clock ticks since boot, as in /proc; one less, since both are rounded."""
        ticks = os.sysconf("SC_CLK_TCK")
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * ticks // 1_000_000_000 - 1

    def look(self) -> list[Process]:
        """One pass over /proc: 7 microseconds a process."""
        found = (self._process(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return [process for process in found if process is not None]

    def mark(self, pid: int) -> str | None:
        """Empty environments, kernel threads, zombies and other users' processes have none."""
        block = b"\0" + (_read(pid, "environ") or b"")
        begin = block.find(_KEY)
        if begin < 0:
            return None
        begin += len(_KEY)
        return os.fsdecode(block[begin : block.find(b"\0", begin)])

    def own_group(self) -> int:
        """Our session."""
        return os.getsid(0)

    def adopts(self) -> bool:
        """As subreaper, or as the first process of a container, which gets every orphan."""
        answer = ctypes.c_int(0)
        return os.getpid() == 1 or (_prctl(_SUBREAPER_GET, ctypes.byref(answer)) == 0 and answer.value == 1)

    def send(self, process: Process, number: signal.Signals) -> None:
        """By descriptor: opened first, then looked at again, it means `process` or nothing."""
        with _descriptor(process.pid) as fd, contextlib.suppress(ProcessLookupError, PermissionError):
            found = self._process(process.pid)
            # The start and not the mark is looked at again: a program may have changed its environment since
            if found is None or found.start != process.start:
                return
            if fd is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(fd, number)

    def reap(self, process: Process) -> bool:
        """By descriptor as well. Never `waitpid(-1)`: whoever started a child waits for its status."""
        with _descriptor(process.pid) as fd, contextlib.suppress(ChildProcessError):
            found = self._process(process.pid)
            if found is None or found.start != process.start:
                return False
            kind, which = (os.P_PID, process.pid) if fd is None else (os.P_PIDFD, fd)
            return os.waitid(kind, which, os.WEXITED | os.WNOHANG) is not None
        return False

    def _process(self, pid: int) -> Process | None:
        text = _read(pid, "stat")
        if not text:
            return None
        # Field 2 is the program's name in brackets, and may hold brackets and blanks itself (proc(5))
        fields = text[text.rindex(b")") + 2 :].split()
        # A leading thread that ended before the others is shown as a zombie, too: such a process lives
        alive = fields[0] not in {b"Z", b"X"} or int(fields[17]) > 1
        return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), alive)


def _read(pid: int, name: str) -> bytes | None:
    """A file of a process; None when it is gone or another user's. Raises all else, such as EMFILE."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return b"".join(iter(lambda: os.read(fd, 65536), b""))
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


@contextlib.contextmanager
def _descriptor(pid: int) -> Iterator[int | None]:
    """A descriptor of a process; None when it is gone, or where there are none: an old kernel, a sandbox."""
    try:
        fd = os.pidfd_open(pid)
    except (OSError, AttributeError):
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


class Ps:
    """`ps`, for systems without /proc. It tells no environment, so marks find nothing."""

    def now(self) -> int:
        """Whole seconds, as in ps."""
        return int(time.time()) - 1

    def look(self) -> list[Process]:
        """One run of ps: some 10 ms."""
        command = ["ps", "-axo", "pid=,ppid=,pgid=,stat=,lstart="]
        env = {**os.environ, "LC_ALL": "C"}
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=5, check=True)
        except subprocess.SubprocessError as error:
            raise OSError(errno.EIO, f"ps failed: {error}") from error
        return [_row(line) for line in done.stdout.splitlines()]

    def mark(self, _pid: int) -> str | None:
        """None: ps shows environments only where nothing protects them."""
        return None

    def own_group(self) -> int:
        """Our process group."""
        return os.getpgid(0)

    def adopts(self) -> bool:
        """False: orphans go to the system's first process."""
        return False

    def send(self, process: Process, number: signal.Signals) -> None:
        """By pid: nothing better is there, and the look was a moment ago."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)

    def reap(self, _process: Process) -> bool:
        """False: a dead child here is always somebody's own."""
        return False


def _row(line: str) -> Process:
    pid, parent, group, state, start = line.split(maxsplit=4)
    began = int(time.mktime(time.strptime(start, "%a %b %d %H:%M:%S %Y")))
    return Process(int(pid), int(parent), int(group), began, not state.startswith("Z"))
