"""Where the demo takes place: a scratch root with its flags, and a real daemon process on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ksi_daemon
from ksi_daemon import client, flagtext, settings, transport
from ksi_daemon.claude_cli.standin import PROGRAM
from ksi_daemon.errors import SocketUnusable
from ksi_daemon.flags import Stage
from ksi_daemon.registry import AREAS
from ksi_daemon.replace import replace_file
from ksi_migrate.exits import Finding, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ksi_daemon.settings import Settings

READY_S = 20.0
STOP_S = 10.0
POLL_S = 0.05
SOURCE = Path(ksi_daemon.__file__).parent.parent
"""From here every child finds both packages, installed or not, whatever the working directory holds."""
WRITING = tuple(area.name for area in AREAS if area.kind in ("append", "replace"))
LOG_TAIL = 5


class DaemonFailed(Finding):
    """The demo's daemon did not start; its log's last lines are in the message."""

    code = "daemon_failed"

    def __init__(self, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:] if log.exists() else []
        super().__init__(f"the daemon {what}; its log ends: {' / '.join(lines) or 'nothing'}")


@dataclass(slots=True)
class Scratch:
    """A root of the demo's own; it goes when the demo ends, unless `keep` is set."""

    settings: Settings
    keep: bool = False

    @property
    def root(self) -> Path:
        """The daemon's root."""
        return self.settings.root

    @property
    def log(self) -> Path:
        """What the daemon process printed."""
        return self.root / "daemon.out"

    def set_durability(self, durability: str) -> None:
        """Edit flags.yaml as an operator does with an editor: whole, in the place of the old one."""
        text = self.settings.flags_path.read_text()
        changes = {f"durability.{name}": durability for name in WRITING}
        replace_file(self.settings.flags_path, flagtext.set_scalars(text, changes).encode())


def environment() -> Mapping[str, str]:
    """The environment of every child: without the user's own KSI settings, which would lead it elsewhere."""
    return {key: value for key, value in os.environ.items() if not key.upper().startswith("KSI_")}


def initial_flags() -> str:
    """Every component at sync, and each acknowledged write on the disk."""
    durability = "".join(f"  {name}: fsync\n" for name in WRITING)
    components = "".join(f"  {area.name}: {Stage.SYNC}\n" for area in AREAS)
    return f"version: 1\ndurability:\n{durability}components:\n{components}"


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """A new root below the system's temporary directory. Raises `Refused` when no socket fits there."""
    root = Path(tempfile.mkdtemp(prefix="ksi-demo-")).resolve()
    found = Scratch(_settings(root))
    try:
        _check(found.settings)
        found.settings.flags_path.write_text(initial_flags())
        _lay_down_claude(root)
        yield found
    finally:
        if not found.keep:
            shutil.rmtree(root, ignore_errors=True)


def _lay_down_claude(root: Path) -> None:
    """A stand-in for the `claude` command: the demo must neither cost anything nor reach anybody."""
    program = root / "bin" / "claude"
    program.parent.mkdir()
    program.write_bytes(PROGRAM)
    program.chmod(0o700)
    (root / ".env").write_text("KSI_CLAUDE_BIN=bin/claude\n")


def _settings(root: Path) -> Settings:
    """The root's settings by their defaults, as the children see them."""
    names = [name for name in os.environ if name.upper().startswith("KSI_")]
    saved = {name: os.environ.pop(name) for name in names}
    try:
        return settings.load(root)
    finally:
        os.environ.update(saved)


def _check(found: Settings) -> None:
    try:
        transport.check_path(found.socket_path)
    except SocketUnusable as error:
        reason = f"the temporary directory's name is too long for a socket: {found.socket_path}"
        raise Refused(reason, "set TMPDIR to a shorter one, such as /tmp") from error


@contextlib.contextmanager
def daemon(place: Scratch) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that answers, ended with the block. Its session is its own, so Ctrl-C reaches only us."""
    env = {**environment(), "KSI_MEASURE_LOOP": "true", "KSI_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "ksi_daemon", "run", "--root", str(place.root)]
    with place.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd=SOURCE,
            start_new_session=True,
        )
    try:
        _await_ready(place, process)
        yield process
    finally:
        end(process)


def _await_ready(place: Scratch, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(client.Unreachable):
            client.ask(place.settings.socket_path, "system:health")
            return
        time.sleep(POLL_S)
    raise DaemonFailed("did not start" if process.poll() is None else "ended at its start", place.log)


def end(process: subprocess.Popen[bytes]) -> None:
    """See to it that the process is gone: asked first, killed when that does not end it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
