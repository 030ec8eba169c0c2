"""How long the event loop stands still: the lateness of a 1 ms heartbeat on the loop's own thread."""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BEAT_S = 0.001

_FINE_BITS = 9
_FINE = 1 << _FINE_BITS  # below this many µs each bucket is 1 µs wide, above it at most 0.4 % of its value
_HALF = _FINE >> 1
_OCTAVES = 25  # the last bucket begins beyond four hours
_BEAT_US = 1_000


@dataclass(frozen=True, slots=True)
class Stall:
    """Lateness over one interval, in ms; `beats` is how many 1 ms beats it speaks for (0: no evidence)."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    beats: int


class Lateness:
    """A histogram of fixed size, corrected for coordinated omission.

    One stop of the loop delays one timer, but a beat that came every millisecond would have met it many
    times. So a lateness of L ms stands for beats that were L, L-1, L-2 … ms late, down to the last one not
    early: a stop of 50 ms weighs as its 50 beats. That expansion is done when the figures are read, not when
    a beat is noted. `max_ms` is exact; percentiles are exact to 1 µs below 0.5 ms and to 0.2 % above.
    """

    __slots__ = ("_counts", "_max_s")

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * (_FINE + _OCTAVES * _HALF)))
        self._max_s = 0.0

    def note(self, late_s: float) -> None:
        """Count one timer that ran `late_s` seconds after it was due; early ones count as in time."""
        micros = max(0, int(late_s * 1e6))
        shift = max(0, micros.bit_length() - _FINE_BITS)
        bucket = shift * _HALF + (micros >> shift)
        self._counts[min(bucket, len(self._counts) - 1)] += 1
        self._max_s = max(self._max_s, late_s)

    def take(self) -> Stall:
        """The figures since the last call, and a fresh start."""
        noted = list(self._noted())
        beats = sum(count * (late // _BEAT_US + 1) for late, count in noted)
        longest_ms = self._max_s * 1e3
        self._counts = array("Q", bytes(8 * len(self._counts)))
        self._max_s = 0.0
        if not beats:
            return Stall(0.0, 0.0, 0.0, 0)
        p50, p99 = (min(_percentile(noted, beats, p) / 1e3, longest_ms) for p in (50, 99))
        return Stall(p50, p99, longest_ms, beats)

    def _noted(self) -> Iterator[tuple[int, int]]:
        """(µs late, count) of each bucket in use, the lateness in the middle of the bucket."""
        for bucket, count in enumerate(self._counts):
            if count:
                shift = max(0, bucket // _HALF - 1)
                yield ((bucket - shift * _HALF) << shift) + ((1 << shift) >> 1), count


def _percentile(noted: list[tuple[int, int]], beats: int, percent: int) -> int:
    """The least lateness in µs that `percent` of all expanded beats do not exceed."""
    allowed_above = beats * (100 - percent) // 100
    low, high = 0, max(late for late, _ in noted)
    while low < high:
        middle = (low + high) // 2
        above = sum(count * -((middle - late) // _BEAT_US) for late, count in noted if late > middle)
        low, high = (low, middle) if above <= allowed_above else (middle + 1, high)
    return low


class Heartbeat:
    """A timer of the running loop that is due every millisecond and notes how late it runs.

    Each beat is due 1 ms after the last one *ran*: on a fixed grid epoll, which waits whole milliseconds,
    would add up to one of its own. All calls belong on the loop's thread. Beating costs a few per cent of a
    core, reading under a millisecond (after the interval it reports).
    """

    def __init__(self) -> None:
        self._lateness = Lateness()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat on the running loop with an empty record; a second call changes nothing."""
        if self._timer is None:
            self._lateness = Lateness()
            self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """End the beat; what was noted stays until it is read. A second call changes nothing."""
        if self._timer is not None:
            self._note_overdue(self._timer)
            self._timer.cancel()
            self._timer = None

    def read(self) -> Stall:
        """The figures since `start` or the last `read`, a beat that is overdue at this moment included."""
        if self._timer is not None and self._note_overdue(self._timer):
            self._timer.cancel()
            self._arm(asyncio.get_running_loop())
        return self._lateness.take()

    def _note_overdue(self, timer: asyncio.TimerHandle) -> bool:
        late_s = asyncio.get_running_loop().time() - timer.when()
        if late_s > 0:
            self._lateness.note(late_s)
        return late_s > 0

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + BEAT_S
        self._timer = loop.call_at(due, self._beat, loop, due)

    def _beat(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._lateness.note(loop.time() - due)
        self._arm(loop)
