"""The table of checks, in the order in which they run, and how one room goes through them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from ksi_migrate.paritycheck import (
    cancellation,
    concurrency,
    fullfile,
    interleaving,
    readers,
    signatures,
    steps,
)
from ksi_migrate.paritycheck.contrast import Mismatch
from ksi_migrate.paritycheck.trial import Check, Outcome

if TYPE_CHECKING:
    from ksi_migrate.paritycheck.trial import Trial

CHECKS: dict[str, Check] = {
    "signatures": signatures.check,
    "steps": steps.cases,
    "steps, fsync": steps.durable,
    "seeded steps": steps.seeded,
    "steps through the switch": steps.switched,
    "steps on given data": steps.over_data,
    "many callers": concurrency.check,
    "readers": readers.check,
    "cancellation": cancellation.check,
    "interleaving": interleaving.check,
    "broken write": fullfile.check,
}
"""What a check is called in progress, reports and the table of planted faults."""

LIMIT = 120.0
GIVEN_LIMIT = 1800.0
"""Seconds after which a check counts as hanging; over the user's own files, which may be many, the second."""


async def outcomes(name: str, trial: Trial, *, until_first: bool = False) -> list[Outcome]:
    """The cases of one check, all or up to the first mismatch; what goes wrong with itself is one too."""
    found: list[Outcome] = []
    limit = LIMIT if trial.scratch.pristine is None else GIVEN_LIMIT
    try:
        async with asyncio.timeout(limit), aclosing(CHECKS[name](trial)) as cases:
            async for outcome in cases:
                found.append(outcome)
                if until_first and outcome.mismatches:
                    break
    except TimeoutError:
        found.append(_broken(name, f"did not end within {limit:g} s"))
    except Exception as error:  # noqa: BLE001 - a side that raises what it may not is a finding, not our end
        found.append(_broken(name, f"{type(error).__name__}: {error}"))
    return found


def _broken(name: str, why: str) -> Outcome:
    return Outcome(name, (Mismatch(name, "the check broke down", "", why),))
