"""The loop guard: on the async side a test fails when the loop's thread blocks, on the sync side it must.

Three protections, all of which record and let the call go on, so that the code under test behaves as ever:
an audit hook (open, listdir, rename, Popen …), blockbuster's patches for calls that raise no audit event
(stat, sleep, sqlite, reads and writes of open files …), and a watchdog for everything else, CPU included.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blockbuster import BlockBuster, BlockBusterFunction

from tests.guard_calls import AUDITED, FILE_METHODS, LEFT_TO_AUDIT, PLAIN_CALLS
from tests.guard_stack import DAEMON, Stack, counts, shown, stack_of
from tests.guard_watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

_AUDITED = frozenset(AUDITED)  # looked up for every audit event of the process
_MOST_SHOWN = 8


class LoopBlocked(AssertionError):
    """The loop's thread blocked where it must not."""


class GuardAsleep(AssertionError):
    """The guard saw nothing where blocking calls were sure: its silence elsewhere proves nothing."""


class LoopGuard:
    """What was seen on the thread that made it, while a loop ran there."""

    def __init__(self, watched: tuple[str, ...]) -> None:
        self.seen: Counter[tuple[str, Stack]] = Counter()
        self._watched = watched
        self._thread = threading.get_ident()
        self._pauses = 0

    @property
    def names(self) -> set[str]:
        """What blocked, by the names of the calls."""
        return {what for what, _ in self.seen}

    @contextmanager
    def paused(self) -> Generator[None]:
        """Overlook what happens within: for lines of a test that let the daemon's code block on purpose."""
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1

    def hears(self) -> bool:
        """Whether this call is on the guarded thread, in a running loop."""
        return (
            threading.get_ident() == self._thread
            and not self._pauses
            and asyncio._get_running_loop() is not None
        )

    def record(self, what: str, frame: FrameType) -> None:
        """Note the call, if its stack says that it counts. Does no I/O: it runs inside audit events."""
        stack = stack_of(frame)
        if not self._pauses and counts(stack, self._watched):
            self.seen[what, stack] += 1

    def report(self) -> str:
        """What blocked, how often, and from where."""
        total = sum(self.seen.values())
        most = self.seen.most_common(_MOST_SHOWN)
        found = [f"  {times} × {what}\n{shown(stack)}" for (what, stack), times in most]
        places = (
            f"at {len(self.seen)} places, the first {len(most)}" if len(self.seen) > len(most) else "here"
        )
        return "\n".join([f"the loop's thread blocked {total} times, {places}:", *found])


_active: LoopGuard | None = None
_hooked = False


def _harmless(event: str, args: tuple[Any, ...]) -> bool:
    """Locks that do not wait, and `open` of a descriptor, which opens nothing."""
    if event in {"fcntl.flock", "fcntl.lockf"}:
        return bool(args[1] & (fcntl.LOCK_NB | fcntl.LOCK_UN))
    return event == "open" and isinstance(args[0], int)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    """The audit hook. It can never be taken out again; without an active guard it returns at once."""
    guard = _active
    if guard is not None and event in _AUDITED and guard.hears() and not _harmless(event, args):
        guard.record(event, sys._getframe(1))


def _hook_once() -> None:
    global _hooked  # noqa: PLW0603  (a hook is for the life of the process)
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True


def _does_not_wait(_pid: int, options: int) -> bool:
    return bool(options & os.WNOHANG)


def _never(*_args: Any, **_options: Any) -> bool:
    return False


def _is_no_file(file: Any) -> bool:
    """Whether it is in memory or a device, such as the null device that pytest logs to; or closed."""
    try:
        return stat.S_ISCHR(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):
        return True


def _is_log(file: Any) -> bool:
    """Whether `file` is stdout or stderr, or a layer of them, or no file at all."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    buffers = [getattr(stream, "buffer", None) for stream in streams]
    layers = (*streams, *buffers, *(getattr(buffer, "raw", None) for buffer in buffers))
    return any(file is layer for layer in layers) or _is_no_file(file)


def _recording(name: str, may_block: Callable[..., bool]) -> Callable[..., bool]:
    """A predicate in blockbuster's sense that records instead of refusing: it always lets the call go on."""
    is_log = _is_log if name.startswith("io.") else _never

    def predicate(*args: Any, **options: Any) -> bool:
        guard = _active
        if guard is not None and guard.hears() and not (may_block(*args, **options) or is_log(*args[:1])):
            guard.record(name, sys._getframe(1))
        return True

    return predicate


_ALSO_PATCHED: dict[str, Callable[..., bool]] = {
    "os.waitpid": _does_not_wait,
    **dict.fromkeys(FILE_METHODS, _never),
    **{name: _never for name in PLAIN_CALLS if hasattr(os, name.removeprefix("os."))},
}
"""Each call, with the question whether this one of it is harmless."""


def _patches() -> BlockBuster:
    """Blockbuster with its table and ours, each entry recording."""
    patches = BlockBuster()
    for name in LEFT_TO_AUDIT:
        del patches.functions[name]
    for name, harmless in _ALSO_PATCHED.items():
        patches.functions[name] = BlockBusterFunction(None, name, can_block_predicate=harmless)
    for name, function in patches.functions.items():
        function.can_block_predicate = _recording(name, function.can_block_predicate)
    return patches


@contextmanager
def _watching(guard: LoopGuard, stall_ms: float) -> Generator[LoopGuard]:
    """Put all three protections up, and take them down whatever happens."""
    global _active  # noqa: PLW0603  (the audit hook can be reached in no other way)
    if _active is not None:
        raise RuntimeError("a loop guard is watching already: leave it before the next one")
    _hook_once()
    patches, dog = _patches(), Watchdog(stall_ms / 1e3, guard.record)
    patches.activate()
    dog.start()
    _active = guard
    try:
        yield guard
    finally:
        _active = None
        dog.stop()
        patches.deactivate()


@contextmanager
def loop_guard(*, watched: tuple[str, ...] = DAEMON, stall_ms: float = 250) -> Generator[LoopGuard]:
    """Fail with `LoopBlocked` at the end when code below `watched` blocked the loop of this thread.

    An error of the body goes first, with what was seen as its note.
    """
    guard = LoopGuard(watched)
    try:
        with _watching(guard, stall_ms):
            yield guard
    except BaseException as error:
        if guard.seen:
            error.add_note(guard.report())
        raise
    if guard.seen:
        raise LoopBlocked(guard.report())


@contextmanager
def expect_trip(*, watched: tuple[str, ...] = DAEMON, stall_ms: float = 250) -> Generator[LoopGuard]:
    """The same guard where blocking is sure: fails with `GuardAsleep` at the end when it saw nothing."""
    with _watching(LoopGuard(watched), stall_ms) as guard:
        yield guard
    if not guard.seen:
        raise GuardAsleep("no blocking call was seen on the loop's thread: the guard sleeps, or nothing ran")


GUARDS = {"sync": expect_trip, "async": loop_guard}
"""The guard for each side: the control must trip what the candidate must not."""
