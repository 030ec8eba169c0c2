"""The check with many callers at once: every effect once, in the order of the calls, also across flips."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from ksi_daemon.exercise import Step
from ksi_migrate.paritycheck.contrast import compare
from ksi_migrate.paritycheck.rig import Rig
from ksi_migrate.paritycheck.sides import Candidate, control, flipping
from ksi_migrate.paritycheck.trial import Outcome, ask_in_turn, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ksi_migrate.paritycheck.contrast import Seen
    from ksi_migrate.paritycheck.sides import Make
    from ksi_migrate.paritycheck.trial import Trial

CALLERS = 100
AT_A_TIME = 5
"""Callers that begin in one iteration of the loop while the switch flips."""

FLIPS = 4

Ask = Callable[[Rig, Sequence[Step]], Awaitable[list[bytes]]]


async def check(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """Both sides with all callers at once, and the switch flipping under them, as sync one by one."""
    expected = await trial.once("callers in turn", lambda: _run(trial, control, ask_in_turn))
    for how, make, ask in (
        ("sync", control, ask_at_once),
        ("async", Candidate, ask_at_once),
        ("flips under load", flipping, ask_across_flips),
    ):
        name = f"{CALLERS} callers at once, {how}"
        yield Outcome(name, compare(name, expected, await _run(trial, make, ask)))


async def ask_at_once(rig: Rig, steps: Sequence[Step]) -> list[bytes]:
    """The replies to requests that all begin before the first has its reply."""
    return await asyncio.gather(*(rig.ask(step) for step in steps))


async def ask_across_flips(rig: Rig, steps: Sequence[Step]) -> list[bytes]:
    """The replies to requests that begin a few at a time, while the switch changes sides again and again."""
    tasks: list[asyncio.Task[bytes]] = []
    async with asyncio.TaskGroup() as group:
        flips = group.create_task(_flip(rig))
        for number, step in enumerate(steps):
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
            tasks.append(group.create_task(rig.ask(step)))
        await flips
    return [task.result() for task in tasks]


async def _flip(rig: Rig) -> None:
    for _ in range(FLIPS):
        await rig.backend.between()


async def _run(trial: Trial, make: Make, ask: Ask) -> list[Seen]:
    async with trial.rig(make) as rig:
        await prepare(trial, rig)
        replies = await ask(rig, [trial.writes[number % 2] for number in range(CALLERS)])
        return [("replies", replies), ("files at the last reply", rig.files()), *await rig.look()]
