"""The command without blocking: each turn a child of its own, and nothing of it left when it is over."""

from __future__ import annotations

import asyncio
import errno
import os
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from ksi_daemon import children
from ksi_daemon.claude_cli.core import Ended, Turn
from ksi_daemon.claude_cli.failures import OutputTooLarge, StartFailed, TurnTimedOut
from ksi_daemon.claude_cli.places import Places
from ksi_daemon.errors import ComponentClosed, IoFailed
from ksi_daemon.lane import Hop, Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.site import Site

T = TypeVar("T")

SWEEP = 2.0
"""Seconds that a start waits for the end of what an earlier daemon left; no turn begins before it anyway."""

CLOSE = 1.0
"""Seconds that killed commands, and then the lane, have for their end."""

log = structlog.get_logger("ksi.claude_cli")


class _Running:
    """One turn under way; `hurry` ends the grace that it has once it is being ended."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.hurry = asyncio.Event()
        self.command: asyncio.Task[children.Finished] | None = None
        self.given_up = False

    def end(self) -> None:
        """Have the command ended: at first it is asked, on the second call it is killed."""
        if self.given_up:
            self.hurry.set()
        self.given_up = True
        if self.command is not None:
            self.command.cancel()


class AsyncClaudeCli:
    """The candidate. Needs a running loop from `open` on.

    What blocks is done on one lane: to find the program, to make directories and files, to read what was
    printed. A lane that does not answer within `call_timeout` costs an error.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._places = Places(site)
        self._lane: Lane
        self._running: set[_Running] = set()
        self._closed = True

    async def open(self) -> None:
        """Start the lane; end what an earlier daemon left running."""
        self._lane = Lane(f"ksi-{self._site.component}")
        self._closed = False
        sweeping: Hop[None] = Hop(asyncio.get_running_loop())
        self._lane.submit(self._places.sweep, sweeping.end)
        await asyncio.wait([sweeping.waiter], timeout=SWEEP)
        if not sweeping.over:
            log.warning("still looking for what an earlier daemon left")

    async def close(self) -> None:
        """Kill what still runs, then let go of the lane; a turn that it cuts off gets `ComponentClosed`."""
        self._closed = True
        for running in self._running:
            running.hurry.set()
            running.end()
        commands = [running.command for running in self._running if running.command is not None]
        if commands:
            await asyncio.wait(commands, timeout=CLOSE)
        await self._lane.close(CLOSE)

    def pending(self) -> str | None:
        """How many turns run, and how long the first has, in words; None without any."""
        if not self._running:
            return None
        longest = asyncio.get_running_loop().time() - min(running.since for running in self._running)
        return f"{len(self._running)} turns, the longest for {longest:.1f} s"

    async def turn(self, turn: Turn) -> Ended:
        """Run the command to its end. Cancelled, it asks the command to end; cancelled again, it kills it."""
        running = _Running(asyncio.get_running_loop().time())
        self._running.add(running)
        try:
            program = await self._blocking(partial(self._places.prepare, turn), f"make {turn.cwd}")
            return await self._run(running, program, turn)
        finally:
            self._running.discard(running)

    async def remember(self, session: str, cwd: str) -> None:
        """Written on the lane, to the end even when cancelled."""
        await self._blocking(partial(self._places.remember, session, cwd), "remember a session")

    async def recall(self, session: str) -> str:
        """Read on the lane."""
        return await self._blocking(partial(self._places.recall, session), "recall a session")

    async def _run(self, running: _Running, program: str, turn: Turn) -> Ended:
        self._check_open()
        running.command = asyncio.create_task(
            children.run(self._command(program, turn), self._lane, hurry=running.hurry)
        )
        try:
            finished = await self._outcome(running, running.command)
        except children.Overtime:
            raise TurnTimedOut(turn.deadline_s) from None
        except children.Flood:
            raise OutputTooLarge(self._site.settings.claude_max_output_bytes) from None
        except OSError as error:
            raise StartFailed(self._site.component, f"start {program}", error) from error
        return Ended(finished.code, finished.stdout, finished.stderr)

    async def _outcome(
        self, running: _Running, command: asyncio.Task[children.Finished]
    ) -> children.Finished:
        """Wait for the end in any case: whoever cancels may count on nothing being left."""
        cancelled = False
        while not command.done():
            try:
                await asyncio.wait([command])
            except asyncio.CancelledError:
                cancelled = True
                running.end()
        if cancelled:
            if not command.cancelled():
                command.exception()  # seen: the command was faster than the cancel
            raise asyncio.CancelledError
        if command.cancelled():
            raise ComponentClosed(self._site.component)
        return command.result()

    def _command(self, program: str, turn: Turn) -> children.Command:
        settings = self._site.settings
        return children.Command(
            argv=(program, *turn.argv),
            cwd=turn.cwd,
            env=self._places.environment(),
            mark=self._places.mark(turn),
            stdin=turn.prompt.encode(),
            deadline_s=turn.deadline_s,
            grace_s=settings.claude_grace,
            most_bytes=settings.claude_max_output_bytes,
            scratch=self._places.scratch,
        )

    async def _blocking(self, call: Callable[[], T], action: str) -> T:
        """What `call()` returns or raises on the lane; `IoFailed` with ETIMEDOUT when the lane is stuck."""
        self._check_open()
        loop = asyncio.get_running_loop()
        hop: Hop[T] = Hop(loop)
        self._lane.submit(call, hop.end)
        cause = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        late = IoFailed(self._site.component, action, cause)
        timer = loop.call_later(self._site.settings.call_timeout, hop.end, None, late)
        try:
            return await hop.outcome()
        finally:
            timer.cancel()

    def _check_open(self) -> None:
        if self._closed:
            raise ComponentClosed(self._site.component)
