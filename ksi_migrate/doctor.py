"""`ksi-migrate doctor`: what this machine and this root lack, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ksi_migrate.exits import Exit, document

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ksi_daemon.settings import Settings

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Check:
    """One look. A failed one of level `error` keeps the daemon from its work; `hint` says how to mend it."""

    name: str
    ok: bool
    level: Level
    found: str
    hint: str = ""


def good(name: str, level: Level, found: str) -> Check:
    """A check that is well."""
    return Check(name, ok=True, level=level, found=found)


def bad(name: str, level: Level, found: str, hint: str) -> Check:
    """A check that failed."""
    return Check(name, ok=False, level=level, found=found, hint=hint)


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Every check, in order."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> Exit:
        """1 when a check of level `error` failed."""
        failed = any(not check.ok and check.level == "error" for check in self.checks)
        return Exit.FINDING if failed else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        ok = self.exit_code == Exit.DONE
        return document("doctor", ok=ok, checks=[asdict(check) for check in self.checks])


def run(settings: Settings, looks: Sequence[Callable[[Settings], Check]]) -> DoctorReport:
    """Take every look. Writes nothing."""
    return DoctorReport(tuple(look(settings) for look in looks))
