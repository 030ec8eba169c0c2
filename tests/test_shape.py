"""The two tests of the shape: an eighth area is one folder and three lines; the last step leaves no trace."""

from __future__ import annotations

import json
import re

import pytest

from tests.project_copy import MIGRATE, PARTS, REPO, copy_of, edit, python

# an eighth area

TOY = {
    "__init__.py": '''
"""Notes: a toy room. File: `var/logs/notes.jsonl`. Event: `notes:add`."""

from ksi_daemon.area import Area
from ksi_daemon.notes.aio import AsyncNotes
from ksi_daemon.notes.contract import NoteLog
from ksi_daemon.notes.exercise import EXERCISE
from ksi_daemon.notes.service import Notes
from ksi_daemon.notes.sync import SyncNotes

AREA = Area(
    name="notes", title="notes", kind="append", week=4, contract=NoteLog,
    sync=SyncNotes, aio=AsyncNotes, service=Notes, exercise=EXERCISE,
)
''',
    "contract.py": '''
"""All that notes know of their log."""

from typing import Protocol


class NoteLog(Protocol):
    """The log of notes."""

    async def append(self, line: bytes) -> None:
        """Add one whole line."""
''',
    "core.py": '''
"""Where notes lie."""


def log_path(settings):
    """The log."""
    return settings.log_dir / "notes.jsonl"
''',
    "sync.py": '''
"""The log opened for each note."""

from ksi_daemon.linefile import LineFile, sync_to_disk
from ksi_daemon.notes.core import log_path


class SyncNotes:
    """The control."""

    def __init__(self, site):
        self._site, self._path = site, log_path(site.settings)
        self._file = LineFile(self._path, site.component)

    def open(self):
        self._file.open()
        self._file.close()

    def close(self):
        pass

    def append(self, line: bytes) -> None:
        try:
            with open(self._path, "a", encoding="utf-8", newline="", opener=self._file.opener) as log:
                log.write(line.decode())
                if self._site.durability == "fsync":
                    log.flush()
                    sync_to_disk(log.fileno())
        except OSError as error:
            raise self._file.take_back(line, error) from error
        self._file.wrote(line)
''',
    "aio.py": '''
"""Group commit."""

from ksi_daemon.groupcommit import GroupCommit
from ksi_daemon.linefile import LineFile
from ksi_daemon.notes.core import log_path


class AsyncNotes:
    """The candidate."""

    def __init__(self, site):
        self._site = site

    async def open(self):
        self._commit = GroupCommit(LineFile(log_path(self._site.settings), self._site.component), self._site)
        await self._commit.open()

    async def close(self):
        await self._commit.close()

    def pending(self):
        return self._commit.pending()

    async def append(self, line: bytes) -> None:
        await self._commit.append(line)
''',
    "service.py": '''
"""Notes, counted."""

from ksi_daemon import wire
from ksi_daemon.router import Event, text


class Notes:
    """The service."""

    def __init__(self, log, _site):
        self._log, self._count = log, 0

    def events(self):
        return (Event("notes:add", self.add, "Add a note"),)

    async def start(self):
        pass

    async def stop(self):
        pass

    def memory(self):
        return {"count": self._count}

    async def add(self, data, _client):
        line = wire.encode({"note": text(data, "note")})
        await self._log.append(line)
        self._count += 1
        return {"status": "noted"}
''',
    "exercise.py": '''
"""How notes are tried."""

import json

from ksi_daemon import wire
from ksi_daemon.exercise import Case, Exercise, Load, Step

_LOG = "var/logs/notes.jsonl"


def _add(note):
    return Step("notes:add", {"note": note})


def _lines(count):
    return [wire.encode({"note": f"{number:0280d}"}) for number in range(count)]


def _reference(path, number):
    with open(path, "a") as log:
        log.write(json.dumps({"note": f"{number:0280d}"}) + "\\n")


EXERCISE = Exercise(
    files=(_LOG,),
    cases=(Case("added", (_add("a"), _add(""), _add("b"), Step("@tear"), Step("@restart"), _add("c"))),),
    writes=(_add("first"), _add("second")),
    loads=(Load("append", 300, "append", _lines, _reference),),
)
''',
}
TOY_TEST = '''
"""Notes on both sides."""

import pytest

from ksi_daemon.notes import AREA
from tests.rooms import SIDES, room


@pytest.mark.parametrize("side", SIDES)
async def test_a_note_is_logged(side, tmp_path):
    """One line each."""
    async with room(AREA, side, tmp_path) as notes:
        assert {"status": "noted"} == await notes.send("notes:add", note="x")
        assert [{"note": "x"}] == notes.lines()
'''


@pytest.fixture(scope="module")
def eighth(tmp_path_factory):
    """The project with a toy room: one folder, one line in registry.py, one in flags.yaml, one test file."""
    project = copy_of(tmp_path_factory.mktemp("eighth") / "project", *PARTS)
    folder = project / "ksi_daemon/notes"
    folder.mkdir()
    for name, text in TOY.items():
        (folder / name).write_text(text.lstrip())
    (project / "tests/test_notes.py").write_text(TOY_TEST.lstrip())
    line = '    __import__("ksi_daemon.notes", fromlist=["AREA"]).AREA,'
    edit(project / "ksi_daemon/registry.py", (r"(?m)^(    DISCOVERY,)$", rf"\1\n{line}"))
    edit(project / "flags.yaml", (r"(?m)^(  discovery: sync)$", r"\1\n  notes: sync"))
    return project


def migrate(project, *words):
    """The JSON document of one command on the copy, which must succeed."""
    done = python(project, "-c", MIGRATE, *words, "--root", str(project), "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def rows(document):
    """Its components by name."""
    return {row["name"]: row for row in document["components"]}


def test_the_eighth_areas_own_test_passes(eighth):
    """Its one test file runs both sides from the fixture that every room has."""
    done = python(eighth, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_notes.py")

    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_status_and_plan_take_up_an_eighth_area(eighth):
    """Unasked: it stands in its phase, built, at sync."""
    row = rows(migrate(eighth, "status"))["notes"]
    phases = migrate(eighth, "plan")["phases"]

    assert (row["title"], row["phase"], row["built"], row["desired"]) == ("notes", 4, True, "sync")
    (fourth,) = (phase for phase in phases if phase["phase"] == 4)
    assert "notes" in [part["name"] for part in fourth["components"]]


def test_parity_takes_up_an_eighth_area(eighth):
    """It finds both sides alike, over cases that it made itself."""
    row = rows(migrate(eighth, "parity", "notes"))["notes"]

    assert (row["ok"], row["mismatches"]) == (True, [])
    assert row["cases"] > 5


@pytest.mark.timeout(120)
def test_bench_takes_up_an_eighth_area(eighth):
    """Both sides of every case are measured."""
    done = python(
        eighth,
        *("-c", MIGRATE, "bench", "notes", "--rounds", "1", "--root", str(eighth), "--json"),
        timeout=100,
    )
    assert done.returncode in {0, 5}, done.stderr + done.stdout  # 5: one round is too few to judge by
    cases = rows(json.loads(done.stdout))["notes"]["cases"]

    assert cases
    for case in cases:
        assert all(case[side]["throughput_per_s"] > 0 for side in ("sync", "async"))


# the last step

RETIRED_APP = (
    (r"from ksi_daemon\.(conductor|switch|watch) import \w+\n", ""),
    (r"Switch\(area, (self\._sites\[area\.name\])\)", r"area.aio(\1)"),
    (r" +self\._(watch|conductor) = .*\n", ""),
    (r" +self\._router\.add\(self\._conductor\.events\(\)\)\n", ""),
    (r" +loop\.add_signal_handler\(signal\.SIGHUP, .*\n", ""),
    (
        r"( +)await self\._conductor\.start\(\)\n",
        r"\1for side in self._switches.values():\n\1    await side.open()\n",
    ),
    (r" +await self\._conductor\.stop\(\)\n", ""),
)


@pytest.fixture(scope="module")
def retired(tmp_path_factory):
    """The daemon without its sync sides and its switch; only app, area and the rooms' __init__ are edited."""
    project = copy_of(tmp_path_factory.mktemp("retired") / "project", "ksi_daemon", "tests", "pyproject.toml")
    daemon = project / "ksi_daemon"
    (daemon / "switch.py").unlink()
    for side in daemon.glob("*/sync.py"):
        side.unlink()
        edit(side.parent / "__init__.py", (r"from \S+\.sync import \w+\n", ""), (r" *sync=\w+,\n", ""))
    edit(daemon / "area.py", (r" +sync: Callable.*\n", ""))
    edit(daemon / "app.py", *RETIRED_APP)
    return project


IMPORT_ALL = """
import importlib, pkgutil, sys
import ksi_daemon
assert ksi_daemon.__file__.startswith(sys.argv[1]), ksi_daemon.__file__
for found in pkgutil.walk_packages(ksi_daemon.__path__, "ksi_daemon."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def test_nothing_misses_the_sync_sides(retired):
    """Every other module still imports: the switch is named for types only."""
    done = python(retired, "-c", IMPORT_ALL, str(retired))

    assert (done.returncode, done.stderr) == (0, "")


def size_of(path):
    """Of a file, in bytes."""
    return path.stat().st_size


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_the_async_suites_pass_without_the_sync_sides(retired, count):
    """The rooms' own tests but the long ones, unchanged: their fixture offers the sides that there are.

    `make soak` runs all of them, the gate each room's two shortest files.
    """
    rooms = [side.parent.name for side in (REPO / "ksi_daemon").glob("*/aio.py")]
    every = {room: [*retired.glob(f"tests/test_{room}*.py")] for room in rooms}
    suites = {room: sorted(found, key=size_of)[: count(2, len(found))] for room, found in every.items()}
    files = [str(suite) for found in suites.values() for suite in found]
    brief = ("-m", "not soak", "-p", "no:cacheprovider")
    done = python(retired, "-m", "pytest", "-q", *brief, *files, timeout=150)

    found = re.search(r"(\d+) passed", done.stdout)
    assert all(suites.values()), suites
    assert done.returncode == 0, done.stdout + done.stderr
    assert found
    assert int(found[1]) > count(10, 20) * len(rooms)


SERVES = """
import asyncio, json, sys
from pathlib import Path
from ksi_daemon import settings, transport
from ksi_daemon.app import Daemon
place = settings.load(sys.argv[1])
async def main():
    daemon = Daemon(place)
    serving = asyncio.create_task(daemon.serve(transport.bind(place.socket_path)))
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(place.socket_path)
            break
        except OSError:
            await asyncio.sleep(0.01)
    data = {"agent_id": "a", "event_type": "NOTE", "message": {"text": "last step"}}
    writer.write(json.dumps({"event": "message:publish", "data": data}).encode() + b"\\n")
    print(json.loads(await reader.readline())["data"]["status"])
    daemon.stop()
    print(await serving)
asyncio.run(main())
"""


def test_a_retired_daemon_serves(retired, tmp_path):
    """It publishes to the log and ends cleanly, with no flags.yaml anywhere."""
    done = python(retired, "-c", SERVES, str(tmp_path))

    assert done.stdout.splitlines()[-2:] != [], done.stderr
    assert "published" in done.stdout
    assert "True" in done.stdout, done.stdout + done.stderr
    assert b"last step" in (tmp_path / "var/logs/responses/message_bus.jsonl").read_bytes()
