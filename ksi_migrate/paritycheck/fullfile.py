"""The check of a write that the kernel breaks off after some bytes: an error, and nothing of it left.

The break is real: the soft RLIMIT_FSIZE is lowered for the time of the call, so `write(2)` takes the bytes up
to the limit and the next call gets EFBIG (Python ignores SIGXFSZ).
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksi_daemon import proctable
from ksi_daemon.switch import GATED
from ksi_migrate.paritycheck.contrast import compare
from ksi_migrate.paritycheck.sides import Candidate, control
from ksi_migrate.paritycheck.trial import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from ksi_migrate.paritycheck.contrast import Seen
    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.sides import Make
    from ksi_migrate.paritycheck.trial import Trial

INHERITED = (
    "a write broken off by a limit on file sizes: processes inherit the limit, and break in their own ways"
)
NO_GROWTH = "a write broken off by a limit on file sizes: no file of a component that reads ever grows"
NO_LIMIT = "the limit on file sizes (RLIMIT_FSIZE) cannot be used here: {}"


@dataclass(frozen=True, slots=True)
class Break:
    """A broken write: what must be seen of it, what was, and how it went on."""

    wanted: list[Seen]
    found: list[Seen]
    rest: list[Seen]

    @property
    def refused(self) -> bool:
        """Whether the limit did what it is for."""
        return self.found[0] == self.wanted[0]


async def check(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """A case per number of bytes after which the second write is broken off; none if it writes no file.

    Left out for a component that runs processes: they inherit the limit, and break in their own ways; and for
    one that reads, whose few writes are new files.
    """
    if trial.area.kind not in GATED:
        yield Outcome("broken write", left_out=NO_GROWTH if trial.area.kind == "read" else INHERITED)
        return
    before, after = await trial.once("sizes", lambda: _sizes(trial))
    for limit in sorted({min(before, after - 1), (min(before, after) + after) // 2, after - 1} - {-1}):
        case = f"a write broken off where its file has {limit} bytes"
        try:
            yield await _broken_off(trial, case, limit)
        except OSError as error:
            yield Outcome(case, inconclusive=NO_LIMIT.format(error))


async def _sizes(trial: Trial) -> tuple[int, int]:
    """The first file's size before the second write and after it."""
    async with trial.rig(control) as rig:
        await rig.ask(trial.writes[0])
        before = _size(rig)
        await rig.ask(trial.writes[1])
        return before, _size(rig)


async def _broken_off(trial: Trial, case: str, limit: int) -> Outcome:
    sync = await trial.once(f"broken off at {limit}", lambda: _run(trial, control, limit))
    if not sync.refused:
        return Outcome(case, inconclusive=NO_LIMIT.format("it did not stop the control"))
    found = await _run(trial, Candidate, limit)
    broken = compare(case, sync.wanted, sync.found) or compare(case, found.wanted, found.found)
    return Outcome(case, broken or compare(case, sync.found + sync.rest, found.found + found.rest))


async def _run(trial: Trial, make: Make, limit: int) -> Break:
    async with trial.rig(make) as rig:
        await rig.ask(trial.writes[0])
        await rig.settle()
        left: list[Seen] = [("files", rig.files()), ("memory", rig.memory())]
        rig.next_request()
        with _largest_file(limit):
            reply = await rig.ask(trial.writes[1])
        files, told = rig.files(), dict(await rig.look())
        wanted: list[Seen] = [("error", ["io_error", "EFBIG"]), ("files at the reply", left[0][1]), *left]
        seen: list[Seen] = [(what, told[what]) for what, _ in left]
        found: list[Seen] = [("error", _error(reply)), ("files at the reply", files), *seen]
        rig.next_request()
        again = await rig.ask(trial.writes[1])
        return Break(wanted, found, [("reply", reply), ("reply to the next write", again), *await rig.look()])


def _error(reply: bytes) -> list[object]:
    values = json.loads(reply)
    fields = values[0] if values and isinstance(values[0], dict) else {}
    return [fields.get("code"), fields.get("errno")]


def _size(rig: Rig) -> int:
    return rig.main.stat().st_size if rig.main.exists() else 0


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """No file of this process and its workers may grow beyond `size` bytes meanwhile.

    Raises `OSError` where that fails.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    except ValueError as error:
        raise OSError(str(error)) from error
    try:
        _limit_workers((size, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        _limit_workers((soft, hard))


def _limit_workers(limits: tuple[int, int]) -> None:
    """Set the limit of every descendant; the zygote's passes to those that it forks."""
    processes, known = proctable.table().look(), {os.getpid()}
    while more := {one.pid for one in processes if one.parent in known and one.alive} - known:
        known |= more
    for pid in known - {os.getpid()}:
        if sys.platform != "linux":
            raise OSError("another process can be limited on Linux only")
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
