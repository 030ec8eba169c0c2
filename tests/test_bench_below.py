"""Memory and processor time of the processes below this one count, those of the idle process do not."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from ksi_migrate import bench_below
from ksi_migrate.bench_below import Below
from ksi_migrate.bench_rounds import observed
from ksi_migrate.idle import idle_heartbeat

BUSY = (
    "import sys, time; print(flush=True); sys.stdin.readline(); kept = bytearray(64 << 20)\n"
    "end = time.process_time() + 0.1\nwhile time.process_time() < end: pass\n"
    "print(flush=True); sys.stdin.readline()"
)

pytestmark = pytest.mark.skipif(not bench_below.PROC.is_dir(), reason="there is no /proc")


@contextmanager
def child():
    """A process that takes 64 MiB and works for a tenth of a second once it is told to."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def work(process):
    """Have it do that."""
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.stdout.readline()


def test_what_a_child_takes_is_counted():
    """From `begin` on; a child of a child would be too."""
    with child() as process:
        below = Below(0)
        below.begin()
        before = below.cpu_s(), below.peak_mib()
        work(process)
        after = below.cpu_s(), below.peak_mib()

    assert after[0] - before[0] >= 0.08
    assert after[1] - before[1] > 32


def test_one_that_does_not_count_is_left_out():
    """The idle process is a child as well."""
    with child() as process:
        below = Below(process.pid)
        below.begin()
        work(process)

        assert process.pid not in set(below._pids())


def test_one_that_has_gone_used_nothing():
    """Between finding a process and reading of it, it may end."""
    assert bench_below._cpu_s(2**22 + 1) == 0.0


def test_without_proc_nothing_is_known(monkeypatch, tmp_path):
    """As on a Mac."""
    monkeypatch.setattr(bench_below, "PROC", tmp_path / "none")
    below = Below(0)
    below.begin()

    assert (below.cpu_s(), below.peak_mib()) == (0.0, 0.0)


async def test_a_round_counts_workers_unless_they_are_anothers():
    """Their memory is in the peak, but for a column that has none itself."""

    async def nothing():
        os.getpid()

    async with idle_heartbeat() as idle:
        with child() as process:
            work(process)
            whole = await observed(idle, "here", nothing())
            own = await observed(idle, "here", nothing(), workers=False)

    assert whole.rss_peak_mib > own.rss_peak_mib + 64
