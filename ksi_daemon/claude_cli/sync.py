"""The command as it was run: `subprocess.run` on the loop's thread, which waits for its end."""

import contextlib
import os
import subprocess
from tempfile import TemporaryFile
from typing import IO

from ksi_daemon import family
from ksi_daemon.claude_cli.core import Ended, Turn
from ksi_daemon.claude_cli.failures import OutputTooLarge, StartFailed, TurnTimedOut
from ksi_daemon.claude_cli.places import Places
from ksi_daemon.linefile import private_directory
from ksi_daemon.site import Site


class SyncClaudeCli:
    """The control. The loop stands still for the whole turn, and only the command itself is ever killed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._places = Places(site)

    def open(self) -> None:
        """End what an earlier daemon left running."""
        self._places.sweep()

    def close(self) -> None:
        """Nothing runs between two calls."""

    def turn(self, turn: Turn) -> Ended:
        """Run the command to its end. What it prints is measured when it is over."""
        program = self._places.prepare(turn)
        try:
            private_directory(self._places.scratch)
            return self._run(program, turn)
        except subprocess.TimeoutExpired:
            raise TurnTimedOut(turn.deadline_s) from None
        except OSError as error:
            raise StartFailed(self._site.component, f"start {program}", error) from error
        finally:
            with contextlib.suppress(OSError):  # no fault of this turn, whose answer would be lost
                family.reap_adopted()  # what earlier turns left behind and has died since

    def _run(self, program: str, turn: Turn) -> Ended:
        scratch = self._places.scratch
        with (
            TemporaryFile(dir=scratch) as prompt,
            TemporaryFile(dir=scratch) as stdout,
            TemporaryFile(dir=scratch) as stderr,
        ):
            prompt.write(turn.prompt.encode())
            prompt.seek(0)
            done = subprocess.run(
                [program, *turn.argv],
                stdin=prompt,
                stdout=stdout,
                stderr=stderr,
                cwd=turn.cwd,
                env={**self._places.environment(), family.MARK: self._places.mark(turn)},
                timeout=turn.deadline_s,
                check=False,
            )
            return Ended(done.returncode, self._printed(stdout), self._printed(stderr))

    def _printed(self, file: IO[bytes]) -> bytes:
        limit = self._site.settings.claude_max_output_bytes
        if os.fstat(file.fileno()).st_size > limit:
            raise OutputTooLarge(limit)
        file.seek(0)
        return file.read()

    def remember(self, session: str, cwd: str) -> None:
        """Written inline."""
        self._places.remember(session, cwd)

    def recall(self, session: str) -> str:
        """Read inline."""
        return self._places.recall(session)
