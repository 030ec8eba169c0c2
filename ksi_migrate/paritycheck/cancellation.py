"""The check of a write that is cancelled at each of its awaits in turn: whole, or as if never asked for.

Whoever cancels gets no reply, so either is right: the files, and memory on its own, are as the control's are
without the write or with it, and what comes after succeeds.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ksi_migrate.paritycheck import cancelled_turn
from ksi_migrate.paritycheck.contrast import Mismatch, differ
from ksi_migrate.paritycheck.sides import Candidate, control
from ksi_migrate.paritycheck.struck import MANNERS, Struck
from ksi_migrate.paritycheck.trial import Outcome, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.trial import Trial

Course = dict[str, tuple[object, object]]
"""What is looked at → how it was after the first write, and after the second."""


async def check(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """A case per manner and await, up to the last await that the write has."""
    if trial.area.kind == "process":
        async for outcome in cancelled_turn.check(trial):
            yield outcome
        return
    without, with_it = await trial.once("uncancelled", lambda: _uncancelled(trial))
    for manner, strikes in MANNERS:
        number = 0
        while (found := await _cancelled(trial, partial(strikes, number))) is not None:
            case = f"a write cancelled at await {number}, {manner}"
            yield Outcome(case, _judged(case, without, with_it, found))
            number += 1


async def _uncancelled(trial: Trial) -> tuple[Course, Course]:
    return await _control(trial, asked=False), await _control(trial, asked=True)


async def _control(trial: Trial, *, asked: bool) -> Course:
    async with trial.rig(control) as rig:
        await prepare(trial, rig)
        if asked:
            await rig.ask(trial.writes[0])
        return await _course(trial, rig)


async def _cancelled(trial: Trial, strikes: Callable[[int], bool]) -> Course | None:
    """How it goes on after a cancelled write; None when the write has not that many awaits."""
    async with trial.rig(Candidate) as rig:
        await prepare(trial, rig)
        write = Struck(rig.ask(trial.writes[0]), strikes)
        await asyncio.wait([asyncio.create_task(write.run())])
        return await _course(trial, rig) if write.struck else None


async def _course(trial: Trial, rig: Rig) -> Course:
    """What is there now, and after one more write."""
    await rig.settle()
    files, memory = rig.files(), rig.memory()
    rig.next_request()
    await rig.ask(trial.writes[1])
    await rig.settle()
    return {"files": (files, rig.files()), "memory": (memory, rig.memory())}


def _judged(case: str, without: Course, with_it: Course, found: Course) -> tuple[Mismatch, ...]:
    """Files go on in one of the two courses; memory, which may be read anew, is in either at each moment."""
    files = () if found["files"] in (without["files"], with_it["files"]) else ("files",)
    allowed = list(zip(without["memory"], with_it["memory"], strict=True))
    fits = all(memory in moment for memory, moment in zip(found["memory"], allowed, strict=True))
    return tuple(
        differ(case, what, _nearest(found[what], without[what], with_it[what]), found[what])
        for what in (*files, *(() if fits else ("memory",)))
    )


def _nearest(found: tuple[object, object], without: tuple[object, object], with_it: object) -> object:
    """The course that begins as `found` does, to tell the difference from."""
    return without if found[0] == without[0] else with_it
