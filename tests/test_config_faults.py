"""Disks that are full or read-only, and kills at any step: the old file or the new, and no leftovers."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest
import yaml

from ksi_daemon import replace
from ksi_daemon.config import AREA, work
from ksi_daemon.config.backups import Shelf
from ksi_daemon.config.core import place
from ksi_daemon.errors import OutcomeUnknown
from tests.configs import BACKED_UP, BACKUPS, FILE, ask, below, get, kept, lay, put, root_of, site_of, target
from tests.faults import fill, python, small_disk
from tests.rooms import SIDES, room


@pytest.fixture(params=SIDES)
async def config(request, tmp_path):
    """The room on either side, on a disk of a megabyte."""
    with small_disk(tmp_path) as disk:
        lay(disk, {FILE: b"n: 1\ntext: " + b"x" * 6_000 + b"\n"})
        async with room(AREA, request.param, disk) as made:
            yield made


async def test_a_full_disk(config):
    """Each write fails with ENOSPC, may be tried again, and leaves file and backups as they were."""
    await put(config, "n", 2)
    root = root_of(config)
    before = below(root)
    filler = fill(root)
    replies = {
        "set": await put(config, "n", 3),
        "backup": await ask(config, "backup", config_type="daemon"),
        "rollback": await ask(config, "rollback", config_type="daemon"),
    }
    found = below(root)
    filler.unlink()

    assert {
        what: (one["code"], one["errno"], one["retryable"]) for what, one in replies.items()
    } == dict.fromkeys(replies, ("io_error", "ENOSPC", True))
    assert replies["set"]["error"].startswith("Failed to save config: config could not write ")
    assert replies["backup"]["error"].startswith("Backup failed: ")
    assert replies["rollback"]["error"].startswith("Rollback failed: ")
    assert {name: data for name, data in found.items() if name != "filler"} == before
    assert (await put(config, "n", 4))["status"] == "set"
    assert (await ask(config, "rollback", config_type="daemon"))["status"] == "rolled_back"


async def test_a_disk_that_became_read_only(config):
    """EROFS for what writes; a get goes on."""
    root = root_of(config)
    await get(config, "n")
    before = below(root)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    try:
        reply = await put(config, "n", 3)
        shown = await get(config, "n")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)

    assert (reply["code"], reply["errno"]) == ("io_error", "EROFS")
    assert shown["value"] == 1
    assert below(root) == before


async def test_a_directory_that_cannot_be_synced(tmp_path, monkeypatch):
    """`outcome_unknown`: the new content stands, and so does the backup of the old."""
    lay(tmp_path, {FILE: b"a: 1\n"})
    site = site_of(tmp_path, "fsync")
    by = work.Worker(place(site), work.Plain(), Shelf())
    work.put(by, target(site), "a", b"2", BACKED_UP, 0.0)
    real, folders = replace.sync_folder, []

    def fail(folder):
        folders.append(folder)
        if len(folders) == 3:  # the copy, its record, the file
            raise replace.NotSynced(5, "Input/output error")
        real(folder)

    monkeypatch.setattr(replace, "sync_folder", fail)
    with pytest.raises(OutcomeUnknown, match="Failed to save config: "):
        work.put(by, target(site), "a", b"3", BACKED_UP, 0.0)

    assert (tmp_path / FILE).read_bytes() == b"a: 3\n"
    assert sorted(kept(tmp_path).values()) == [b"a: 1\n", b"a: 2\n"]


def test_new_directories_are_synced(tmp_path, monkeypatch):
    """With `fsync` each one that was made, since the file would be lost with it; with `os` none."""
    synced: list[str] = []
    monkeypatch.setattr(work, "sync_folder", synced.append)
    for durability in ("os", "fsync"):
        site = site_of(tmp_path, durability)
        by = work.Worker(place(site), work.Plain(), Shelf())
        work.put(by, target(site, f"{durability}/b/x.yaml"), "a", b"1", BACKED_UP, 0.0)

    assert synced == [str(tmp_path), str(tmp_path / "fsync")]


KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from ksi_daemon.config import core, work
from ksi_daemon.config.backups import Shelf
from ksi_daemon.config.cache import Cache, Cached
from tests.configs import FILE, below, kept, lay, site_of, target

SEEN = {"open", "os.rename", "os.mkdir", "os.remove", "os.utime", "os.chmod", "os.scandir", "os.listdir"}

def limited(number):
    left = [number]
    def step(*_):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    real = {name: getattr(os, name) for name in ("write", "fsync", "fchmod", "close")}
    for name in real:
        def call(*args, name=name):
            step()
            return real[name](*args)
        setattr(os, name, call)
    sys.addaudithook(lambda event, _args: step() if event in SEEN else None)

def by(site):
    codec = work.Plain() if sys.argv[2] == "sync" else Cached(Cache(), lambda: None)
    return work.Worker(core.place(site), codec, Shelf())

def change(site, what):
    if what == "put":
        return work.put(by(site), target(site), "a", b"3", True, 5.0)
    return work.rollback(by(site), target(site), "", 5.0)

for what, new in (("put", b"a: 3\\n"), ("rollback", b"a: 1\\n")):
    old, found = b"a: 2\\n", []
    for number in count(1):
        root = Path(sys.argv[1]) / f"{what}{number}"
        lay(root, {FILE: b"a: 1\\n"})
        site = site_of(root, "fsync")
        work.put(by(site), target(site), "a", b"2", True, 0.0)
        pid = os.fork()
        if not pid:
            limited(number)
            change(site, what)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        found.append((root / FILE).read_bytes())
        metas = {name for name in below(root) if name.endswith(".meta")}
        assert all(name.removesuffix(".meta") in below(root) for name in metas), (number, below(root))
        work.put(by(site), target(site), "b", b"4", True, 9.0)
        left = [name for name in below(root) if "/." in "/" + name]
        assert not left, (number, left)
        assert (root / FILE).read_bytes() == found[-1] + b"b: 4\\n"
        work.rollback(by(site), target(site), "", 9.0)
        assert (root / FILE).read_bytes() == found[-1]
        if not status:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(found) > 40, len(found)
    assert found == sorted(found, key=[old, new].index), found
    assert found[-1] == new
    print(what, len(found))
"""


@pytest.mark.parametrize("side", SIDES)
def test_killed_between_any_two_steps(tmp_path, side):
    """SIGKILL before each call of a set and a rollback: old or new, each record with its copy, swept."""
    done = python(KILLED, tmp_path, side)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 2


READY = """
import sys, time
from pathlib import Path
from ksi_daemon.config import core, work
from ksi_daemon.config.backups import Shelf
from ksi_daemon.config.cache import Cache, Cached
from ksi_daemon.config.documents import nothing
from tests.configs import site_of, target
site = site_of(Path(sys.argv[1]))
codec = {"plain": work.Plain(), "cached": Cached(Cache(), nothing)}[sys.argv[3]]
by = work.Worker(core.place(site), codec, Shelf())
Path(sys.argv[1], "ready").touch()
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
for number in range(int(sys.argv[2])):
"""
SETS = """
    work.put(by, target(site), f"theirs.k{number}", b"1", number % 5 == 0, 0.0)
    if number % 7 == 0:
        work.backup(by, target(site), "theirs", 0.0)
"""
ROLLBACKS = """
    work.put(by, target(site), "theirs", b'{"n": %d, "fill": "%s"}' % (number, b"y" * 3_000), True, 0.0)
    work.rollback(by, target(site), "", 0.0)
"""


async def another(root, does, number, codec):
    """Another process that does so `number` times on the same file, from now on; a task with its end."""
    task = asyncio.create_task(asyncio.to_thread(python, READY + does, root, number, codec))
    while not (root / "ready").exists() and not task.done():
        await asyncio.sleep(0.001)
    (root / "go").touch()
    return task


@pytest.mark.parametrize("side", SIDES)
async def test_two_processes_lose_no_key(tmp_path, side, count):
    """One sets its keys, another its own, of one file: all are there, and no reader saw a torn file."""
    number = count(30, 1_000)
    async with room(AREA, side, tmp_path) as config:
        await put(config, "ours.k", 0)
        other = await another(tmp_path, SETS, number, "plain")
        seen = []
        for n in range(number):
            assert (await put(config, f"ours.k{n}", 1, create_backup=n % 5 == 0)).get("status") == "set"
            seen.append(await get(config, "ours.k"))
        ended = await other
        found = (await get(config))["value"]

    assert ended.returncode == 0, ended.stderr
    assert {one.get("value") for one in seen} == {0}
    assert found["ours"] == {"k": 0, **{f"k{n}": 1 for n in range(number)}}
    assert found["theirs"] == {f"k{n}": 1 for n in range(number)}
    assert all(json.dumps(name) for name in kept(tmp_path))


@pytest.mark.parametrize("side", SIDES)
async def test_two_processes_roll_back(tmp_path, side, count):
    """Both set, back up and roll back one file: what is read is always whole, and so is each backup."""
    number = count(15, 300)
    lay(tmp_path, {FILE: b"base: 1\n"})
    async with room(AREA, side, tmp_path) as config:
        other = await another(tmp_path, ROLLBACKS, number, "cached")
        seen = []
        for n in range(number):
            assert (await put(config, "ours", {"n": n, "fill": "x" * 3_000})).get("status") == "set"
            seen.append(await get(config))
            done = await ask(config, "rollback", config_type="daemon")
            assert done.get("status") == "rolled_back" or done["code"] == "not_found", done
        ended = await other

    assert ended.returncode == 0, ended.stderr
    copies = [path for path in (tmp_path / BACKUPS).iterdir() if path.suffix != ".meta"]
    states = [yaml.safe_load(path.read_bytes()) for path in (tmp_path / FILE, *copies)]
    for state in [*states, *(one["value"] for one in seen)]:
        assert state.keys() <= {"base", "ours", "theirs"}
        assert state["base"] == 1
        assert state.get("ours", {"fill": "x" * 3_000})["fill"] == "x" * 3_000
        assert state.get("theirs", {"fill": "y" * 3_000})["fill"] == "y" * 3_000


async def test_a_change_and_a_rollback_at_once(tmp_path):
    """On the async side: one after the other, never a mixture."""
    lay(tmp_path, {FILE: b"a: 1\n"})
    async with room(AREA, "async", tmp_path) as config:
        await put(config, "a", 2)
        for _ in range(5):
            await asyncio.gather(
                put(config, "b", "x" * 5_000),
                ask(config, "rollback", config_type="daemon"),
                put(config, "c", 3),
                get(config),
            )
            assert set((await get(config))["value"]) <= {"a", "b", "c"}
