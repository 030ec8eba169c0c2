"""What every check is given, and what it says of each case."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from ksi_daemon.area import Area
    from ksi_daemon.exercise import Step
    from ksi_migrate.paritycheck.contrast import Mismatch
    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.scratch import Scratch
    from ksi_migrate.paritycheck.sides import Make


@dataclass(frozen=True, slots=True)
class Trial:
    """One room under trial, in one scratch, with the seed of what is left to chance."""

    area: Area
    scratch: Scratch
    seed: int = 0

    def rig(self, make: Make) -> AbstractAsyncContextManager[Rig]:
        """The room on one side in an empty directory."""
        return self.scratch.rig(self.area, make)

    @property
    def writes(self) -> tuple[Step, Step]:
        """The room's two writing requests."""
        return self.area.exercise.writes


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: equal when there are no mismatches; `inconclusive` says why nothing can be said."""

    case: str
    mismatches: tuple[Mismatch, ...] = ()
    inconclusive: str | None = None


Check = Callable[[Trial], AsyncGenerator[Outcome, None]]
"""A check yields its cases one by one, so that whoever looks for the first difference can stop there."""


async def prepare(trial: Trial, rig: Rig) -> None:
    """Do the requests of the room's first case, so that there are clients, subscriptions and history."""
    for step in trial.area.exercise.cases[0].steps:
        if not step.event.startswith("@"):
            rig.next_request()
            await rig.ask(step)
    await rig.settle()
    rig.frames()
    rig.next_request()


async def ask_in_turn(rig: Rig, steps: Sequence[Step]) -> list[bytes]:
    """The replies to requests of which each begins when the one before has its reply."""
    return [await rig.ask(step) for step in steps]
