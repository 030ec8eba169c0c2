"""What every check is given, and what it says of each case."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ksi_daemon.area import Area
    from ksi_daemon.exercise import Step
    from ksi_migrate.paritycheck.contrast import Mismatch
    from ksi_migrate.paritycheck.rig import Rig
    from ksi_migrate.paritycheck.scratch import Scratch
    from ksi_migrate.paritycheck.sides import Make

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trial:
    """One room under trial, in one scratch, with the seed of what is left to chance.

    `shown` is what the control showed: trials that differ only in their candidate share it.
    """

    area: Area
    scratch: Scratch
    seed: int = 0
    shown: dict[str, Any] = field(default_factory=dict)

    def rig(self, make: Make) -> AbstractAsyncContextManager[Rig]:
        """The room on one side in a directory with the files of its first case."""
        return self.scratch.rig(self.area, make, self.area.exercise.cases[0].files)

    async def once(self, what: str, play: Callable[[], Awaitable[T]]) -> T:
        """What came of `play`, which has to do with the control alone, when it was called first."""
        if what not in self.shown:
            self.shown[what] = await play()
        found: T = self.shown[what]
        return found

    @property
    def writes(self) -> tuple[Step, Step]:
        """The room's two writing requests."""
        return self.area.exercise.writes


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case: equal when there are no mismatches; `inconclusive` says why nothing can be said.

    `one_sided` says why only the candidate was tried: by its nature the control cannot do it. `left_out` says
    why nothing was: it has no meaning for components of this kind.
    """

    case: str
    mismatches: tuple[Mismatch, ...] = ()
    inconclusive: str | None = None
    one_sided: str | None = None
    left_out: str | None = None


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
