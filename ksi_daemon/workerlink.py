"""The daemon's end of one worker process: frames in and out, what it is asked to do, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from ksi_daemon import worker
from ksi_daemon.errors import ComponentBusy, WorkerFailed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ksi_daemon.worker import Jobs

log = structlog.get_logger("ksi.daemon")

STOPPING: Final = 1.0
"""Seconds for which a job that nobody waits for may go on before its worker is killed."""

LEAVING: Final = 0.3
"""Seconds in which a worker that has nothing to do may end by itself; to kill it then loses nothing."""

KILLING: Final = 1.0
"""Seconds until the kernel has closed the socket of a worker that was killed; longer if its disk is dead."""


def silent(_value: Any) -> None:
    """For whom no word of a job matters."""


@dataclass(slots=True)
class _Job:
    """What a worker is doing now."""

    told: Callable[[Any], None]
    over: asyncio.Future[tuple[int, Any]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class WorkerLink(asyncio.Protocol):
    """The daemon's end of one process at a time: frames in and out, and what it is asked to do."""

    def __init__(self, component: str) -> None:
        self._component = component
        self._transport: asyncio.WriteTransport | None = None
        self._gone: asyncio.Future[None] | None = None
        self._frames = _Frames()
        self._waiting: deque[memoryview] = deque()
        self._job: _Job | None = None
        self._heard = 0.0
        self._process = _Process()

    @property
    def alive(self) -> bool:
        """Whether there is a process to ask."""
        return self._transport is not None

    @property
    def quiet(self) -> bool:
        """Whether it has nothing to do."""
        return self._job is None or self._job.over.done()

    async def connect(self, own: socket.socket, jobs: Jobs, patience: float) -> None:
        """Take over a new process, and wait for its first word. Raises `WorkerFailed`."""
        loop = asyncio.get_running_loop()
        self._frames, self._gone = _Frames(), loop.create_future()
        own.settimeout(0)
        hello = self._job = _Job(silent)
        self._transport, _ = await loop.create_unix_connection(lambda: self, sock=own)
        self._transport.write(worker.packed(dict(jobs)))
        await asyncio.wait([hello.over], timeout=patience)
        if not hello.over.done() or hello.over.result()[0] != worker.HELLO:
            self.kill()
            raise WorkerFailed(self._component, "a worker process could not be started")
        self._process = _Process(hello.over.result()[1])

    def ask(self, job: tuple[str, tuple[Any, ...]], told: Callable[[Any], None]) -> None:
        """Give it a job."""
        if self._transport is None:
            raise WorkerFailed(self._component, "the worker process has ended")
        self._job = _Job(told)
        self._heard = asyncio.get_running_loop().time()
        self._transport.write(worker.packed(job))

    async def outcome(self, silence_s: float) -> Any:
        """What comes of the job; see `Workers.run`."""
        job = self._job
        if job is None:
            raise WorkerFailed(self._component, "no job")
        while not job.over.done():
            left = self._heard + silence_s - asyncio.get_running_loop().time()
            if left <= 0:
                self.kill()
                raise ComponentBusy(self._component, silence_s)
            await asyncio.wait([job.over], timeout=left)
        kind, value = job.over.result()
        if kind == worker.DONE:
            return value
        if isinstance(value, Exception):
            raise value
        log.error("job failed", component=self._component, reason=value)
        raise WorkerFailed(self._component, str(value).partition("\n")[0])

    async def stop(self) -> None:
        """Ask the job to stop; kill the process if it does not."""
        if self._transport is not None:
            self._transport.write(worker.packed(worker.STOP))
        if self._job is not None and not self._job.over.done():
            await asyncio.wait([self._job.over], timeout=STOPPING)
        if not self.quiet:
            self.kill()

    async def end(self, timeout: float) -> bool:
        """Hang up and wait until the process is gone; False when even SIGKILL does not end it.

        One that works may go on for `timeout` seconds, one that does nothing for `LEAVING` at most.
        """
        if self._transport is None or self._gone is None:
            return True
        if not self._process.known:  # it has said nothing yet, so it does nothing, and will find nobody there
            self._lost()
            return True
        gone = self._gone
        self._transport.write_eof()
        await asyncio.wait([gone], timeout=min(timeout, LEAVING) if self.quiet else timeout)
        if not gone.done():
            self._process.kill()
            await asyncio.wait([gone], timeout=KILLING)
        self._lost()
        return gone.done()

    def kill(self) -> None:
        """End the process at once; whoever waits for its job is told."""
        self._process.kill()
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Frames, in pieces of any size. One is taken in at a time: others get their turn between two."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        idle = not self._waiting
        self._waiting.extend(self._frames.feed(data))
        if idle and self._waiting:
            loop.call_soon(self._take_in, loop)

    def _take_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take in the first frame that waits, and have the next one taken in when others had their turn."""
        if not self._waiting:
            return
        try:
            self._heed(self._waiting.popleft())
        except BaseException:
            self.kill()  # whoever waits for the job is told, and not left to wait for the next frame
            raise
        if self._waiting:
            loop.call_soon(self._take_in, loop)

    def _heed(self, frame: memoryview) -> None:
        kind, value = pickle.loads(frame)  # noqa: S301 - from our own process
        if self._job is None or self._job.over.done():
            return
        if kind != worker.TOLD:
            self._job.over.set_result((kind, value))
        elif value is not None:
            self._job.told(value)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it was lost
        """The process has ended, or was let go."""
        try:
            while self._waiting:
                self._heed(self._waiting.popleft())
        finally:
            if self._gone is not None and not self._gone.done():
                self._gone.set_result(None)
            self._lost()

    def _lost(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            self._process.forget()
        self._waiting.clear()
        if self._job is not None and not self._job.over.done():
            error = WorkerFailed(self._component, "the worker process died")
            self._job.over.set_result((worker.FAILED, error))


class _Frames:
    """Pieces of a stream in, whole frames out."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need = worker.SIZE.size

    def feed(self, data: bytes) -> list[memoryview]:
        """The frames that `data` completes, still pickled."""
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        block, found, begin, head = b"".join(self._parts), [], 0, worker.SIZE.size
        while len(block) - begin >= head:
            end = begin + head + worker.SIZE.unpack_from(block, begin)[0]
            if len(block) < end:
                break
            found.append(memoryview(block)[begin + head : end])
            begin = end
        self._parts, self._have = [block[begin:]], len(block) - begin
        self._need = head if self._have < head else head + worker.SIZE.unpack_from(block, begin)[0]
        return found


class _Process:
    """How a worker is killed: by a descriptor where there are such (Linux), which names no other process."""

    def __init__(self, pid: int = 0) -> None:
        self._pid = pid
        self._fd = -1
        if pid and sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._fd = os.pidfd_open(pid)

    @property
    def known(self) -> bool:
        """Whether it has told its number."""
        return self._pid != 0

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            if self._fd >= 0:
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            elif self._pid:
                os.kill(self._pid, signal.SIGKILL)

    def forget(self) -> None:
        """Let go of it: its number may come to mean another process."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._pid = -1, 0
