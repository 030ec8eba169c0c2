"""Waiting until the daemon has a stage in force, has refused it, or time is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ksi_daemon.flags import Stage
from ksi_migrate import ask, situation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ksi_daemon.settings import Settings
    from ksi_migrate.progress import Progress
    from ksi_migrate.situation import Part, Situation

POLL = 0.05
"""Seconds between two questions."""
FRESH = 0.5
"""Seconds after the nudge before a refusal is believed: until then it may be the last flip's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each component still waits for, why it was refused, or who overtook it; in none when in force."""

    situation: Situation
    waiting: Mapping[str, str]
    refused: Mapping[str, str]
    overtaken: Mapping[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing is left to wait for."""
        return not self.waiting


def wait(
    settings: Settings, names: Sequence[str], stage: Stage, deadline: float, progress: Progress
) -> Outcome:
    """Nudge the daemon, then ask until every component is at `stage` or refused, `deadline` seconds at most.

    A daemon that stopped meanwhile ends the wait too: `situation.running` says so.
    """
    began = time.monotonic()
    nudged = ask.nudge(settings, min(ask.PATIENCE, deadline))
    while True:
        left = deadline - (time.monotonic() - began)
        seen = situation.look(settings, max(0.2, min(ask.PATIENCE, left)))
        nudged = nudged or (seen.answers and ask.nudge(settings))
        outcome = judge(seen, names, stage, believe=time.monotonic() - began > FRESH)
        if outcome.over or not seen.running or left <= 0:
            return outcome
        progress.step(next(iter(outcome.waiting.values())), len(names) - len(outcome.waiting), len(names))
        time.sleep(POLL)


def judge(seen: Situation, names: Sequence[str], stage: Stage, *, believe: bool) -> Outcome:
    """Sort the components by how far they are; refusals count only when they are to be believed."""
    refused: dict[str, str] = {}
    overtaken: dict[str, str] = {}
    waiting: dict[str, str] = {}
    final = believe and seen.answers and seen.current and stage != Stage.SYNC  # a way down is never refused
    for part in (seen.part(name) for name in names):
        pending = _pending(part, seen, stage)
        refusal = part.refused or next(iter(seen.flags_errors), None)
        if pending and final and refusal:
            refused[part.name] = refusal
        elif pending and final and part.wanted != stage:
            overtaken[part.name] = f"{part.name} was set to {part.wanted} by somebody else meanwhile"
        elif pending:
            waiting[part.name] = pending
    return Outcome(seen, waiting, refused, overtaken)


def _pending(part: Part, seen: Situation, stage: Stage) -> str | None:
    """What is still to come, None when the stage is in force.

    On the way down only the stage itself counts: a disk too full to record it changes nothing.
    """
    if not seen.answers:
        return seen.why_silent if seen.running else "the daemon is not running"
    if part.flipping:
        return f"{part.name} waits for {part.flipping.get('waits_for') or 'its other side'}"
    if part.effective != stage:
        return f"{part.name} is still at {part.effective}"
    if stage == Stage.SYNC:
        down = stage in (part.desired, part.ceiling)
        return None if down else f"the daemon has not read the change of {part.name} yet"
    if not seen.current:
        return f"the daemon has not read the change of {part.name} yet"
    return None if part.acknowledged == stage else f"{part.name} is at {stage}, but that is not recorded yet"
