"""Samples a daemon under the demo's load, and hands each picture on."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from ksi_migrate.demo_frame import Figures, Frame, p99

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from ksi_migrate.demo_load import Load

T = TypeVar("T")
ANSWER_S = 15.0
"""As long as the load's own patience: the figures of a stall that is longer than this are lost."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened since the last one; `loop` and `status` are the daemon's words, empty if it gave none."""

    at: float
    acknowledged: int
    pings: tuple[float, ...]
    loop: dict[str, Any]
    status: dict[str, Any]

    def stages(self) -> dict[str, str]:
        """The stage in force of each component, or "not built"."""
        rows = self.status.get("components", ())
        return {row["name"]: row["effective"] if row["built"] else "not built" for row in rows}

    def durability(self) -> str:
        """When a write counts as done: the word of all components that write, or all words."""
        rows = self.status.get("components", ())
        return " and ".join(sorted({row["durability"] for row in rows if row["durability"]}))


class Meter:
    """Samples the daemon every `period` seconds while `run` runs. Its figures are of whole samples only."""

    def __init__(self, socket: Path, load: Load, show: Callable[[Frame], None], period: float) -> None:
        self._socket = socket
        self._load = load
        self._show = show
        self._period = period
        self._began = time.monotonic()
        self._phase = ""
        self._note = ""
        self._last = Sample(time.monotonic(), 0, (), {}, {})
        self._window: list[Sample] = []
        self._sampled = asyncio.Event()

    def say(self, phase: str, note: str = "") -> None:
        """Name what goes on, from the next frame on."""
        self._phase, self._note = phase, note

    async def run(self) -> None:
        """Sample and show until cancelled; a daemon that does not answer gives frames without figures."""
        while True:
            await asyncio.sleep(self._period)
            sample = await self._sample()
            before, self._last = self._last, sample
            self._window.append(sample)
            self._sampled.set()
            self._sampled.clear()
            self._show(self._frame(before, sample))

    async def next_sample(self) -> Sample:
        """Wait for the next sample that is complete."""
        await self._sampled.wait()
        return self._last

    async def measure(self, seconds: float) -> Figures:
        """The figures of the next `seconds`, rounded up to whole samples; one sample passes first."""
        start = await self.next_sample()
        window: list[Sample] = []
        self._window = window
        while self._last.at - start.at < seconds:
            await self.next_sample()
        return _figures(start, tuple(window))

    async def during(self, work: Awaitable[T]) -> tuple[T, Figures]:
        """What `work` gives, and the figures of the samples until the first after its end."""
        start = await self.next_sample()
        window: list[Sample] = []
        self._window = window
        result = await work
        await self.next_sample()
        return result, _figures(start, tuple(window))

    async def _sample(self) -> Sample:
        loop, status = await ask(self._socket, "system:loop", "migration:status")
        pings = tuple(self._load.take_pings())
        return Sample(time.monotonic(), self._load.acknowledged, pings, loop, status)

    def _frame(self, before: Sample, now: Sample) -> Frame:
        return Frame(
            elapsed_s=now.at - self._began,
            phase=self._phase,
            rate_per_s=_rate(before, now),
            acknowledged=now.acknowledged,
            loop_stall_p99_ms=now.loop.get("loop_stall_p99_ms"),
            loop_stall_max_ms=now.loop.get("loop_stall_max_ms"),
            ping_p99_ms=p99(list(now.pings)),
            components=tuple(now.stages().items()),
            note=self._note,
        )


def _rate(before: Sample, now: Sample) -> float:
    return (now.acknowledged - before.acknowledged) / (now.at - before.at)


def _figures(start: Sample, window: tuple[Sample, ...]) -> Figures:
    last = window[-1]
    stalls = [sample.loop for sample in window if "loop_stall_p99_ms" in sample.loop]
    return Figures(
        stages=last.stages(),
        durability=last.durability(),
        seconds=last.at - start.at,
        rate_per_s=_rate(start, last),
        loop_stall_p99_ms=statistics.median(one["loop_stall_p99_ms"] for one in stalls) if stalls else None,
        loop_stall_max_ms=max((one["loop_stall_max_ms"] for one in stalls), default=None),
        ping_p99_ms=p99([ping for sample in window for ping in sample.pings]),
    )


async def ask(socket: Path, *events: str) -> list[dict[str, Any]]:
    """The data of each event's reply, on a connection of their own; an empty one where there is none."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                for event in events:
                    writer.write(orjson.dumps({"event": event, "correlation_id": event}) + b"\n")
                return [await _data(reader) for _ in events]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return [{} for _ in events]


async def _data(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The data of the next reply; frames that were not asked for are passed over."""
    while line := await reader.readline():
        frame = orjson.loads(line)
        if "correlation_id" in frame:
            data = frame.get("data")
            return data if isinstance(data, dict) and "error" not in data else {}
    return {}
