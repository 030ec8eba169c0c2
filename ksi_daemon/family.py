"""The processes of one run and their descendants: found, signalled, reaped, and swept up after a crash."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import structlog

from ksi_daemon.proctable import MARK, Process, Table, become_subreaper, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MARK", "Family", "become_subreaper", "reap_adopted", "sweep", "sweep_once"]

log = structlog.get_logger("ksi.daemon")

UNCLAIMED = 0.5
"""Seconds after which a dead child that nobody has waited for is an adopted one. Whoever starts a child waits
for it: asyncio's threads and `subprocess.run` have its status within a moment of its death."""

SWEEPING = 3.0
"""Seconds for which `sweep` tries."""

_running: dict[str, Family] = {}
"""The families of now, by mark: what one of them may take for its own depends on the others."""

_swept: set[str] = set()
"""Prefixes of marks for which `sweep_once` has been called."""

_unclaimed: dict[tuple[int, int], float] = {}
"""Dead children by pid and start, and when each was first seen so."""

_reaping = threading.Lock()


class Family:
    """The processes of the run with this mark, made before the first one is started; `over` at its end.

    A process belongs to it by the mark in its environment, as a descendant of one that does, or by being in a
    session that one of those leads; once seen it stays so. What got away from all that (a daemon in a session
    of its own, whose environment was cleared and whose parents are dead) has become our child where we adopt;
    it belongs to the run if no other one now running was there when it began.

    `press` blocks and is for a lane; all else is for the loop's thread.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._table = table()
        self._since = self._table.now()
        self._main = 0
        self._groups: set[int] = set()
        self._seen: set[tuple[int, int]] = set()
        self._told: set[tuple[int, int]] = set()
        self._before: set[Process] = set()
        _running[mark] = self

    def started(self, main: int) -> None:
        """Name the process that was started, in a session of its own; its exit status is its starter's."""
        self._groups.add(main)
        self._main = main

    def over(self) -> None:
        """Nothing is left, or nothing more can be done."""
        _running.pop(self._mark, None)

    def press(self, number: signal.Signals) -> list[int]:
        """Signal what lives and reap what is dead; what is not known to be gone, so call it until empty.

        SIGTERM is sent once to each process, with SIGCONT, since a stopped one would not notice; SIGKILL each
        time. Raises `OSError` when the process table cannot be read.
        """
        processes = self._table.look()
        found = self._members(processes)
        # A look is no instant: what was just about to start another one while it ended proves nothing yet
        changed = set(found) - self._before
        self._before = set(found)
        left = [process for process in found if self._is_left(process) or process in changed]
        for process in left:
            self._send(process, number)
        _reap_unclaimed(self._table, processes)
        return [process.pid for process in left]

    def _members(self, processes: list[Process]) -> list[Process]:
        fresh = [process for process in processes if process.start >= self._since]
        strays = set(self._strays(fresh))
        found = _grow(fresh, self._groups, lambda process: process in strays or self._is_known(process))
        self._seen.update((process.pid, process.start) for process in found)
        return found

    def _is_known(self, process: Process) -> bool:
        return (process.pid, process.start) in self._seen or self._table.mark(process.pid) == self._mark

    def _strays(self, fresh: list[Process]) -> Iterable[Process]:
        """Adopted children of an unknown run that can be of no other one.

        What the daemon itself starts in its own session is never one of them. What it starts in a session of
        its own must be a run's main process: a child that another run is just starting has no mark yet.
        """
        if not self._table.adopts():
            return
        here, own, others = os.getpid(), self._table.own_group(), tuple(_running.values())
        for process in fresh:
            if process.parent != here or process.group in {own, self._main}:
                continue
            if any(other is not self and other._since <= process.start for other in others):  # noqa: SLF001
                continue
            if self._table.mark(process.pid) is None:
                yield process

    def _is_left(self, process: Process) -> bool:
        """Whether it lives, or is dead and nobody else's to reap; reaps it if it can."""
        if process.alive:
            return True
        adopted = process.parent == os.getpid() and process.pid != self._main and self._table.adopts()
        # Its leading thread may be a zombie before it is one as a whole: then there is no status yet
        return adopted and not self._table.reap(process)

    def _send(self, process: Process, number: signal.Signals) -> None:
        key = process.pid, process.start
        if number is signal.SIGTERM:
            if key in self._told:
                return
            self._told.add(key)
            self._table.send(process, number)
            self._table.send(process, signal.SIGCONT)
        else:
            self._table.send(process, number)


def reap_adopted() -> int:
    """Take the exit status of adopted orphans that are dead; how many. Blocks shortly.

    Only what two calls (a run's end is one, too) saw dead, at least `UNCLAIMED` seconds apart: so none is
    taken from asyncio or subprocess, who wait for theirs. Raises `OSError` when the process table cannot be
    read.
    """
    processes = table()
    return _reap_unclaimed(processes, processes.look())


def _reap_unclaimed(known: Table, processes: list[Process]) -> int:
    if not known.adopts():
        return 0
    mains = {family._main for family in tuple(_running.values())}  # noqa: SLF001
    dead = {
        (process.pid, process.start): process
        for process in processes
        if not process.alive and process.parent == os.getpid() and process.pid not in mains
    }
    now = time.monotonic()
    with _reaping:
        for gone in _unclaimed.keys() - dead.keys():
            del _unclaimed[gone]
        due = [key for key in dead if now - _unclaimed.setdefault(key, now) >= UNCLAIMED]
        return sum(known.reap(dead[key]) for key in due)


def sweep(prefix: str) -> int:
    """SIGKILL what runs with a mark that begins with `prefix`, and its descendants; how many. Blocks.

    That is what a daemon that was killed left behind. It is called before the first run of the next one,
    which holds the root's lock, and spares this process and those that it descends from: a turn may have
    started it. Where environments cannot be read (not Linux) it finds nothing. Raises `OSError` when the
    process table cannot be read.
    """
    processes, ended = table(), set[tuple[int, int]]()
    until = time.monotonic() + SWEEPING
    while time.monotonic() < until:
        left = _left_behind(processes, prefix)
        if not left:
            break
        for process in left:
            ended.add((process.pid, process.start))
            processes.send(process, signal.SIGKILL)
        time.sleep(0.005)
    return len(ended)


def sweep_once(prefix: str) -> None:
    """As `sweep`, but only the first call in a process does anything: what comes later is its own.

    So no flip ends the runs of the side that it relieves. A failure is told in the log, and no more: it is no
    reason not to begin.
    """
    if prefix in _swept:
        return
    _swept.add(prefix)
    try:
        ended = sweep(prefix)
    except OSError as error:
        log.warning("cannot see what an earlier daemon left", error=str(error))
        return
    if ended:
        log.info("ended what an earlier daemon left", processes=ended)


def _left_behind(known: Table, prefix: str) -> list[Process]:
    processes = known.look()
    spared = _line(processes, os.getpid())
    others = [process for process in processes if process.alive and process.pid not in spared]
    return _grow(others, set(), lambda process: (known.mark(process.pid) or "").startswith(prefix))


def _line(processes: list[Process], pid: int) -> set[int]:
    """`pid` and those that it descends from."""
    parents = {process.pid: process.parent for process in processes}
    line = set[int]()
    while pid in parents and pid not in line:
        line.add(pid)
        pid = parents[pid]
    return line


def _grow(processes: list[Process], groups: set[int], begins: Callable[[Process], bool]) -> list[Process]:
    """The processes with which it begins, their descendants, and who is in `groups`, which grows with them.

    A group counts only by its leader: one that a stranger leads, such as a login shell, has strangers in it.
    """
    found = {process.pid: process for process in processes if begins(process)}
    new = list(found.values())
    while True:
        groups.update(process.pid for process in new if process.pid == process.group)
        new = [
            process
            for process in processes
            if process.pid not in found and (process.parent in found or process.group in groups)
        ]
        if not new:
            return list(found.values())
        found.update((process.pid, process) for process in new)
