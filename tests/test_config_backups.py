"""Backups and the way back through them: never two of a name, one step at a time, on either side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksi_daemon.config import AREA, backups, core, records
from ksi_daemon.config.backups import Shelf
from ksi_daemon.config.records import record_of
from tests.configs import BACKUPS, FILE, ask, below, get, kept, lay, put, root_of, site_of
from tests.rooms import SIDES, room


@pytest.fixture(params=SIDES)
async def config(request, tmp_path):
    """The room on either side, which keeps ten backups of a file."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KSI_CONFIG_BACKUPS", "10")
        async with room(AREA, request.param, tmp_path) as made:
            yield made


async def back(config, name=None, **more):
    """Roll back; the reply."""
    named = {} if name is None else {"backup_name": name}
    return await ask(config, "rollback", config_type="daemon", **named, **more)


async def value(config):
    """What stands at `n`."""
    return (await get(config, "n"))["value"]


async def test_backups_never_collide(config):
    """The same second, and the same file name elsewhere: a number makes the difference, nothing is lost."""
    lay(root_of(config), {"other/ksi_daemon.yaml": b"other: 1\n"})
    await put(config, "n", 0)
    names = [(await ask(config, "backup", config_type="daemon"))["backup_name"] for _ in range(3)]
    names.append(
        (await ask(config, "backup", config_type="daemon", file_path="other/ksi_daemon.yaml"))["backup_name"]
    )
    mine = [
        (await ask(config, "backup", config_type="daemon", backup_name="mine"))["backup_name"]
        for _ in range(2)
    ]

    first = "ksi_daemon.yaml_20250712_170640"
    assert names == [first, f"{first}-1", f"{first}-2", f"{first}-3"]
    assert mine == ["mine", "mine-1"]
    assert kept(root_of(config))[f"{first}-3"] == b"other: 1\n"


async def test_a_rollback_brings_the_bytes_back(config):
    """Content and time of the backup; what was there is copied first; the mode stays the file's."""
    await put(config, "n", 1)
    config.path.chmod(0o640)
    changed = config.path.stat().st_mtime_ns
    made = (await put(config, "n", 2))["backup"]
    reply = await back(config)

    assert reply == {
        "status": "rolled_back",
        "config_type": "daemon",
        "file_path": str(root_of(config) / FILE),
        "backup_name": made,
        "backup_timestamp": reply["backup_timestamp"],
        "current_backup": f"pre_rollback_{made}",
    }
    assert reply["backup_timestamp"].startswith("2025-07-12T")
    assert (config.path.read_bytes(), config.path.stat().st_mtime_ns) == (b"n: 1\n", changed)
    assert config.path.stat().st_mode & 0o7777 == 0o640
    assert kept(root_of(config))[f"pre_rollback_{made}"] == b"n: 2\n"


async def test_rollbacks_go_back_step_by_step(config):
    """Deviation 13: each goes one further, none undoes the last, and at the end there is none."""
    for number in range(5):
        await put(config, "n", number)
    seen = []
    while (reply := await back(config)).get("status") == "rolled_back":
        seen.append(await value(config))

    assert seen == [3, 2, 1, 0]
    assert reply == {"error": "No backups found for this config file", "code": "not_found"}


async def test_the_way_back_survives_a_restart(config):
    """It is on the disk alone."""
    for number in range(4):
        await put(config, "n", number)
    await back(config)
    await config.restart()
    await back(config)

    assert await value(config) == 1


async def test_a_change_after_a_rollback_is_one_more_step(config):
    """Back to what was before it, then on from where the rollback had led, past what it had left behind."""
    for number in range(4):
        await put(config, "n", number)
    await back(config)
    await back(config)
    await put(config, "n", 9)
    seen = []
    while (await back(config)).get("status") == "rolled_back":
        seen.append(await value(config))

    assert seen == [1, 0]


async def test_a_named_rollback_and_its_undoing(config):
    """A name leads anywhere among the file's backups, also to the copy that undoes the last one."""
    for number in range(4):
        await put(config, "n", number)
    names = sorted(kept(root_of(config)))
    there = await back(config, names[0])
    assert await value(config) == 0
    undone = await back(config, there["current_backup"])
    assert await value(config) == 3
    await back(config)

    assert await value(config) == 2
    assert undone["current_backup"] == f"{there['current_backup']}-1"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("none", "Backup file not found: none"),
        ("lonely", "Backup metadata not found: lonely"),
        ("broken", "Backup metadata not found: broken"),
        ("other", "Backup is of another file: other"),
    ],
)
async def test_a_backup_that_is_not_the_files(config, name, error):
    """Is refused, and nothing is changed or copied."""
    record = {"original_path": "/elsewhere", "timestamp": "2025-07-01T00:00:00"}
    lay(
        root_of(config),
        {
            FILE: b"n: 1\n",
            f"{BACKUPS}/lonely": b"n: 0\n",
            f"{BACKUPS}/broken": b"n: 0\n",
            f"{BACKUPS}/broken.meta": b"{",
            f"{BACKUPS}/other": b"n: 0\n",
            f"{BACKUPS}/other.meta": json.dumps(record).encode(),
        },
    )
    before = below(root_of(config))

    assert await back(config, name) == {"error": error, "code": "not_found"}
    assert below(root_of(config)) == before


async def test_a_file_that_is_gone_comes_back(config):
    """With its directory; there is no copy of what was not there, and the next goes on."""
    for number in range(3):
        await put(config, "n", number, file_path="a/b/x.yaml")
    (root_of(config) / "a/b/x.yaml").unlink()
    (root_of(config) / "a/b").rmdir()
    first = await back(config, file_path="a/b/x.yaml")
    second = await back(config, file_path="a/b/x.yaml")

    assert "current_backup" not in first
    assert "current_backup" in second
    assert (root_of(config) / "a/b/x.yaml").read_bytes() == b"n: 0\n"


async def test_a_rollback_that_cannot_be_leaves_no_directory(config):
    """Nor a copy."""
    reply = await back(config, file_path="a/b/x.yaml")

    assert reply["error"] == "No backups found for this config file"
    assert not (root_of(config) / "a").exists()


async def test_the_originals_backups_are_understood(config):
    """Records without our fields: by their time, the newest first, `pre_rollback_` copies left out."""
    root = root_of(config)
    for name, stamp in (("a", "01"), ("b", "03"), ("c", "02"), ("pre_rollback_b", "04")):
        record = {"original_path": str(root / FILE), "timestamp": f"2025-07-{stamp}T00:00:00"}
        lay(
            root,
            {
                f"{BACKUPS}/{name}": f"n: {name}\n".encode(),
                f"{BACKUPS}/{name}.meta": json.dumps(record).encode(),
            },
        )
    lay(root, {FILE: b"n: now\n"})
    seen = []
    while (await back(config)).get("status") == "rolled_back":
        seen.append(await value(config))

    assert seen == ["b", "c", "a"]


async def test_ours_come_after_the_originals(config):
    """A step from the first of ours leads to the newest of theirs."""
    root = root_of(config)
    record = {"original_path": str(root / FILE), "timestamp": "2099-01-01T00:00:00"}
    lay(root, {FILE: b"n: 1\n", f"{BACKUPS}/a": b"n: a\n", f"{BACKUPS}/a.meta": json.dumps(record).encode()})
    await put(config, "n", 2)
    await back(config)
    await back(config)

    assert await value(config) == "a"


async def test_a_clock_that_goes_back(config):
    """Time does not decide the order of ours."""
    for number in range(4):
        config.now -= 86_400
        await put(config, "n", number)
    await back(config)
    await back(config)

    assert await value(config) == 1


async def test_only_so_many_are_kept(config):
    """KSI_CONFIG_BACKUPS for each file, the oldest go; another file's stay."""
    await put(config, "n", 0, file_path="other.yaml")
    await put(config, "n", 1, file_path="other.yaml")
    for number in range(25):
        await put(config, "n", number)
    found = kept(root_of(config)).values()

    assert sorted(found) == sorted([b"n: 0\n", *(f"n: {n}\n".encode() for n in range(14, 24))])
    for _ in range(30):
        await back(config)
    assert len(kept(root_of(config))) == 11


async def test_rollbacks_do_not_lose_their_way_to_pruning(config):
    """Ten steps back with a limit of ten: what they copy makes old ones go, but no step is repeated."""
    for number in range(11):
        await put(config, "n", number)
    seen = []
    while (await back(config)).get("status") == "rolled_back":
        seen.append(await value(config))

    assert seen == sorted(set(seen), reverse=True)
    assert seen[0] == 9
    assert len(kept(root_of(config))) == 10


async def test_names_too_long_for_their_backups(config):
    """The middle is cut, so that the record's name fits too."""
    name = "é" * 127
    lay(root_of(config), {name: b"n: 1\n"})
    first = await put(config, "n", 2, file_path=name)
    second = await put(config, "n", 3, file_path=name)
    third = await back(config, file_path=name)

    for made in (first["backup"], second["backup"], third["current_backup"]):
        assert len(f"{made}.meta".encode()) <= 255
    assert first["backup"] != second["backup"]


def test_a_record_that_is_none():
    """Whatever stands in a `.meta` file, it is a record or it is none."""
    for data in (
        b"",
        b"{",
        b"[]",
        b"5",
        b'{"original_path": "x"}',
        b"[" * 100_000,
        b'{"serial": "x"}',
        b"\xff",
    ):
        assert record_of("x", data) is None
    odd = record_of(
        "x", b'{"original_path": 1, "timestamp": 2, "serial": 3.5, "previous": [], "rolled_back": true}'
    )
    assert odd is not None
    assert (odd.original, odd.serial, odd.previous, odd.rolled_back) == ("1", 3, None, 1)


def test_the_shelf_reads_a_record_once(tmp_path, monkeypatch):
    """Until its file is another one."""
    place = core.place(site_of(tmp_path))
    (tmp_path / "x").write_bytes(b"n: 1\n")
    shelf, read = Shelf(), list[str]()

    def noting(name, data):
        read.append(name)
        return record_of(name, data)

    monkeypatch.setattr(records, "record_of", noting)
    copy = backups.Copy(str(tmp_path / "x"), b"n: 1\n", (tmp_path / "x").stat(), "one")
    with shelf.keep(place, copy, 0.0, lambda: None):
        pass
    read.clear()
    for _ in range(3):
        assert [record.name for record in shelf.of(place, copy.path)] == ["one"]
    meta = Path(place.backups) / "one.meta"
    meta.write_bytes(meta.read_bytes().replace(b'"one"', b'"two"'))
    shelf.of(place, copy.path)

    assert read == ["one", "one"]
    assert shelf.of(place, "/elsewhere") == []
    assert Shelf().of(core.place(site_of(tmp_path / "none")), "x") == []


ACTIONS = st.lists(st.sampled_from(["set", "back", "undo", "restart"]), max_size=24)


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=12)
@given(actions=ACTIONS)
async def test_any_order_of_sets_and_rollbacks(side, tmp_path_factory, actions):
    """As a model that keeps the way as a list: a set adds a step, a rollback takes the last one."""
    root = tmp_path_factory.mktemp("order")
    async with room(AREA, side, root) as config:
        await put(config, "n", 0)
        now, way, undo, number = 0, [], None, 0
        for action in actions:
            if action == "set":
                number += 1
                way.append(now)
                await put(config, "n", number)
                now = number
            elif action == "back":
                reply = await back(config)
                assert ("error" in reply) == (not way)
                if way:
                    undo = (reply["current_backup"], now, list(way))
                    now = way.pop()
            elif action == "undo" and undo is not None:
                name, now, way = undo
                undo = None
                await back(config, name)
            elif action == "restart":
                await config.restart()
            assert await value(config) == now
