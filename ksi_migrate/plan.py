"""`ksi-migrate plan`: the four-week roadmap, what is done, what is next, and which gates are closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ksi_daemon.flags import Stage
from ksi_migrate import evidence, gates, situation
from ksi_migrate.choose import of_phase
from ksi_migrate.exits import Exit, document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ksi_daemon.settings import Settings
    from ksi_migrate.evidence import Evidence
    from ksi_migrate.gates import Gate
    from ksi_migrate.situation import Part, Situation

State = Literal["done", "next", "later", "not built"]


@dataclass(frozen=True, slots=True)
class Phase:
    """One week of the roadmap."""

    number: int
    state: State
    parts: tuple[Part, ...]
    gates: tuple[Gate, ...]

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        keys = ("name", "title", "kind", "built", "desired", "effective")
        return {
            "phase": self.number,
            "state": self.state,
            "components": [{key: getattr(part, key) for key in keys} for part in self.parts],
            "gates": [gate.document() for gate in self.gates],
        }


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The phases asked for, and the command that takes the next step, if there is one."""

    phases: tuple[Phase, ...]
    next_step: str | None
    exit_code: Exit = Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        phases = [phase.document() for phase in self.phases]
        return document("plan", ok=True, phases=phases, next=self.next_step)


def run(settings: Settings, phase: int | None = None) -> PlanReport:
    """Lay out every phase, or only one. Raises `WrongUsage` for a phase that the roadmap does not have."""
    if phase is not None:
        of_phase(phase)
    seen = situation.look(settings)
    found = {part.name: evidence.load(settings.migrate_dir, part.name) for part in seen.parts}
    phases = roadmap(seen, found)
    following = next((one for one in phases if one.state == "next"), None)
    step = f"ksi-migrate enable --phase {following.number}" if following else None
    return PlanReport(tuple(one for one in phases if phase in (None, one.number)), step)


def roadmap(seen: Situation, found: Mapping[str, Evidence | None]) -> tuple[Phase, ...]:
    """Every phase in order. The first that is built and not done is the next one, all after it are later."""
    phases: list[Phase] = []
    for number in sorted({part.phase for part in seen.parts}):
        parts = tuple(part for part in seen.parts if part.phase == number)
        names = [part.name for part in parts if part.built]
        closed = (gates.built(parts), gates.files(seen), gates.earlier(seen.parts, number))
        waiting = any(phase.state == "next" for phase in phases)
        phases.append(
            Phase(number, _state(parts, waiting=waiting), parts, (*closed, gates.parity(names, found)))
        )
    return tuple(phases)


def _state(parts: tuple[Part, ...], *, waiting: bool) -> State:
    if not all(part.built for part in parts):
        return "not built"
    if all(part.effective == Stage.ASYNC for part in parts):
        return "done"
    return "later" if waiting else "next"
