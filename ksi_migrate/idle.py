"""A heartbeat in an idle child process: how late a 1 ms beat runs on this machine when nothing blocks it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from ksi_daemon.heartbeat import Heartbeat, Stall

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator

ANSWER_S = 10.0
"""A child that has not answered after so long is not idle but stuck, and its figures would mean nothing."""


class IdleLost(RuntimeError):
    """The idle process ended or fell silent, so the machine's own noise is not known for this interval."""

    def __init__(self, pid: int, how: str) -> None:
        super().__init__(f"idle heartbeat (pid {pid}) {how}; its interval has no figures, measure it again")


class IdleHeartbeat:
    """The parent's end. One question at a time: `read` is not for two callers at once."""

    def __init__(self, child: Process) -> None:
        assert child.stdin is not None  # noqa: S101  (both are pipes: see idle_heartbeat)
        assert child.stdout is not None  # noqa: S101
        self._child = child
        self._stdin = child.stdin
        self._stdout = child.stdout

    @property
    def pid(self) -> int:
        """The child's process id, for reports and for checks that it is gone."""
        return self._child.pid

    async def read(self) -> Stall:
        """The child's figures since the last call (or its start); its next interval begins with the answer.

        Raises `IdleLost` when the child is gone, or has not answered within `ANSWER_S` seconds: it is killed
        then, since a late answer would be taken for the next interval's.
        """
        self._stdin.write(b"read\n")
        try:
            answer = await asyncio.wait_for(self._stdout.readline(), ANSWER_S)
        except TimeoutError:
            self._child.kill()
            raise IdleLost(self.pid, f"did not answer within {ANSWER_S:g} s") from None
        if not answer:
            raise IdleLost(self.pid, "ended by itself")
        return Stall(**json.loads(answer))

    async def close(self) -> None:
        """End the child by closing its stdin; killed when that does not end it. Twice is harmless."""
        self._stdin.close()
        try:
            await asyncio.wait_for(self._child.wait(), ANSWER_S)
        except TimeoutError:
            self._child.kill()
            await self._child.wait()


@asynccontextmanager
async def idle_heartbeat() -> AsyncGenerator[IdleHeartbeat]:
    """Run the second heartbeat for the length of the block; it beats from the first line of the block on.

    The child has a session of its own, so that Ctrl-C reaches only the parent, and ends with its stdin: no
    orphan is left, however the parent ends.
    """
    command = (sys.executable, "-m", "ksi_migrate.idle")
    child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
    idle = IdleHeartbeat(child)
    try:
        await idle.read()
        yield idle
    finally:
        await asyncio.shield(idle.close())


async def beat() -> None:
    """The child: one line of JSON on stdout (a `Stall`) for each line on stdin, until stdin ends."""
    loop = asyncio.get_running_loop()
    questions = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    heart = Heartbeat()
    heart.start()
    while await questions.readline():
        line = json.dumps(asdict(heart.read())) + "\n"
        os.write(sys.stdout.fileno(), line.encode())
    heart.stop()


if __name__ == "__main__":
    asyncio.run(beat())
