"""The checks that play a case's steps on both sides and compare all that can be seen after each."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from ksi_daemon.exercise import Case
from ksi_daemon.flags import Stage
from ksi_migrate.paritycheck.contrast import compare
from ksi_migrate.paritycheck.sides import Candidate, Replaced, control, flipping, switch_at
from ksi_migrate.paritycheck.trial import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from ksi_daemon.exercise import Step
    from ksi_daemon.site import Durability
    from ksi_migrate.paritycheck.contrast import Seen
    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.sides import Make
    from ksi_migrate.paritycheck.trial import Trial

SEQUENCES = 4
LENGTH = 16

THROUGH_THE_SWITCH = (
    ("switch at sync", switch_at(Stage.SYNC), control),
    ("switch at async", switch_at(Stage.ASYNC), control),
    ("a flip before each step", flipping, Replaced),
)
"""What is run through the switch, and what it must equal: a flip opens the log anew, as a new side does."""


async def cases(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """The room's own cases, `durability: os`."""
    for case in trial.area.exercise.cases:
        yield await _both(trial, case)


async def durable(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """The same cases with `durability: fsync`."""
    for case in trial.area.exercise.cases:
        yield await _both(trial, replace(case, name=f"{case.name}, fsync"), "fsync")


async def seeded(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """The room's own steps in an order that the seed decides."""
    for case in sequences(trial):
        yield await _both(trial, case)


async def switched(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """The room's own cases through the switch at either side, and with a flip before each step."""
    for case in trial.area.exercise.cases:
        for how, make, reference in THROUGH_THE_SWITCH:
            name = f"{case.name}, {how}"
            kind = "replaced" if reference is Replaced else "control"
            expected = await _shown(trial, reference, kind, case)
            yield Outcome(name, compare(name, expected, await play(trial, make, case, case.files)))


async def over_data(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """All cases one after another on top of a copy of the user's own files; no cases without such a copy."""
    if trial.scratch.pristine is None:
        return
    steps = tuple(step for case in trial.area.exercise.cases for step in case.steps)
    case = Case("every case on the given data", steps)
    left = await play(trial, control, case, trial.scratch.pristine)
    right = await play(trial, Candidate, case, trial.scratch.pristine)
    yield Outcome(case.name, compare(case.name, left, right))


def sequences(trial: Trial) -> list[Case]:
    """A few random orders of the room's steps, each on the files of one of its cases."""
    chance = random.Random(f"{trial.seed} {trial.area.name}")
    own = trial.area.exercise.cases
    pool = [step for case in own for step in case.steps]
    return [
        Case(
            f"random steps {number}, seed {trial.seed}",
            tuple(chance.choices(pool, k=LENGTH)),
            chance.choice(own).files,
        )
        for number in range(1, SEQUENCES + 1)
    ]


async def play(
    trial: Trial,
    make: Make,
    case: Case,
    files: Mapping[str, bytes] | Path,
    durability: Durability = "os",
) -> list[Seen]:
    """All that can be seen of one side while it does a case's steps, and after its stop."""
    async with trial.scratch.rig(trial.area, make, files, durability) as rig:
        seen: list[Seen] = [("start", rig.opened)]
        for number, step in enumerate(case.steps, 1):
            seen += await _named(number, step, rig)
        await rig.end()
        return [*seen, *((f"after the stop: {what}", value) for what, value in await rig.look())]


async def _both(trial: Trial, case: Case, durability: Durability = "os") -> Outcome:
    left = await _shown(trial, control, "control", case, durability)
    right = await play(trial, Candidate, case, case.files, durability)
    return Outcome(case.name, compare(case.name, left, right))


async def _shown(
    trial: Trial, make: Make, kind: str, case: Case, durability: Durability = "os"
) -> list[Seen]:
    """The same of a kind of control, played once."""
    key = f"steps, {kind}, {durability}: {case.name}"
    return await trial.once(key, lambda: play(trial, make, case, case.files, durability))


async def _named(number: int, step: Step, rig: Rig) -> list[Seen]:
    return [(f"step {number} {step.event}: {what}", value) for what, value in await rig.step(step)]
