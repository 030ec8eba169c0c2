"""A claim against the evidence: pass, fail, or not measured, with the figure that decided. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ksi_migrate.claims import AtMost, Claim, Times
from ksi_migrate.figures import milliseconds, number, plain, quotient, rate, times
from ksi_migrate.measured import SOCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ksi_migrate.claims import Source
    from ksi_migrate.held import Held, Kept

Verdict = Literal["pass", "fail", "not measured"]
SIDES = ("sync", "async")
FASTER = frozenset({"throughput_per_s", "publishes_per_s"})
"""Figures of which more is better."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A figure on both sides; None where it was not measured."""

    sync: float | None
    candidate: float | None

    def document(self) -> dict[str, float | None]:
        """As JSON."""
        return {"sync": self.sync, "async": self.candidate}


NOTHING = Pair(None, None)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the report. `bar` is what decides, `measured` the same in this run, in `unit`.

    `said` has the figures in words, or why there are none; `at`, `machine` and `release` say where they are
    from.
    """

    name: str
    source: Source
    claimed: str
    how: str
    verdict: Verdict
    said: str
    bar: float | None = None
    measured: float | None = None
    unit: str = ""
    figures: Pair = NOTHING
    memory: Pair = NOTHING
    at: str | None = None
    machine: str | None = None
    release: str | None = None

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        pairs = {"figures": self.figures.document(), "memory_mib": self.memory.document()}
        plain_ = {key: value for key, value in asdict(self).items() if key not in {"figures", "memory"}}
        return {**plain_, **pairs}


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one case says; `score` is how far it clears the bar, above 1 when it does."""

    case: str
    measured: float
    score: float
    figures: Pair
    memory: Pair
    kept: Kept


def judge(claim: Claim, held: Held) -> Row:
    """The claim's row. Every pattern must have a case of this machine and release; the worst case counts."""
    readings: list[_Reading] = []
    for pattern in claim.cases:
        kept = held.cases(claim.component, pattern)
        found = _readings(claim, kept)
        if not found:
            return _unmeasured(claim, held.why_none(claim.component, pattern))
        if None in found:
            return _unmeasured(claim, f"{kept[found.index(None)].case.get('name')} has no {claim.bar.of}")
        readings += filter(None, found)
    return _row(claim, min(readings, key=lambda one: one.score), len(readings))


def _unmeasured(claim: Claim, why: str) -> Row:
    said = f"{why}; {claim.command} measures it"
    bar, unit = (claim.bar.least, "times") if isinstance(claim.bar, Times) else _limit(claim.bar)
    return Row(claim.name, claim.source, claim.claimed, claim.how, "not measured", said, bar, None, unit)


def _limit(bar: AtMost) -> tuple[float, str]:
    return bar.most, bar.unit


def _row(claim: Claim, worst: _Reading, count: int) -> Row:
    bar, unit = (claim.bar.least, "times") if isinstance(claim.bar, Times) else _limit(claim.bar)
    run = worst.kept.run
    among = f"{worst.case}, the worst of {count}" if count > 1 else worst.case
    return Row(
        name=claim.name,
        source=claim.source,
        claimed=claim.claimed,
        how=claim.how,
        verdict="pass" if worst.score >= 1 else "fail",
        said=f"{_words(claim, worst)} ({among})",
        bar=bar,
        measured=worst.measured,
        unit=unit,
        figures=worst.figures,
        memory=worst.memory,
        at=run.at,
        machine=run.origin.machine,
        release=run.origin.release,
    )


def _words(claim: Claim, worst: _Reading) -> str:
    form = _form(claim.bar.of)
    sides = f"sync {form(worst.figures.sync)}, async {form(worst.figures.candidate)}"
    if isinstance(claim.bar, Times):
        return f"{times(worst.measured)}: {sides}"
    return sides if claim.bar.unit == "ms" else f"{sides} {claim.bar.unit}"


def _form(figure: str) -> Callable[[float | None], str]:
    if figure in FASTER:
        return rate
    return milliseconds if figure.endswith(("_ms", "ms_per_call")) else _plain


def _plain(value: float | None) -> str:
    return "not measured" if value is None else plain(value)


def _readings(claim: Claim, kept: Sequence[Kept]) -> list[_Reading | None]:
    if claim.component == SOCKET:
        by_stage = {str(one.case.get("stage")): one for one in kept}
        return [_through_socket(claim, by_stage)] if {*SIDES} <= by_stage.keys() else []
    return [
        _reading(claim.bar, one, _pair(one.case, claim.bar.of), _sides(one.case, "rss_peak_mib"))
        for one in kept
    ]


def _through_socket(claim: Claim, by_stage: Mapping[str, Kept]) -> _Reading | None:
    before, after = (by_stage[side] for side in SIDES)

    def pair(key: str) -> Pair:
        return Pair(number(before.case, key), number(after.case, key))

    return _reading(claim.bar, after, pair(claim.bar.of), pair("rss_peak_mib"))


def _reading(bar: Times | AtMost, kept: Kept, figures: Pair, memory: Pair) -> _Reading | None:
    """None where the case does not have the figure."""
    if isinstance(bar, AtMost):
        found = figures.candidate
        score = None if found is None else bar.most / found if found else float("inf")
    else:
        up = bar.of in FASTER
        found = quotient(figures.candidate, figures.sync) if up else quotient(figures.sync, figures.candidate)
        score = None if found is None else found / bar.least
    if found is None or score is None:
        return None
    return _Reading(str(kept.case.get("name")), found, score, figures, memory, kept)


def _pair(case: Mapping[str, Any], figure: str) -> Pair:
    """A figure of the sides themselves, or one of those that only some cases have."""
    more = (case.get("more") or {}).get(figure)
    return _sides(case, figure) if more is None else Pair(*(number(more, side) for side in SIDES))


def _sides(case: Mapping[str, Any], figure: str) -> Pair:
    return Pair(*(number(case.get(side), figure) for side in SIDES))
