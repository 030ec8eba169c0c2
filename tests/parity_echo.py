"""A toy room that runs a process, for parity's own tests."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from typing import NamedTuple, Protocol

from ksi_daemon import children
from ksi_daemon.area import Area
from ksi_daemon.errors import IoFailed
from ksi_daemon.exercise import Case, Exercise, Step
from ksi_daemon.lane import Lane
from ksi_daemon.linefile import private_directory
from ksi_daemon.replace import only_regular
from ksi_daemon.router import Event

NOTE = "var/echo.txt"


class Said(NamedTuple):
    """How it ended, and what it printed."""

    code: int
    text: bytes
    errors: bytes


class Echo(Protocol):
    """A program that says something again."""

    async def run(self, text: str) -> Said:
        """Run it once."""


class SyncEcho:
    """Blocks until it is over."""

    def __init__(self, site):
        self._site = site
        self._program = str(site.settings.root / "bin/echo")
        self._scratch = site.settings.daemon_tmp_dir

    def open(self):
        """Nothing is kept open."""

    def close(self):
        """Nothing runs."""

    def run(self, text: str) -> Said:
        """Inline."""
        private_directory(self._scratch)
        _check_note(self._site)
        done = subprocess.run([self._program], input=text.encode(), capture_output=True, check=False)
        return Said(done.returncode, done.stdout, done.stderr)


class AsyncEcho:
    """A child that ends with its caller."""

    ABANDONS = False
    _numbers = itertools.count()

    def __init__(self, site):
        self._site = site
        self._runs: set[asyncio.Task[children.Finished]] = set()

    async def open(self):
        """Start the thread for files."""
        self._lane = Lane("ksi-echo")

    async def close(self):
        """End what runs."""
        for run in self._runs:
            run.cancel()
        if self._runs:
            await asyncio.wait(self._runs)
        await self._lane.close(1.0)

    def pending(self):
        """Never anything to tell."""

    async def run(self, text: str) -> Said:
        """As a child of its own, which is ended when the caller is cancelled, and gone before it goes on."""
        await self._lane.run(lambda: _check_note(self._site))
        run = asyncio.create_task(children.run(self._command(text), self._lane))
        self._runs.add(run)
        try:
            await asyncio.wait([run])
        finally:
            if not self.ABANDONS:
                run.cancel()
                while not run.done():
                    await _whatever_comes(run)
                self._runs.discard(run)
        done = run.result()
        return Said(done.code, done.stdout, done.stderr)

    def _command(self, text):
        settings = self._site.settings
        return children.Command(
            argv=(str(settings.root / "bin/echo"),),
            cwd=str(settings.root),
            env={"PATH": "/usr/bin:/bin"},
            mark=f"toy-{next(self._numbers)}",
            stdin=text.encode(),
            deadline_s=30,
            grace_s=settings.claude_grace,
            most_bytes=1000,
            scratch=settings.daemon_tmp_dir,
        )


def _check_note(site):
    try:
        only_regular(site.settings.root / NOTE)
    except OSError as error:
        raise IoFailed(site.component, "read the note", error) from error


async def _whatever_comes(task):
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        return


class AbandoningEcho(AsyncEcho):
    """The same, but a cancelled caller leaves it running."""

    ABANDONS = True


class Echoes:
    """Asks one after another, and counts; `neighbour:greet` gives the greeting, a frame tells everybody."""

    def __init__(self, echo, site):
        self._echo, self._site = echo, site
        self._lock = asyncio.Lock()
        self._count = 0

    def events(self):
        """One."""
        return (Event("echo:say", self.say, "Say"),)

    async def start(self):
        """Nothing: programs begin when they are asked for."""

    async def stop(self):
        """Nothing runs without a caller."""

    def memory(self):
        """How many were answered."""
        return {"count": self._count}

    async def say(self, data, _client):
        """The program's answer, with an id."""
        name = self._site.new_id()
        async with self._lock:
            greeting = await self._site.hub.ask("neighbour:greet", {})
            said = await self._echo.run(f"{greeting['text']} {data['text']}\n")
        self._count += 1
        self._site.hub.tell("echo:said", {"id": name})
        return {"id": name, "code": said.code, "said": said.text.decode(), "errors": said.errors.decode()}


def _say(text):
    return Step("echo:say", {"text": text})


def _neighbours():
    async def greet(_data, _client):
        return {"text": "hello"}

    return (Event("neighbour:greet", greet, "Greet"),)


_ECHO = b"""#!/bin/sh
read -r line
echo "$line"
case $line in *wrong*) echo because >&2; exit 3 ;; esac
"""
ECHO_ROOM = Area(
    name="echo",
    title="a toy that runs a process",
    kind="process",
    week=4,
    contract=Echo,
    sync=SyncEcho,
    aio=AsyncEcho,
    service=Echoes,
    exercise=Exercise(
        files=(NOTE,),
        cases=(
            Case("said", (_say("a"), _say("b"), _say("wrong"), _say("c")), files={NOTE: b"kept"}),
            Case("trouble", (_say("a"), Step("@block"), _say("b"), Step("@unblock"), _say("c"))),
        ),
        writes=(_say("first"), _say("second")),
        neighbours=_neighbours,
        programs={"bin/echo": _ECHO},
        settings={"claude_grace": 0.2, "daemon_tmp_dir": "var/elsewhere"},
    ),
)
