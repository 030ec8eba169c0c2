"""The zygote: a small process with everything imported, from which worker processes are forked in a moment.

The daemon itself cannot fork safely: it has threads. One zygote serves a whole process; it ends when the last
who holds it lets go, or when its parent dies, since its socket is closed then.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ksi_daemon import worker

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING: Final = 0.3
"""Seconds that it may take to end before it is killed: it has nothing to finish, but may be starting."""


class Zygote:
    """Its handle in the process that uses it. All methods block a little; any thread may call them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def hold(self) -> None:
        """Keep it alive, once it was needed, until `let_go`."""
        with self._lock:
            self._holders += 1

    def let_go(self) -> None:
        """End it, if nobody else holds it."""
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._end()

    def fork(self) -> socket.socket:
        """The daemon's end of a new worker's socket. Raises `OSError` when there can be no process.

        A worker that could not be forked shows by the end of its socket.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._begin()
            ours, theirs = socket.socketpair()
            try:
                socket.send_fds(self._begun(), [b"."], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
            finally:
                theirs.close()
            return ours

    def _begun(self) -> socket.socket:
        if self._line is None:
            raise BrokenPipeError
        return self._line

    def _begin(self) -> None:
        self._line, theirs = socket.socketpair()
        paths = [os.path.abspath(path) for path in sys.path if path]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ksi_daemon.zygote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                pass_fds=[theirs.fileno()],
            )

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            try:
                self._process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


ZYGOTE: Final = Zygote()
"""The one of this process."""


@contextmanager
def kept() -> Iterator[None]:
    """Keep the zygote between many who need workers only for a moment: starting it costs a quarter second."""
    ZYGOTE.hold()
    try:
        yield
    finally:
        ZYGOTE.let_go()


def main(line: socket.socket) -> None:
    """Fork a worker for each socket that comes in, until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # and so the kernel reaps the workers
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # jobs make many small values and no cycles: a tenth of their time
    while True:
        data, fds, _, _ = socket.recv_fds(line, 1, 1)
        if not data:
            return
        for fd in fds:
            with socket.socket(fileno=fd) as own, contextlib.suppress(OSError):  # no process free: own ends
                if os.fork() == 0:
                    line.close()
                    worker.live(own)


if __name__ == "__main__":
    import ksi_daemon.registry  # noqa: F401 - every room's jobs, imported once for all workers

    main(socket.socket(fileno=int(sys.argv[1])))
