"""The proof that parity can fail: every planted fault must be caught by the same checks."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ksi_daemon.switch import contract_methods
from ksi_migrate.paritycheck.checks import CHECKS, outcomes
from ksi_migrate.paritycheck.planting import table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ksi_daemon.area import Area
    from ksi_daemon.site import Site
    from ksi_migrate.paritycheck.planting import Method, Plant
    from ksi_migrate.paritycheck.trial import Trial

NOT_ASKED = frozenset({"signatures", "steps, fsync", "steps through the switch", "steps on given data"})
"""Checks that look at no behaviour, or compare once more what `steps` compares: they would prove nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in one method of one room's candidate, and the checks that saw it."""

    component: str
    method: str
    fault: str
    caught_by: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The row as `--json` gives it."""
        return {
            "component": self.component,
            "method": self.method,
            "fault": self.fault,
            "caught_by": list(self.caught_by),
        }


class Planted:
    """The candidate with one of its methods at fault."""

    def __init__(self, side: Any, **methods: Any) -> None:
        self._side = side
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the candidate's own."""
        return getattr(self._side, name)


class _Calls:
    """How often the method at fault was called; a check that never calls it cannot see any of its faults."""

    def __init__(self) -> None:
        self.count = 0
        self.blind: set[str] = set()

    def counted(self, method: Method) -> Method:
        """The method, noting each call."""

        @functools.wraps(method)
        async def call(*args: Any) -> Any:
            self.count += 1
            return await method(*args)

        return call


def planted(area: Area, method: str, plant: Plant, calls: _Calls | None = None) -> Area:
    """The room with a fault in one method of its async side."""
    calls = calls or _Calls()

    def aio(site: Site) -> Planted:
        side = area.aio(site)
        path = site.settings.root / area.exercise.files[0]
        return Planted(side, **{method: calls.counted(plant(getattr(side, method), path))})

    return replace(area, aio=aio)


async def prove(trial: Trial, *, thorough: bool = True) -> AsyncIterator[Fault]:
    """One row per method and fault; each check stops at its first mismatch.

    Without `thorough` no check is asked any more once another has caught the fault.
    """
    area = trial.area
    for method in contract_methods(area.contract):
        calls = _Calls()
        for fault, plant in table(area.contract, method, area.kind).items():
            faulty = replace(trial, area=planted(area, method, plant, calls))
            yield Fault(area.name, method, fault, await _catches(faulty, calls, thorough=thorough))


async def _catches(trial: Trial, calls: _Calls, *, thorough: bool) -> tuple[str, ...]:
    caught: list[str] = []
    for name in (check for check in CHECKS if check not in NOT_ASKED | calls.blind):
        before = calls.count
        found = await outcomes(name, trial, until_first=True)
        if any(outcome.mismatches for outcome in found):
            caught.append(name)
            if not thorough:
                break
        elif calls.count == before:
            calls.blind.add(name)
    return tuple(caught)
