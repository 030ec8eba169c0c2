"""A `claude` command, real or stand-in, run as the daemon runs it: stdin, stdout and stderr are files."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ASKED = ("-p", "--output-format", "json")
PATIENCE = 50.0
"""Seconds for one run."""


def wait_until(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """What `condition()` gives as soon as that is true; fails when it stays false."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
    return found


class Process(NamedTuple):
    """One line of the process table."""

    pid: int
    parent: int
    state: str
    words: str


def table() -> list[Process]:
    """The processes of now."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, check=True).stdout
    rows = [line.split(None, 3) for line in found.decode(errors="replace").splitlines()]
    return [Process(int(pid), int(parent), state, words) for pid, parent, state, words in rows]


def processes(mark: str) -> list[int]:
    """The processes whose command line holds `mark`; a zombie has none."""
    return [process.pid for process in table() if mark in process.words]


def children_of(parent: int, *, zombies: bool = True) -> list[int]:
    """The direct children of a process."""
    found = [process for process in table() if process.parent == parent]
    return [process.pid for process in found if zombies or not process.state.startswith("Z")]


class Run(NamedTuple):
    """How it ended and what it printed."""

    code: int
    out: bytes
    err: bytes

    @property
    def answer(self) -> dict[str, Any]:
        """Its JSON object."""
        return json.loads(self.out)

    @property
    def session(self) -> str:
        """The session's id in it."""
        return str(self.answer["session_id"])


class Started:
    """A run under way."""

    def __init__(self, process: subprocess.Popen[bytes], out: Any, err: Any) -> None:
        self.process = process
        self.pid = process.pid
        self._out = out
        self._err = err

    def end(self) -> Run:
        """Wait for its end."""
        code = self.process.wait(PATIENCE)
        self._out.seek(0)
        self._err.seek(0)
        return Run(code, self._out.read(), self._err.read())


class Command:
    """A program, its environment, and the directory in which it runs unless another is named."""

    def __init__(self, program: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.program = program
        self.env = dict(env)
        self.cwd = cwd
        cwd.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def start(self, prompt: str, *words: str, cwd: Path | None = None) -> Iterator[Started]:
        """Begin a run; it is killed at the end if it still goes on."""
        with (
            tempfile.TemporaryFile() as stdin,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            stdin.write(prompt.encode())
            stdin.seek(0)
            line = [str(self.program), *words]
            process = subprocess.Popen(
                line, stdin=stdin, stdout=out, stderr=err, cwd=cwd or self.cwd, env=self.env
            )
            try:
                yield Started(process, out, err)
            finally:
                process.kill()
                process.wait()

    def run(self, prompt: str, *words: str, cwd: Path | None = None) -> Run:
        """One run from its beginning to its end."""
        with self.start(prompt, *words, cwd=cwd) as started:
            return started.end()

    def turn(self, prompt: str, *words: str, cwd: Path | None = None) -> Run:
        """One turn that answers in JSON."""
        return self.run(prompt, *ASKED, *words, cwd=cwd)
