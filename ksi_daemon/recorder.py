"""Writes down what the conductor did: the stages in force in `state.json`, each change in the journal."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon import stages, wire
from ksi_daemon.errors import KsiError
from ksi_daemon.lane import Lane
from ksi_daemon.linefile import LineFile, private_directory
from ksi_daemon.stages import StagesInvalid, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ksi_daemon.settings import Settings
    from ksi_daemon.stages import InForce

log = structlog.get_logger("ksi.migration")

JOURNAL = "journal.jsonl"
"""In `var/migrate`: who changed what, when and why; `ksi-migrate` appends to it too."""

AGAIN = 2.0
"""Seconds after which a recording that the disk refused is tried again."""

CLOSE = 1.0
"""Seconds that the last recording has when the daemon stops."""


class Recorder:
    """Its own lane: a disk that refuses or hangs delays the record, never a flip. Nothing noted is dropped.

    `acknowledged` is what `state.json` holds by now.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.migrate_dir
        self._lane = Lane("ksi-migration")
        self._journal = LineFile(settings.migrate_dir / JOURNAL, "migration")
        self._entries: list[dict[str, Any]] = []
        self._state: Callable[[], State] | None = None
        self._recording: asyncio.Task[None] | None = None
        self._pausing = False
        self._wake = asyncio.Event()
        self._closed = False
        self.acknowledged: Mapping[str, InForce] = {}

    @property
    def settled(self) -> bool:
        """Whether nothing is being written; what the disk refused shows in `acknowledged`."""
        return self._pausing or self._idle()

    async def last(self) -> State | None:
        """What the last daemon acknowledged; None for a first start, or when it cannot be used."""
        try:
            found = await self._lane.run(partial(stages.load_state, self._folder))
        except StagesInvalid as error:
            log.warning("last stages not usable", error=str(error))
            return None
        if found is not None:
            self.acknowledged = found.components
        return found

    def record(self, state: Callable[[], State], *entries: dict[str, Any]) -> None:
        """Have the state of that moment and these journal entries written soon, the entries in order."""
        self._entries.extend(entries)
        self._state = state
        self._wake.set()
        if self._idle():
            self._recording = asyncio.create_task(self._record())

    async def close(self) -> None:
        """Wait for the recording under way, then let go of journal and lane."""
        self._closed = True
        self._wake.set()
        if self._recording is not None:
            await asyncio.wait([self._recording], timeout=CLOSE)
        self._lane.submit(self._journal.close, lambda _result, _error: None)
        await self._lane.close(CLOSE / 2)

    def _idle(self) -> bool:
        return self._recording is None or self._recording.done()

    async def _record(self) -> None:
        while self._state is not None:
            state, self._state = self._state(), None
            entries, self._entries = self._entries, []
            try:
                await self._lane.run(partial(self._write, state, entries))
            except (OSError, KsiError) as error:
                log.warning("stages not recorded", error=str(error), again_in_s=AGAIN)
                self._entries = entries + self._entries
                await self._pause(state)
            else:
                self.acknowledged = state.components

    async def _pause(self, state: State) -> None:
        """Before the next try; a newer state comes at once and in this one's place, a stop ends the tries."""
        self._wake.clear()
        self._pausing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN):
                await self._wake.wait()
        self._pausing = False
        if not self._closed and self._state is None:
            self._state = lambda: state

    def _write(self, state: State, entries: list[dict[str, Any]]) -> None:
        """On the lane's thread."""
        private_directory(self._folder)
        if entries:
            self._journal.open()
            self._journal.append(b"".join(map(wire.encode, entries)), "fsync")
            entries.clear()  # written: what follows may fail and be tried again
        stages.save_state(self._folder, state)
