"""A thread that samples the loop's thread: which callback has held it for too long, in whatever way."""

from __future__ import annotations

import sys
import threading
import time
from asyncio import Handle
from typing import TYPE_CHECKING

from tests.guard_stack import callback_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def _cpu_clock() -> Callable[[], float]:
    """The CPU time of the calling thread, to be read from any other; wall time where there is none."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


class Watchdog(threading.Thread):
    """Made on the loop's thread; calls `report(what, frame)` once for each callback that outlives `limit_s`.

    What a callback computes is measured by its CPU time: a busy machine does not lengthen it, and a call in
    C that keeps the interpreter's lock does not hide it. What it waits is counted in samples, a late one as
    two: this thread's own lateness is nobody's fault.
    """

    def __init__(self, limit_s: float, report: Callable[[str, FrameType], None]) -> None:
        super().__init__(name="loop-watchdog", daemon=True)
        self._limit_s = limit_s
        self._tick_s = limit_s / 10
        self._report = report
        self._watched = threading.get_ident()
        self._cpu = _cpu_clock()
        self._cpu_at_begin = self._cpu()
        self._ended = threading.Event()
        self._callback: FrameType | None = None
        self._waited_s = 0.0
        self._told = False
        self._run_callback = Handle._run

    def start(self) -> None:
        """Begin to look, and have the loop note when each callback begins."""
        run_callback = self._run_callback

        def _run(handle: Handle) -> None:
            if threading.get_ident() == self._watched:
                self._cpu_at_begin = self._cpu()
            run_callback(handle)

        Handle._run = _run  # type: ignore[method-assign, assignment]
        super().start()

    def stop(self) -> None:
        """Undo `start`: the thread has ended, and the last frame seen is let go."""
        Handle._run = self._run_callback  # type: ignore[method-assign]
        self._ended.set()
        self.join()
        self._callback = None

    def run(self) -> None:
        """Look ten times within the limit, until stopped."""
        seen = time.monotonic()
        while not self._ended.wait(self._tick_s):
            now = time.monotonic()
            self._look(min(now - seen, 2 * self._tick_s))
            seen = now

    def _look(self, passed_s: float) -> None:
        frame = sys._current_frames().get(self._watched)
        callback = callback_of(frame)
        if callback is not self._callback:
            self._callback, self._waited_s, self._told = callback, -passed_s, False
        self._waited_s += passed_s
        held_s = max(self._waited_s, self._cpu() - self._cpu_at_begin)
        if frame is not None and callback is not None and held_s > self._limit_s and not self._told:
            self._told = True
            self._report(f"held the loop for more than {self._limit_s * 1e3:g} ms", frame)
