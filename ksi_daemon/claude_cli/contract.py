"""All that the service of agents' turns knows of the `claude` command and of what it remembers."""

from typing import Protocol

from ksi_daemon.claude_cli.core import Ended, Turn


class ClaudeCli(Protocol):
    """The command, run for one turn at a time, and where each session began."""

    async def turn(self, turn: Turn) -> Ended:
        """Run the command once to its end, whatever its exit code, in `turn.cwd`.

        Cancelled, or past its deadline, the command is ended; async: with all its descendants, and nothing is
        left running or unreaped after any ending. A second cancellation leaves it no time to end by itself.
        Raises `ProgramMissing`, `Unusable` (no such `cwd` or `config`), `StartFailed`, `TurnTimedOut`,
        `OutputTooLarge`, `IoFailed`; async also `ComponentClosed`.
        """

    async def remember(self, session: str, cwd: str) -> None:
        """Keep across restarts in which directory a session began. Raises `IoFailed`."""

    async def recall(self, session: str) -> str:
        """The directory in which a session began; empty when it is not known. Raises `IoFailed`."""
