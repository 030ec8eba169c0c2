"""A worker process: takes one job after the other from its socket, until that is closed."""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    import socket

Jobs = Mapping[str, Callable[..., Any]]
"""The jobs of one component: name → a function of a module, which gets its `Turn` and then the arguments."""

HEARTBEAT: Final = 1.0
"""Seconds after which `Turn.check` says that the job goes on."""

NICE: Final = 5
"""Workers make way for the loop of the daemon."""

SIZE: Final = struct.Struct("!I")
"""What stands before each frame: how many bytes it has."""

HELLO, TOLD, DONE, FAILED, STOPPED = range(5)
"""What a frame of a worker is: its first item. The second is what it is about."""


STOP: Final = None
"""The frame that asks a worker to stop its job; any other one to it is a job: its name and arguments."""


class Stopped(BaseException):
    """Nobody waits for the job any more; raised out of it by `Turn.tell` and `Turn.check`."""


class Turn:
    """One job's line to the daemon. A turn without a socket, as tests make it, keeps what it is told."""

    def __init__(self, own: socket.socket | None = None) -> None:
        self._own = own
        self._said = time.monotonic()
        self.told: list[Any] = []

    def tell(self, value: Any) -> None:
        """Give an interim word; the daemon unpickles it on its loop, so at most 64 KiB of small objects.

        Raises `Stopped` when the caller has gone.
        """
        if self._own is None:
            self.told.append(value)
        else:
            self._say(self._own, value)
            self._heed(self._own)

    def check(self) -> None:
        """Raise `Stopped` when the caller has gone; now and then say that the job goes on. 2 microseconds."""
        if self._own is not None:
            if time.monotonic() - self._said > HEARTBEAT:
                self._say(self._own, None)
            self._heed(self._own)

    def _say(self, own: socket.socket, value: Any) -> None:
        self._said = time.monotonic()
        send(own, (TOLD, value))

    def _heed(self, own: socket.socket) -> None:
        """While a job runs there is nothing to come but the word to stop, or the end."""
        if select.select([own], [], [], 0)[0]:
            raise Stopped


def packed(frame: Any) -> bytes:
    """One frame as it goes over the socket."""
    body = pickle.dumps(frame, pickle.HIGHEST_PROTOCOL)
    return SIZE.pack(len(body)) + body


def send(own: socket.socket, frame: Any) -> None:
    """One frame, whole."""
    own.sendall(packed(frame))


def receive(own: socket.socket) -> Any:
    """The next frame. Raises `EOFError` when there is none and will be none."""
    (size,) = SIZE.unpack(_exactly(own, SIZE.size))
    return pickle.loads(_exactly(own, size))  # noqa: S301 - it comes from the daemon that started us


def _exactly(own: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = own.recv(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def live(own: socket.socket) -> None:
    """Serve the daemon at the other end until it hangs up or dies. Never returns to what forked it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a stop of the whole group is the daemon's to handle
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.nice(NICE)
    try:
        send(own, (HELLO, os.getpid()))
        serve(own, receive(own))
    except (EOFError, OSError):  # the daemon has gone
        pass
    except BaseException:  # noqa: BLE001 - beyond here is the fork's own stack
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def serve(own: socket.socket, jobs: Jobs) -> None:
    """Do jobs in turn. A word to stop that comes after the end of its job is for none."""
    while True:
        frame = receive(own)
        if frame is not STOP:
            name, args = frame
            send(own, _outcome(jobs[name], Turn(own), args))


def _outcome(job: Callable[..., Any], turn: Turn, args: tuple[Any, ...]) -> tuple[int, Any]:
    try:
        return DONE, job(turn, *args)
    except Stopped:
        return STOPPED, None
    except (OSError, KsiError) as error:
        return FAILED, error.with_traceback(None)
    except Exception as error:  # noqa: BLE001 - the daemon tells its caller, whatever it is
        return FAILED, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
