"""What a turn needs of the disk: the program, its directory, and where each session began. Blocks."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from ksi_daemon import family
from ksi_daemon.claude_cli.core import environment
from ksi_daemon.claude_cli.failures import ProgramMissing, Unusable
from ksi_daemon.errors import IoFailed
from ksi_daemon.linefile import private_directory
from ksi_daemon.replace import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.claude_cli.core import Turn
    from ksi_daemon.site import Site

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_LONGEST_PATH = 8192


class Places:
    """One component's places on the disk; both sides have one."""

    def __init__(self, site: Site) -> None:
        self._settings = site.settings
        self._component = site.component
        root = os.fsencode(site.settings.root)
        self._family = f"{hashlib.sha256(root).hexdigest()[:12]}-"

    @property
    def scratch(self) -> Path:
        """Where the files for stdin, stdout and stderr are made."""
        return self._settings.daemon_tmp_dir

    def mark(self, turn: Turn) -> str:
        """By which the processes of one turn are found."""
        return f"{self._family}{turn.name}"

    def environment(self) -> dict[str, str]:
        """What of the daemon's environment reaches the command."""
        return environment(os.environ, self._settings.claude_env)

    def sweep(self) -> None:
        """End what an earlier daemon of this root left running; only the first call in a process does."""
        family.sweep_once(self._family)

    def prepare(self, turn: Turn) -> str:
        """Make the turn's directory and find the program, whose path is the answer.

        Raises `ProgramMissing`, `Unusable`, `IoFailed`.
        """
        settings = self._settings
        program = find_program(settings.claude_bin, str(settings.root), os.environ.get("PATH", ""))
        if turn.config:
            _check_config(turn.config, str(settings.root))
        if turn.make_cwd:
            self._make(turn.cwd)
        elif not os.path.isdir(turn.cwd):
            raise Unusable("cwd", "the absolute path of a directory that exists")
        return program

    def remember(self, session: str, cwd: str) -> None:
        """Write down where a session began, in a file of its own, replaced whole. Raises `IoFailed`."""
        path = self._file(session)
        try:
            private_directory(path.parent)
            replace_file(path, cwd.encode())
        except OSError as error:
            raise IoFailed(self._component, f"write {path}", error) from error

    def recall(self, session: str) -> str:
        """What `remember` wrote; empty when there is nothing that could be a path. Raises `IoFailed`."""
        path = self._file(session)
        try:
            fd = os.open(path, _READ)
            try:
                found = os.read(fd, _LONGEST_PATH)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise IoFailed(self._component, f"read {path}", error) from error
        return _path(found)

    def _file(self, session: str) -> Path:
        return self._settings.state_dir / "claude_sessions" / session.lower()

    def _make(self, cwd: str) -> None:
        try:
            private_directory(self._settings.sandbox_dir)
            _make_below(str(self._settings.sandbox_dir), cwd)
        except OSError as error:
            raise IoFailed(self._component, f"make {cwd}", error) from error


def find_program(configured: str | None, root: str, search: str) -> str:
    """The configured program, else `claude` in the first absolute entry of `search` that has it.

    A relative entry is passed over, so that no `./claude` in a working directory ever runs. Raises
    `ProgramMissing`.
    """
    if configured:
        candidates = [os.path.join(root, configured)]
    else:
        candidates = [
            os.path.join(entry, "claude") for entry in search.split(os.pathsep) if os.path.isabs(entry)
        ]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise ProgramMissing(candidates[0] if configured else "PATH")


def _check_config(path: str, root: str) -> None:
    real = os.path.realpath(path)
    if not real.startswith(os.path.join(os.path.realpath(root), "")) or not os.path.isfile(real):
        raise Unusable("mcp_config_path", "a file beneath the root")


def _make_below(base: str, path: str) -> None:
    """Each missing directory from `base` down to `path`, 0700; no link on the way is followed."""
    fd = os.open(base, _FOLDER)
    try:
        for part in os.path.relpath(path, base).split(os.sep):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=fd)
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


def _path(found: bytes) -> str:
    try:
        text = found.decode()
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text or len(found) == _LONGEST_PATH else text
