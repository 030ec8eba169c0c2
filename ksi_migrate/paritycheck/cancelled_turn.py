"""The check of a turn that is cancelled: its processes are gone, and what comes after is as it should be.

Only the async side can do it. The sync side blocks the loop for the whole turn, so no cancellation arrives
before its end: the control is asked with the turn and without it, and the report says so.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ksi_migrate.paritycheck import lasting
from ksi_migrate.paritycheck.contrast import compare
from ksi_migrate.paritycheck.sides import Candidate, control
from ksi_migrate.paritycheck.struck import MANNERS, Struck
from ksi_migrate.paritycheck.trial import Outcome, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ksi_migrate.paritycheck.contrast import Mismatch, Seen
    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.trial import Trial

ONE_SIDED = "cancelling a running turn and ending its processes: the sync side holds the loop until it ends"

PAUSE = 0.001
"""Seconds between two looks at whether a program has begun."""

WHILE_IT_RUNS = (
    ("a running turn cancelled", lasting.OBEDIENT, 1),
    ("a running turn cancelled, its program does not listen", lasting.DEAF, 1),
    ("a running turn cancelled again and again, its program does not listen", lasting.DEAF, 3),
)
"""What is cancelled, in words; the program it runs; and how often."""


async def check(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """A case per manner and await, up to the last await that the turn has; then while its program runs."""
    courses = await trial.once("turn not cancelled", lambda: _uncancelled(trial))
    for manner, strikes in MANNERS:
        number = 0
        while (found := await _struck(trial, partial(strikes, number))) is not None:
            case = f"a turn cancelled at await {number}, {manner}"
            yield Outcome(case, _judged(case, courses, found), one_sided=ONE_SIDED)
            number += 1
    for case, program, times in WHILE_IT_RUNS:
        found = await _ended(trial, program, times)
        yield Outcome(case, _judged(case, courses[:1], found), one_sided=ONE_SIDED)


async def _uncancelled(trial: Trial) -> list[list[Seen]]:
    """The control without the turn, and with it."""
    courses: list[list[Seen]] = []
    for asked in (False, True):
        async with trial.rig(control) as rig:
            await prepare(trial, rig)
            if asked:
                await rig.ask(trial.writes[0])
            courses.append([("the turn", "cancelled"), ("processes left", []), *await _after(trial, rig)])
    return courses


async def _struck(trial: Trial, strikes: Callable[[int], bool]) -> list[Seen] | None:
    """What is seen of a turn cancelled at an await; None when it has not that many."""
    async with trial.rig(Candidate) as rig:
        await prepare(trial, rig)
        before = lasting.children()
        turn = Struck(rig.ask(trial.writes[0]), strikes)
        task = asyncio.create_task(turn.run())
        await asyncio.wait([task])
        left = sorted(lasting.children() - before)
        seen: list[Seen] = [("the turn", _end_of(task)), ("processes left", left), *await _after(trial, rig)]
        return seen if turn.struck else None


async def _ended(trial: Trial, program: bytes, times: int) -> list[Seen]:
    """What is seen of a turn cancelled so often once the processes of `program` run in it."""
    async with trial.rig(Candidate) as rig:
        await prepare(trial, rig)
        with lasting.in_place_of(trial.area.exercise.programs, program, rig.root) as began:
            task = asyncio.create_task(rig.ask(trial.writes[0]))
            while not (began() or task.done()):  # noqa: ASYNC110 - it is another process that begins
                await asyncio.sleep(PAUSE)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(PAUSE)
            await asyncio.wait([task])
            left = lasting.alive(began())
            lasting.kill(left)
        return [("the turn", _end_of(task)), ("processes left", left), *await _after(trial, rig)]


async def _after(trial: Trial, rig: Rig) -> list[Seen]:
    """The state now, and how the next turn goes."""
    await rig.settle()
    now: list[Seen] = [("files", rig.files()), ("memory", rig.memory())]
    rig.next_request()
    reply = await rig.ask(trial.writes[1])
    await rig.settle()
    later: list[Seen] = [("files after it", rig.files()), ("memory after it", rig.memory())]
    return [*now, ("reply to the next turn", reply), *later]


def _end_of(task: asyncio.Task[object]) -> str:
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "answered" if error is None else repr(error)


def _judged(case: str, courses: list[list[Seen]], found: list[Seen]) -> tuple[Mismatch, ...]:
    return () if found in courses else compare(case, courses[0], found)
