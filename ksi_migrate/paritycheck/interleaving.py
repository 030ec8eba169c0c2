"""The check of two writes begun at every distance: the outcome is the control's in one order or the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ksi_migrate.paritycheck.contrast import compare
from ksi_migrate.paritycheck.sides import Candidate, control
from ksi_migrate.paritycheck.trial import Outcome, ask_in_turn, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from ksi_daemon.exercise import Step
    from ksi_migrate.paritycheck.contrast import Seen
    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.trial import Trial

OFFSETS = 12
"""Iterations of the loop between the two beginnings, from none on; few writes take as many."""


async def check(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """A case per order and distance. Sync was accidentally atomic: its outcomes are the reference."""
    orders = (trial.writes, trial.writes[::-1])
    allowed = await trial.once("writes in turn", lambda: _in_either_order(trial, orders))
    for order, expected in zip(orders, allowed, strict=True):
        for offset in range(OFFSETS):
            case = f"{_named(trial, order)} begun {offset} loop iterations apart"
            found = await _apart(trial, order, offset)
            yield Outcome(case, () if found in allowed else compare(case, expected, found))


def _named(trial: Trial, order: tuple[Step, Step]) -> str:
    return " and ".join(f"write {trial.writes.index(step) + 1}" for step in order)


async def _in_either_order(trial: Trial, orders: Sequence[tuple[Step, Step]]) -> list[list[Seen]]:
    return [await _in_turn(trial, order) for order in orders]


async def _in_turn(trial: Trial, order: tuple[Step, Step]) -> list[Seen]:
    async with trial.rig(control) as rig:
        await prepare(trial, rig)
        return await _outcome(rig, trial, order, await ask_in_turn(rig, order))


async def _apart(trial: Trial, order: tuple[Step, Step], offset: int) -> list[Seen]:
    async with trial.rig(Candidate) as rig:
        await prepare(trial, rig)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(rig.ask(order[0]))
            for _ in range(offset):
                await asyncio.sleep(0)
            second = group.create_task(rig.ask(order[1]))
        return await _outcome(rig, trial, order, [first.result(), second.result()])


async def _outcome(rig: Rig, trial: Trial, order: tuple[Step, Step], replies: list[bytes]) -> list[Seen]:
    of_step = dict(zip(map(trial.writes.index, order), replies, strict=True))
    return [("replies", [of_step[0], of_step[1]]), *await rig.look()]
