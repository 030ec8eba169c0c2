"""Sets and gets of configuration files are measured on every column, and no file is believed unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ksi_migrate import bench_config, bench_documents, bench_parts
from ksi_migrate.bench_columns import COLUMNS
from ksi_migrate.bench_config import Gets, Sets
from ksi_migrate.bench_documents import Files
from ksi_migrate.bench_proof import Broken
from ksi_migrate.idle import IdleHeartbeat, idle_heartbeat
from tests.bench_toys3 import CONFIG, AsyncDocuments, SyncDocuments

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Loses(AsyncDocuments):
    """A side that acknowledges a set and drops it."""

    async def change(self, name, key, value):
        """All but one."""
        return "x" if key.endswith("005") else await super().change(name, key, value)


class Damages(SyncDocuments):
    """A side that loses what was there before."""

    def change(self, name, key, value):
        """Only what is set now."""
        backup = super().change(name, key, value)
        kept = {"bench": yaml.safe_load(self._path(name).read_bytes())["bench"]}
        self._path(name).write_text(yaml.safe_dump(kept))
        return backup


class Tears(SyncDocuments):
    """A side that leaves half a file."""

    def change(self, name, key, value):
        """Cut off within a string, by the last set of a file."""
        backup = super().change(name, key, value)
        if key.endswith("005"):
            self._path(name).write_text('name: "bench')
        return backup


class Flows(AsyncDocuments):
    """A side that writes the same in other bytes."""

    async def change(self, name, key, value):
        """In flow style."""
        backup = await super().change(name, key, value)
        path = self._side._path(name)
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_bytes()), sort_keys=False, width=1000))
        return backup


class Litters(AsyncDocuments):
    """A side that leaves a temporary file behind."""

    async def change(self, name, key, value):
        """One more file."""
        self._side._path(f"{name}.tmp").touch()
        return await super().change(name, key, value)


class Reuses(SyncDocuments):
    """A side whose backups have one name."""

    def change(self, name, key, value):
        """Always the same."""
        super().change(name, key, value)
        return "backup"


class Remembers(AsyncDocuments):
    """A side that reads a file once."""

    kept: Any = None

    async def read(self, name):
        """The first answer."""
        self.kept = self.kept or await super().read(name)
        return self.kept


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve sets over five files of 1 kB, six of them on the columns that block."""
    for name, value in {"ROUND_S": 0.02, "SIZE": 1000, "FILES": 5, "SETS": 12, "SAMPLE": 6}.items():
        monkeypatch.setattr(bench_config, name, value)


@pytest.fixture
async def idle() -> AsyncIterator[IdleHeartbeat]:
    """The heartbeat of an idle process."""
    async with idle_heartbeat() as found:
        yield found


def untold(_text: str) -> None:
    """A progress that nobody reads."""


@pytest.mark.parametrize("durability", ["os", "fsync"])
async def test_sets_at_once_are_all_in_the_files(tmp_path, idle, durability):
    """Async makes all of them, the others a sample without latencies; with fsync there is no reference."""
    told: list[str] = []

    case = await Sets(CONFIG, tmp_path, durability).measure(1, idle, told.append)

    assert told == [f"config: {case.name}"]
    assert (case.candidate.calls, case.sync.calls, case.callers) == (12, 6, 12)
    assert (case.reference is None) == (durability == "fsync")
    assert case.sync.latency_p50_ms is None is not case.candidate.latency_p50_ms
    assert "sampled: 6 of the 12" in case.note
    assert "stall of at most 5 ms" in case.bar


async def test_nothing_is_noted_without_a_sample(tmp_path, idle, monkeypatch):
    """Where all columns make all of them."""
    monkeypatch.setattr(bench_config, "SAMPLE", 12)

    assert (await Sets(CONFIG, tmp_path).measure(1, idle, untold)).note == ""


async def test_gets_are_measured_and_changes_noticed(tmp_path, idle):
    """Each column shows what is in the file, also when somebody else has changed it."""
    case = await Gets(CONFIG, tmp_path).measure(2, idle, untold)

    assert (case.name, case.callers, case.rounds) == ("get from an unchanged file of 1 kB", 1, 2)
    assert all((case.more["call_ms"][column] or 0) > 0 for column in COLUMNS)


@pytest.mark.parametrize(
    ("sides", "text"),
    [
        ({"aio": Loses}, r"async: bench_00.yaml: acknowledged and not in the file: key_005"),
        ({"sync": Damages}, r"sync: bench_00.yaml: it holds something else"),
        ({"sync": Tears}, r"sync: bench_00.yaml: it is no YAML any more"),
        ({"aio": Litters}, r"bench_00.yaml.tmp"),
        ({"sync": Reuses}, "6 sets were acknowledged with 1 different backups"),
        ({"aio": Flows}, "the same values in other bytes"),
    ],
)
async def test_a_wrong_file_is_a_finding(tmp_path, idle, sides, text):
    """A lost key, lost content, a torn file, a leftover, a backup overwritten, other bytes."""
    with pytest.raises(Broken, match=text):
        await Sets(replace(CONFIG, **sides), tmp_path).measure(1, idle, untold)


async def test_a_change_that_is_not_noticed_is_a_finding(tmp_path, idle):
    """What was parsed once need not be parsed again, unless the file is another."""
    with pytest.raises(Broken, match="async: a get shows 'bench 0', not a file put in its place: 'other 0'"):
        await Gets(replace(CONFIG, aio=Remembers), tmp_path).measure(1, idle, untold)


def test_documents_have_the_size_asked_for():
    """Each shape within a few per cent of 50 kB, and YAML that reads back as it was."""
    for number in range(bench_documents.SHAPES):
        document = bench_documents.document_of(number, 50_000)
        text = bench_documents.dumped(document)

        assert 48_000 < len(text) < 52_000
        assert yaml.load(text, Loader=bench_documents._LOADER) == document


def test_files_are_laid_anew_each_time(tmp_path):
    """What an earlier round has set or left is gone."""
    files = Files(tmp_path, 3, 500)
    files.lay()
    files.path(1).write_text("changed: true\n")
    (tmp_path / "var/tmp/backups/config").mkdir(parents=True)

    files.lay()

    assert len(files.prove("here", ())) == 3
    assert not (tmp_path / "var/tmp/backups").exists()


def test_the_room_has_its_own_cases(tmp_path, monkeypatch):
    """Sets with either durability, and a get."""
    for name, value in {"SIZE": 50_000, "FILES": 20, "SETS": 100}.items():
        monkeypatch.setattr(bench_config, name, value)

    names = [part.name for part in bench_parts.parts([CONFIG], tmp_path)]

    assert names == [
        "100 sets at once, 20 files of 50 kB",
        "100 sets at once, 20 files of 50 kB, fsync",
        "get from an unchanged file of 50 kB",
    ]
