"""The processes below this one, such as a room's workers: the memory and processor time that they use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ksi_daemon import proctable
from ksi_migrate.bench_memory import forget_peak, known_peak_mib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROC: Final = Path("/proc")


class Below:
    """All of them but the process `but` and what is below that. Where there is no /proc they use nothing."""

    def __init__(self, but: int) -> None:
        self._but = but
        self._began: Mapping[int, float] = {}

    def begin(self) -> None:
        """Forget their peaks, and count processor time from now on."""
        pids = list(self._pids())
        for pid in pids:
            forget_peak(PROC / str(pid) / "clear_refs")
        self._began = {pid: _cpu_s(pid) for pid in pids}

    def cpu_s(self) -> float:
        """Processor seconds since `begin` of those that are still there; the kernel counts hundredths."""
        return sum(max(0.0, _cpu_s(pid) - self._began.get(pid, 0.0)) for pid in self._pids())

    def peak_mib(self) -> float:
        """The sum of their peaks: more than there ever was, since what they share is in each of them."""
        return sum(known_peak_mib(PROC / str(pid) / "status") or 0.0 for pid in self._pids())

    def _pids(self) -> Iterator[int]:
        """Found anew each time: a worker may have come since."""
        if not PROC.is_dir():
            return
        children: dict[int, list[int]] = {}
        for process in proctable.table().look():
            children.setdefault(process.parent, []).append(process.pid)
        waiting = [os.getpid()]
        while waiting:
            below = [pid for pid in children.get(waiting.pop(), []) if pid != self._but]
            waiting += below
            yield from below


def _cpu_s(pid: int) -> float:
    """User and system time, fields 14 and 15 of proc(5)'s stat; 0 of a process that has gone."""
    try:
        _, _, rest = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")
        user, system = rest.split()[11:13]
    except (OSError, ValueError):
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
