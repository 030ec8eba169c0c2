"""The check that no reader, at any instant, sees what the control would not show between two calls."""

from __future__ import annotations

import asyncio
import mmap
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ksi_daemon.switch import GATED
from ksi_migrate.paritycheck.concurrency import ask_at_once
from ksi_migrate.paritycheck.contrast import Mismatch, windows
from ksi_migrate.paritycheck.sides import Candidate, control
from ksi_migrate.paritycheck.trial import Outcome, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.sides import Make
    from ksi_migrate.paritycheck.trial import Trial

ROUNDS = 10
AT_ONCE = 20
"""Writes that begin together; between two rounds the reader looks at least once."""

NO_FILE = "a reader during writes: a component that runs processes has no file that grows or is replaced"
NEW_FILES = "a reader during writes: a component that reads only ever adds files, under names of their own"

PAUSE = 0.0005
"""Seconds that the loop leaves the interpreter to the reader."""


async def check(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """Each side writes while a thread reads its first file without a pause."""
    if trial.area.kind not in GATED:
        yield Outcome("readers", left_out=NEW_FILES if trial.area.kind == "read" else NO_FILE)
        return
    states = await trial.once("states for readers", lambda: _states(trial))
    for side, make in (("async", Candidate), ("sync", control)):
        yield _judged(
            f"a reader during {ROUNDS * AT_ONCE} writes, {side}", trial, states, await _seen(trial, make)
        )


async def _states(trial: Trial) -> list[bytes]:
    """What the control's file holds before the first write and after each, in order."""
    async with trial.rig(control) as rig:
        await prepare(trial, rig)
        states = [_content(rig.main)]
        for _ in range(ROUNDS):
            rig.next_request()
            for number in range(AT_ONCE):
                await rig.ask(trial.writes[number % 2])
                states.append(_content(rig.main))
        return states


async def _seen(trial: Trial, make: Make) -> list[bytes]:
    async with trial.rig(make) as rig:
        await prepare(trial, rig)
        async with _reading(rig.main) as reader:
            for _ in range(ROUNDS):
                await _round(trial, rig)
                await reader.look_again()
        return reader.seen


async def _round(trial: Trial, rig: Rig) -> None:
    rig.next_request()
    await ask_at_once(rig, [trial.writes[number % 2] for number in range(AT_ONCE)])


def _judged(name: str, trial: Trial, states: list[bytes], seen: list[bytes]) -> Outcome:
    allowed, last = set(states), states[-1]
    paged = trial.area.kind == "append"
    wrong = [one for one in seen if one not in allowed and not (paged and _page_of(last, one))]
    if seen[-1] != last:
        wrong.append(seen[-1])
    return Outcome(name, tuple(_mismatch(name, last, one) for one in wrong[:1]))


def _page_of(last: bytes, one: bytes) -> bool:
    """The kernel shows a growing file page by page: either side may be seen at a page's end."""
    return len(one) % mmap.PAGESIZE == 0 and last.startswith(one)


def _mismatch(name: str, last: bytes, one: bytes) -> Mismatch:
    sync, found = windows(last, one)
    return Mismatch(name, f"{len(one)} bytes that never stood in the file between two calls", sync, found)


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


class _Reader(threading.Thread):
    """Reads a file again and again; keeps each content that is not the one before."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="ksi-parity-reader", daemon=True)
        self.seen: list[bytes] = []
        self._path = path
        self._looks = 0
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.is_set():
            self._look()

    async def look_again(self) -> None:
        """Wait until it has looked once more, from beginning to end."""
        wanted = self._looks + 2
        while self._looks < wanted and self.is_alive():  # noqa: ASYNC110 - an event per look would slow it down
            await asyncio.sleep(PAUSE)

    def end(self) -> None:
        """Look a last time."""
        self._enough.set()
        self.join()
        self._look()

    def _look(self) -> None:
        content = _content(self._path)
        if not self.seen or content != self.seen[-1]:
            self.seen.append(content)
        self._looks += 1


@asynccontextmanager
async def _reading(path: Path) -> AsyncIterator[_Reader]:
    reader = _Reader(path)
    reader.start()
    try:
        yield reader
    finally:
        reader.end()
