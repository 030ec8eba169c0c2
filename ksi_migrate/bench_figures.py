"""From rounds to figures: medians over the rounds, spreads and ratios. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PER_CALLS = 10_000
"""CPU time is given for so many calls, since the columns do not make equally many in a round."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one column; `idle_max_ms` is the longest stall of the idle process meanwhile.

    `more` holds the figures that only this case has, by name; of each, less is better.
    """

    calls: int
    seconds: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    stall_p99_ms: float
    stall_max_ms: float
    idle_max_ms: float
    beats: int
    cpu_s: float
    rss_peak_mib: float
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def throughput(self) -> float:
        """Acknowledged calls a second."""
        return self.calls / self.seconds

    @property
    def stall_less_idle_ms(self) -> float:
        """The longest stall without what the machine itself did."""
        return max(0.0, self.stall_max_ms - self.idle_max_ms)


@dataclass(frozen=True, slots=True)
class Spread:
    """The slowest and the fastest round, and the best and the worst of their longest stalls."""

    throughput_min: float
    throughput_max: float
    loop_stall_max_min_ms: float
    loop_stall_max_max_ms: float


@dataclass(frozen=True, slots=True)
class Side:
    """A column's figures, each the median over its rounds; the names are those of the document."""

    throughput_per_s: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    loop_stall_p99_ms: float
    loop_stall_max_ms: float
    loop_stall_max_less_idle_ms: float
    idle_loop_stall_max_ms: float
    cpu_s: float
    rss_peak_mib: float
    calls: int
    rounds: int
    beats: int
    spread: Spread


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times better async is; None where there is nothing to divide by.

    The least and the greatest are of the rounds that ran side by side, or of all where one column has fewer.
    """

    throughput: float | None
    throughput_min: float | None
    throughput_max: float | None
    loop_stall_max: float | None
    vs_reference: float | None
    sync_vs_reference: float | None


@dataclass(frozen=True, slots=True)
class Growth:
    """What one call costs at several sizes, smallest first; `across` is what the sizes count.

    Each point has the size (`at`) and the milliseconds of each column.
    """

    across: str
    points: tuple[Mapping[str, float | None], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One load on one component; `reference` is None where the original did no such thing.

    `rounds` are those of the column that has fewest. `more` holds the figures that only this case has: name →
    the columns' medians, and how many times better async is than sync (`ratio`). `note` is what a reader must
    know to take the figures rightly, `bar` what is asked of async, for people: nothing is judged by it. Both
    may be empty.
    """

    name: str
    callers: int
    rounds: int
    reference: Side | None
    sync: Side
    candidate: Side
    ratio: Ratio
    more: Mapping[str, Mapping[str, float | None]]
    note: str
    bar: str = ""
    growth: Growth | None = None

    def document(self) -> dict[str, Any]:
        """The case as JSON."""
        found = asdict(self)
        found["async"] = found.pop("candidate")
        return found


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The least value that `percent` of all do not exceed; None of none."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(0, int(rank) - 1)]


def side_of(rounds: Sequence[Round]) -> Side:
    """The medians of a column's rounds, of which there is at least one."""

    def middle(figure: Callable[[Round], float | None]) -> float | None:
        known = [value for one in rounds if (value := figure(one)) is not None]
        return median(known) if known else None

    rates = [one.throughput for one in rounds]
    stalls = [one.stall_max_ms for one in rounds]
    return Side(
        throughput_per_s=median(rates),
        latency_p50_ms=middle(lambda one: one.latency_p50_ms),
        latency_p99_ms=middle(lambda one: one.latency_p99_ms),
        loop_stall_p99_ms=median(one.stall_p99_ms for one in rounds),
        loop_stall_max_ms=median(stalls),
        loop_stall_max_less_idle_ms=median(one.stall_less_idle_ms for one in rounds),
        idle_loop_stall_max_ms=median(one.idle_max_ms for one in rounds),
        cpu_s=median(one.cpu_s / one.calls * PER_CALLS for one in rounds),
        rss_peak_mib=median(one.rss_peak_mib for one in rounds),
        calls=sum(one.calls for one in rounds),
        rounds=len(rounds),
        beats=sum(one.beats for one in rounds),
        spread=Spread(min(rates), max(rates), min(stalls), max(stalls)),
    )


def case_of(name: str, callers: int, rounds: Mapping[str, Sequence[Round]], note: str = "") -> Case:
    """The figures of a case from its rounds by column (`reference` may have none)."""
    reference = side_of(rounds["reference"]) if rounds["reference"] else None
    control, candidate = side_of(rounds["sync"]), side_of(rounds["async"])
    alike = len(rounds["sync"]) == len(rounds["async"])
    pairs = (zip if alike else product)(rounds["sync"], rounds["async"])
    paired = [after.throughput / before.throughput for before, after in pairs]
    rate = reference.throughput_per_s if reference else None
    ratio = Ratio(
        throughput=_quotient(candidate.throughput_per_s, control.throughput_per_s),
        throughput_min=min(paired),
        throughput_max=max(paired),
        loop_stall_max=_quotient(control.loop_stall_max_ms, candidate.loop_stall_max_ms),
        vs_reference=_quotient(candidate.throughput_per_s, rate),
        sync_vs_reference=_quotient(control.throughput_per_s, rate),
    )
    fewest = min(len(found) for found in rounds.values() if found)
    return Case(name, callers, fewest, reference, control, candidate, ratio, _more(rounds), note)


def _more(rounds: Mapping[str, Sequence[Round]]) -> dict[str, dict[str, float | None]]:
    names = dict.fromkeys(name for found in rounds.values() for one in found for name in one.more)
    return {name: _own(name, rounds) for name in names}


def _own(name: str, rounds: Mapping[str, Sequence[Round]]) -> dict[str, float | None]:
    columns = {
        column: median(known) if (known := [one.more[name] for one in found if name in one.more]) else None
        for column, found in rounds.items()
    }
    control, candidate = columns["sync"], columns["async"]
    return {**columns, "ratio": None if control is None else _quotient(control, candidate)}


def _quotient(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None
