"""An upward step as far as it has come: what was asked for, what was seen, and which gates it met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ksi_daemon.flags import Stage
from ksi_migrate.changes import Change, ChangeReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ksi_migrate.evidence import Evidence
    from ksi_migrate.exits import CommandError, Exit
    from ksi_migrate.gates import Gate
    from ksi_migrate.progress import Progress
    from ksi_migrate.situation import Part, Situation

DEADLINE = 15.0
"""Seconds in which the daemon acknowledges: its drain (5 by default), the opening, the recording."""


class ParityReport(Protocol):
    """What `parity.run` returns, as far as the gate needs it."""

    @property
    def exit_code(self) -> Exit:
        """Done, a finding, or inconclusive."""

    def document(self) -> dict[str, Any]:
        """Its `--json` body."""


@dataclass(frozen=True, slots=True)
class Order:
    """How to go about it; the defaults are the command's own."""

    to: Stage = Stage.ASYNC
    dry_run: bool = False
    force: bool = False
    reason: str = ""
    wait: bool = True
    deadline: float = DEADLINE


@dataclass(frozen=True, slots=True)
class Means:
    """What the command needs of others: parity for the gate, an answer from the operator, progress."""

    parity: Callable[[Sequence[str]], ParityReport]
    confirm: Callable[[str], bool]
    progress: Progress


@dataclass(slots=True)
class Step:
    """The components, the order, and what has gathered on the way to the report."""

    seen: Situation
    names: tuple[str, ...]
    order: Order
    gates: list[Gate] = field(default_factory=list)
    parity: tuple[dict[str, Any], ...] = ()
    found: Mapping[str, Evidence] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def part(self, name: str) -> Part:
        """The component as it was before the step."""
        return self.seen.part(name)

    def parts(self) -> list[Part]:
        """All components of the step, as they were before it."""
        return [self.part(name) for name in self.names]

    def nothing_applied(self, reason: str, error: CommandError | None = None) -> ChangeReport:
        """The report of a step that did not reach the daemon, for one reason."""
        return self.report(dict.fromkeys(self.names, (False, reason)), self.seen.generation, error)

    def report(
        self,
        how: Mapping[str, tuple[bool, str]],
        generation: int | None,
        error: CommandError | None = None,
    ) -> ChangeReport:
        """The report: per component whether it was applied, and why or why not."""
        return ChangeReport(
            "enable",
            generation,
            tuple(Change(name, self.part(name).effective, self.order.to, *how[name]) for name in self.names),
            gates=tuple(self.gates),
            parity=self.parity,
            notes=tuple(self.notes),
            dry_run=self.order.dry_run,
            error=error,
        )

    def closed(self) -> ChangeReport | None:
        """The report of the first closed gate, None while all are open."""
        for gate in self.gates:
            if not gate.open:
                return self.nothing_applied("refused", gate.refusal(gate.why, gate.hint))
        return None
