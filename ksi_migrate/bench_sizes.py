"""One case at several sizes: how its cost grows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ksi_migrate.bench_figures import Growth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ksi_daemon.area import Area
    from ksi_migrate.bench_figures import Case
    from ksi_migrate.bench_parts import Part
    from ksi_migrate.idle import IdleHeartbeat


@dataclass(frozen=True, slots=True)
class Sizes:
    """The same at each size, smallest first; the case's own figures are those of the largest.

    `across` says what the sizes count.
    """

    sized: Sequence[tuple[int, Part]]
    across: str

    @property
    def area(self) -> Area:
        """Whose case it is."""
        return self.sized[-1][1].area

    @property
    def name(self) -> str:
        """As the document names it."""
        return f"{self.sized[-1][1].name}, from {self.sized[0][0]:,} on"

    def steps(self, asked: int) -> int:
        """How often `measure` tells that it goes on."""
        return sum(part.steps(asked) for _, part in self.sized)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """The case at the largest size, with the others' cost of a call beside it."""
        cases = [(size, await part.measure(asked, idle, tell)) for size, part in self.sized]
        points = tuple(_point(size, case) for size, case in cases)
        return replace(cases[-1][1], name=self.name, growth=Growth(self.across, points))


def _point(size: int, case: Case) -> dict[str, float | None]:
    cost = case.more["call_ms"]
    return {"at": size, **{column: cost[column] for column in ("reference", "sync", "async")}}
