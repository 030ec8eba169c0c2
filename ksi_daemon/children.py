"""Run one command: output to files, time and output bounded, and nothing of it left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import structlog

from ksi_daemon.family import MARK, Family
from ksi_daemon.lane import Hop, Lane
from ksi_daemon.spool import Flood, Spool

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Command", "Finished", "Flood", "Overtime", "run"]

T = TypeVar("T")
log = structlog.get_logger("ksi.daemon")

LOOK = 0.2
"""Seconds between two looks at how much was printed."""

SOON = 0.02
"""Seconds until the first look where somebody wants to hear of it; then twice as long each time."""

KILLING = 5.0
"""Seconds for which what was sent SIGKILL may stay; something waits in the kernel if it does."""

HANG = 10.0
"""Seconds that a call in the lane may take; HURRIED when there is hurry."""

HURRIED = 1.0

LONGEST_PAUSE = 0.1
"""Seconds between two looks at what has to end, at most."""


@dataclass(frozen=True, slots=True)
class Command:
    """One run. `argv[0]` and `cwd` are absolute; `env` is the whole environment but for `KSI_TURN`.

    `mark` becomes `KSI_TURN` there and finds the processes of this run; no two runs that are alive share one.
    `deadline_s` seconds after its start the run is ended: SIGTERM to all its processes, SIGKILL `grace_s`
    seconds later. `most_bytes` is the limit of stdout and of stderr, each. `scratch` is the directory of the
    unnamed files for stdin, stdout and stderr; it is made, 0700, if it is missing. `nice` is its
    niceness, if not 0: one that only computes makes way for the loop, and for the start of the next.
    """

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    mark: str
    stdin: bytes
    deadline_s: float
    grace_s: float
    most_bytes: int
    scratch: Path
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended by itself: `code` as `subprocess` gives it (a signal is negative), its output."""

    code: int
    stdout: bytes
    stderr: bytes


class Overtime(Exception):
    """The command was not over at its deadline; it and all its descendants were ended."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"not over after {deadline_s:g} s")


Told = Callable[[bytes], None]


async def run(
    command: Command, lane: Lane, *, hurry: asyncio.Event | None = None, told: Told | None = None
) -> Finished:
    """Run `command` to its end; when this returns or raises, all its processes are gone and reaped.

    A process that even SIGKILL does not end within `KILLING` seconds is left, and logged. `lane` is where
    all that blocks is done, in short calls; many runs may share it. Once `hurry` is set there is no grace:
    what is being ended gets SIGKILL at once. By itself it ends nothing.

    `told` gets stdout while it grows, in pieces of at most 16 KiB, and all of it: then `Finished` has none.
    What it raises ends the command and is raised here.

    Raises `Overtime`, `Flood`, and `OSError` when a file could not be made, written or read, when the lane is
    stuck (ETIMEDOUT), or when the command could not be started (ENOENT also for a missing `cwd`). Cancelled,
    it ends the command first.
    """
    return await _Run(command, lane, hurry or asyncio.Event(), told).outcome()


_starting: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def _started(command: Command, fds: tuple[int, ...]) -> Process:
    """Start one command at a time: each takes the loop some milliseconds, and others run in between."""
    loop = asyncio.get_running_loop()
    async with _starting.setdefault(loop, asyncio.Lock()):
        await asyncio.sleep(0)  # before and not after: cancelled there, a child would be forgotten
        stdin, stdout, stderr = fds
        return await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=command.cwd,
            env={**command.env, MARK: command.mark},
            start_new_session=True,
        )


class _Run:
    """A cancellation, however often, is only noted where it comes, so that each step is done as a whole."""

    def __init__(self, command: Command, lane: Lane, hurry: asyncio.Event, told: Told | None) -> None:
        self._command = command
        self._lane = lane
        self._hurry = hurry
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._spool = Spool(command.scratch, command.stdin, command.most_bytes)
        self._family: Family | None = None
        self._process: Process | None = None
        self._exit: asyncio.Task[int] | None = None
        self._left: list[int] = []
        self._cancelled = False

    async def outcome(self) -> Finished:
        """The whole run. A cancellation goes before every other outcome."""
        try:
            return await self._go()
        finally:
            if self._family is not None:
                await self._end(self._family)
                self._family.over()
            with contextlib.suppress(OSError):  # a stuck lane closes them when it goes on
                await self._hop(self._spool.close)
            self._heed()

    async def _go(self) -> Finished:
        await self._hop(self._spool.open)
        self._heed()
        process = await self._start()
        code = await self._watch(process)
        if self._told is not None:
            await self._look()
        # Read before the rest is ended: what that prints when it is, is no part of the answer
        stdout, stderr = await self._hop(self._spool.read)
        return Finished(code, stdout, stderr)

    async def _start(self) -> Process:
        command = self._command
        self._family = Family(command.mark)
        # In a task of its own: asyncio forgets a child when its start is cancelled twice
        starting = asyncio.ensure_future(_started(command, self._spool.fds))
        while not starting.done():
            await self._wait(starting, None)
        try:
            self._process = starting.result()
        except RuntimeError as error:  # no thread could be started that waits for the child
            raise OSError(errno.EAGAIN, str(error)) from error
        self._family.started(self._process.pid)
        if command.nice:
            with contextlib.suppress(OSError):  # it may have ended
                os.setpriority(os.PRIO_PGRP, self._process.pid, command.nice)
        return self._process

    async def _watch(self, process: Process) -> int:
        """Wait until the command ends by itself, and give its exit code."""
        deadline = self._loop.time() + self._command.deadline_s
        look = LOOK if self._told is None else SOON
        while True:
            self._heed()
            if process.returncode is not None:
                return process.returncode
            left = deadline - self._loop.time()
            if left <= 0:
                raise Overtime(self._command.deadline_s)
            await self._pause(min(look, left))
            look = min(2 * look, LOOK)
            if process.returncode is None:
                await self._look()

    async def _look(self) -> None:
        """See that not too much was printed; pass on what was since the last look, if anybody wants it."""
        if self._told is None:
            await self._hop(self._spool.check)
            return
        while piece := await self._hop(self._spool.more):
            self._heed()
            self._told(piece)

    async def _end(self, family: Family) -> None:
        gone = await self._press(family, signal.SIGTERM, self._command.grace_s)
        if not gone and not await self._press(family, signal.SIGKILL, KILLING):
            log.error("processes of a run are left", mark=self._command.mark, pids=self._left)
            if self._exit is not None:
                self._exit.cancel()
        while self._exit is not None and not self._exit.done():
            await self._wait(self._exit, None)

    async def _press(self, family: Family, number: signal.Signals, seconds: float) -> bool:
        """Signal what is left until nothing is; False when it outlives `seconds`, or there is hurry."""
        end, pause = self._loop.time() + seconds, 0.001
        while number is signal.SIGKILL or not self._hurry.is_set():
            if await self._is_clear(family, number):
                return True
            left = end - self._loop.time()
            if left <= 0:
                break
            await self._pause(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
        return False

    async def _is_clear(self, family: Family, number: signal.Signals) -> bool:
        try:
            self._left = await self._hop(partial(family.press, number))
        except OSError as error:  # the lane is stuck, or no descriptor is free
            log.warning("processes of a run not seen", mark=self._command.mark, error=str(error))
            self._signal_group(number)
            return False
        return not self._left and self._has_ended()

    def _signal_group(self, number: signal.Signals) -> None:
        """What can be done without looking. Never `Process.kill`: that takes the exit status from asyncio."""
        if self._process is not None and not self._has_ended():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def _pause(self, seconds: float) -> None:
        """At most `seconds`, and not beyond the end of the main process."""
        if self._process is None or self._has_ended():
            await self._wait(self._loop.create_future(), seconds)
            return
        if self._exit is None or self._exit.cancelled():  # with all of the loop's tasks, at its end
            self._exit = asyncio.ensure_future(self._process.wait())
        await self._wait(self._exit, seconds)

    async def _hop(self, call: Callable[[], T]) -> T:
        """What the call in the lane returns or raises; `OSError` (ETIMEDOUT) when the lane is stuck."""
        hop: Hop[T] = Hop(self._loop)
        self._lane.submit(call, hop.end)
        begun = self._loop.time()
        while not hop.over:
            if self._loop.time() - begun > (HURRIED if self._hurry.is_set() else HANG):
                raise OSError(errno.ETIMEDOUT, "the disk does not answer", str(self._command.scratch))
            await self._wait(hop.waiter, LOOK)
        return await hop.outcome()

    async def _wait(self, future: asyncio.Future[T], seconds: float | None) -> None:
        """Until it is done, at most `seconds`, and shorter when a cancellation comes."""
        try:
            await asyncio.wait([future], timeout=seconds)
        except asyncio.CancelledError:
            self._cancelled = True

    def _heed(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError
