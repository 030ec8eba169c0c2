"""What `enable` and `rollback` report: each component's step, and whether the daemon has it in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_migrate.exits import Exit, document

if TYPE_CHECKING:
    from ksi_daemon.flags import Stage
    from ksi_migrate.exits import CommandError
    from ksi_migrate.gates import Gate


@dataclass(frozen=True, slots=True)
class Change:
    """One component's step; `applied` when the daemon acknowledged `after`, `reason` says why or why not."""

    name: str
    before: Stage | None
    after: Stage
    applied: bool
    reason: str

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        return {
            "name": self.name,
            "from": self.before,
            "to": self.after,
            "applied": self.applied,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class ChangeReport:
    """The whole command. `error` ends it with its own exit code, after what was done is told."""

    command: str
    generation: int | None
    changes: tuple[Change, ...]
    gates: tuple[Gate, ...] = ()
    parity: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    dry_run: bool = False
    error: CommandError | None = None

    @property
    def exit_code(self) -> Exit:
        """The error's, or done."""
        return self.error.exit if self.error else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        body = document(
            self.command,
            ok=self.error is None,
            generation=self.generation,
            applied=bool(self.changes) and all(change.applied for change in self.changes),
            components=[change.document() for change in self.changes],
            notes=list(self.notes),
        )
        if self.command == "enable":
            body["dry_run"] = self.dry_run
            body["gates"] = [gate.document() for gate in self.gates]
            body["parity"] = list(self.parity)
        if self.error is not None:
            body["error"] = {"code": self.error.code, "message": str(self.error), "hint": self.error.hint}
        return body
