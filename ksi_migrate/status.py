"""`ksi-migrate status`: whether what is desired, in force and acknowledged agree, and if not, where."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_migrate import evidence, situation
from ksi_migrate.exits import Exit, document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ksi_daemon.settings import Settings
    from ksi_migrate.evidence import Evidence
    from ksi_migrate.situation import Part, Situation

SETTLING = 1.5
"""Seconds that a change may be under way before it counts as a disagreement; the daemon needs one at most."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The situation, each component's last parity, and everything that does not agree."""

    situation: Situation
    parity: Mapping[str, Evidence | None]
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> Exit:
        """3 for a daemon that runs and does not answer, 1 for a disagreement."""
        if self.situation.running and not self.situation.answers:
            return Exit.UNREACHABLE
        return Exit.FINDING if self.problems else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        seen = self.situation
        return document(
            "status",
            ok=self.exit_code == Exit.DONE,
            daemon={
                "running": seen.running,
                "answers": seen.answers,
                "pid": seen.pid,
                "generation": seen.generation,
            },
            flags={
                "path": seen.flags_path,
                "valid": not seen.flags_errors,
                "errors": list(seen.flags_errors),
            },
            components=[_row(part, self.parity[part.name]) for part in seen.parts],
            problems=list(self.problems),
        )


def run(settings: Settings, *, settling: float = SETTLING) -> StatusReport:
    """See what is. A change that is under way gets `settling` seconds to end. Writes nothing."""
    end = time.monotonic() + settling
    seen = situation.look(settings)
    while seen.answers and not (seen.settled and seen.current) and time.monotonic() < end:
        time.sleep(0.05)
        seen = situation.look(settings)
    parity = {part.name: evidence.load(settings.migrate_dir, part.name) for part in seen.parts}
    return StatusReport(seen, parity, tuple(problems(seen)))


def problems(seen: Situation) -> Iterator[str]:
    """Everything that does not agree, in words; nothing when all is well."""
    if seen.running and not seen.answers:
        yield seen.why_silent
    yield from seen.flags_errors
    yield from seen.stage_errors
    if seen.answers and not seen.current:
        yield f"the daemon has not read {seen.flags_path} and the ceilings as they are now"
    for part in seen.parts:
        yield from _disagreements(part, seen)


def _disagreements(part: Part, seen: Situation) -> Iterator[str]:
    if part.refused:
        yield f"{part.name} was refused: {part.refused}"
    if not seen.answers:
        return
    if part.flipping:
        waits = part.flipping.get("waits_for") or "nothing"
        yield f"{part.name} is changing to {part.flipping['to']} and waits for {waits}"
    elif part.wanted not in (None, part.effective) and not part.refused:
        yield f"{part.name} is at {part.effective}, not at {part.wanted}"
    if part.built and part.acknowledged != part.effective:
        yield f"{part.name} is at {part.effective}, but that is not recorded; is the disk full?"


def _row(part: Part, found: Evidence | None) -> dict[str, Any]:
    return {
        "name": part.name,
        "title": part.title,
        "kind": part.kind,
        "phase": part.phase,
        "built": part.built,
        "desired": part.desired,
        "effective": part.effective,
        "acknowledged": part.acknowledged,
        "ceiling": part.ceiling,
        "reason": part.reason,
        "since": part.since,
        "refused": part.refused,
        "flipping": part.flipping,
        "pending": part.pending,
        "last_parity": {"ok": found.ok, "at": found.at} if found else None,
    }
