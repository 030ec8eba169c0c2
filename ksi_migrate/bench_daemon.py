"""A real daemon in a process of its own, on a scratch root, for as long as a block lasts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ksi_daemon import client, registry
from ksi_migrate.exits import Inconclusive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RUN: Final = (
    "import sys; from ksi_daemon import process, settings; sys.exit(process.run(settings.load(sys.argv[1])))"
)
STARTS_S: Final = 15.0
STOPS_S: Final = 15.0
LOG: Final = "daemon.log"


class DaemonFailed(Inconclusive):
    """The daemon under test did not start, or did not end well."""

    def __init__(self, what: str, log: Path) -> None:
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:] if log.exists() else ""
        super().__init__(f"the daemon under test {what}", said or "it said nothing")


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answers: its process id, its root, and its socket."""

    pid: int
    root: Path
    socket: Path


@contextmanager
def running(root: Path, stage: str, more: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a daemon with every built component at `stage`, and stop it in order at the end.

    `KSI_*` of this process do not reach it, `more` does. Its socket lies in the system's own temporary
    directory, since a path of over about 100 bytes cannot be bound. Raises `DaemonFailed`.
    """
    root.mkdir(parents=True)
    (root / "flags.yaml").write_text(flags_text(stage), encoding="utf-8")
    place = Path(tempfile.mkdtemp(prefix="ksi-"))
    socket = place / "s"
    try:
        child = _start(root, {**_environment(), "KSI_SOCKET_PATH": str(socket), **(more or {})})
        try:
            _await_ready(child, root, socket, stage)
            yield Running(child.pid, root, socket)
        finally:
            code = _stop(child)
        if code:
            raise DaemonFailed(f"ended with exit code {code}", root / LOG)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def flags_text(stage: str) -> str:
    """A flags.yaml with every component that has two sides at `stage`, the others at their only one."""
    two_sided = {area.name for area in registry.two_sided()}
    lines = (
        f"  {area.name}: {stage if area.name in two_sided else area.lowest}\n" for area in registry.AREAS
    )
    return "version: 1\ncomponents:\n" + "".join(lines)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KSI_")}


def _start(root: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C reaches only us, and we stop it in order."""
    with (root / LOG).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _await_ready(child: subprocess.Popen[bytes], root: Path, socket: Path, stage: str) -> None:
    """Wait until it answers, with the stage that is to be measured in force."""
    deadline = time.monotonic() + STARTS_S
    while True:
        try:
            status = client.ask(socket, "migration:status")["data"]
            break
        except client.Unreachable:
            if child.poll() is not None or time.monotonic() > deadline:
                raise DaemonFailed("did not start", root / LOG) from None
            time.sleep(0.02)
    names = {area.name for area in registry.two_sided()}
    stages = {found["name"]: found["effective"] for found in status["components"] if found["name"] in names}
    if set(stages.values()) != {stage}:
        raise DaemonFailed(f"has {stages} in force, not {stage}", root / LOG)


def _stop(child: subprocess.Popen[bytes]) -> int:
    child.terminate()
    try:
        return child.wait(STOPS_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
