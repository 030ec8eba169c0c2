"""`ksi-migrate log`: the journal, newest last; lines that cannot be read are counted, never in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon.recorder import JOURNAL
from ksi_migrate import journal
from ksi_migrate.exits import CommandError, Exit, Finding, document

if TYPE_CHECKING:
    from ksi_daemon.settings import Settings


@dataclass(frozen=True, slots=True)
class LogReport:
    """The entries asked for, of `total` that match, and how many lines of the journal are damaged."""

    path: str
    entries: tuple[dict[str, Any], ...]
    total: int
    damaged: int
    exit_code: Exit = Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        return document(
            "log",
            ok=True,
            path=self.path,
            entries=list(self.entries),
            total=self.total,
            damaged=self.damaged,
        )


class JournalUnreadable(Finding):
    """There is a journal, and the operating system will not show it."""

    code = "journal_unreadable"


def run(settings: Settings, *, limit: int = 20, component: str | None = None) -> LogReport:
    """The last `limit` entries (0: all), of one component if named. Raises `CommandError`; writes nothing."""
    path = settings.migrate_dir / JOURNAL
    try:
        found = journal.read(settings.migrate_dir)
    except OSError as error:
        raise unreadable(path, error) from error
    matching = [entry for entry in found.entries if component in (None, entry.get("component"))]
    return LogReport(str(path), tuple(matching[-limit:]), len(matching), found.damaged)


def unreadable(path: object, error: OSError) -> CommandError:
    """The error for a journal that the operating system will not show."""
    reason = (error.strerror or str(error)).lower()
    return JournalUnreadable(f"{path} cannot be read: {reason}", "ksi-migrate doctor checks the permissions")
