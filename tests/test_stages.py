"""Ceilings and acknowledged stages: what they hold, what is refused, and that they are replaced whole."""

import hashlib
import json
import os
import stat
import sys
import threading

import pytest

from ksi_daemon.flags import Flags, Stage
from ksi_daemon.replace import replace_file
from ksi_daemon.stages import (
    Ceiling,
    Ceilings,
    InForce,
    StagesInvalid,
    State,
    digest,
    dump_ceilings,
    dump_state,
    effective,
    load_ceilings,
    load_state,
    parse_ceilings,
    parse_state,
    save_ceilings,
    save_state,
)

AT = "2025-07-12T10:00:00.000+00:00"
CEILINGS = Ceilings({"messaging": Ceiling(Stage.SYNC, "disk slow", "ops", AT)})
STATE = State(7, "ab" * 32, 42, AT, {"messaging": InForce(Stage.ASYNC, AT, "flags.yaml")})


def test_effective_is_the_lower_of_the_two():
    """A ceiling lowers a component and never lifts one; a ceiling of an unknown component is no matter."""
    flags = Flags(1, {}, {"messaging": Stage.ASYNC, "completion": Stage.ASYNC, "agent": Stage.SYNC})
    ceilings = Ceilings(
        {
            "messaging": Ceiling(Stage.SYNC, "", "", AT),
            "agent": Ceiling(Stage.ASYNC, "", "", AT),
            "gone": Ceiling(Stage.SYNC, "", "", AT),
        }
    )

    expected = {"messaging": Stage.SYNC, "completion": Stage.ASYNC, "agent": Stage.SYNC}
    assert expected == effective(flags, ceilings)
    assert flags.components == effective(flags, Ceilings())


def test_digest_covers_both_files():
    """The digest is SHA-256 over the flags' bytes and then the ceilings'."""
    assert hashlib.sha256(b"ab").hexdigest() == digest(b"a", b"b")


def test_round_trip(tmp_path):
    """What was saved is loaded, from a file that only the owner may read."""
    save_ceilings(tmp_path, CEILINGS)
    save_state(tmp_path, STATE)

    assert load_ceilings(tmp_path) == CEILINGS
    assert load_state(tmp_path) == STATE
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_files_are_documented_json(tmp_path):
    """The files' shapes: a schema version, and one object per component."""
    ceiling = {"stage": "sync", "reason": "disk slow", "who": "ops", "at": AT}
    in_force = {"stage": "async", "since": AT, "reason": "flags.yaml"}

    assert json.loads(dump_ceilings(CEILINGS)) == {"schema_version": 1, "components": {"messaging": ceiling}}
    assert json.loads(dump_state(STATE)) == {
        "schema_version": 1,
        "generation": 7,
        "digest": "ab" * 32,
        "pid": 42,
        "at": AT,
        "components": {"messaging": in_force},
    }


def test_missing_files(tmp_path):
    """Without files there are no ceilings and no acknowledged state, also without the directory."""
    assert Ceilings() == load_ceilings(tmp_path) == load_ceilings(tmp_path / "none")
    assert load_state(tmp_path) is None


DAMAGED = {
    "empty": b"",
    "torn": dump_ceilings(CEILINGS)[:-4],
    "no UTF-8": b"\xff",
    "list": b"[]",
    "extra key": dump_ceilings(CEILINGS).replace(b'"who"', b'"extra": 1, "who"'),
    "unknown stage": dump_ceilings(CEILINGS).replace(b'"sync"', b'"async2"'),
    "number for text": dump_ceilings(CEILINGS).replace(b'"ops"', b"7"),
    "deep": b"[" * 60_000,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_ceilings_are_refused(tmp_path, data):
    """A damaged file is refused with its path: read as "no ceilings" it would undo a rollback."""
    (tmp_path / "ceilings.json").write_bytes(data)

    with pytest.raises(StagesInvalid, match=r"ceilings\.json: is damaged") as caught:
        load_ceilings(tmp_path)
    assert caught.value.fields() == {"code": "flags_invalid"}


def test_damaged_state_is_refused(tmp_path):
    """A state file with a generation that is no integer is refused, and the place is named."""
    data = dump_state(STATE).replace(b'"generation": 7', b'"generation": "7"')

    with pytest.raises(StagesInvalid, match=r"is damaged \(.* at 'generation'\)"):
        parse_state(data)


def test_newer_files_are_refused():
    """A file of a later release is not guessed at."""
    data = dump_ceilings(CEILINGS).replace(b'"schema_version": 1', b'"schema_version": 2')

    with pytest.raises(StagesInvalid, match="has schema_version 2; this release knows 1"):
        parse_ceilings(data)


def test_unreadable_ceilings_are_refused(tmp_path):
    """A directory in the file's place is trouble, not a missing file."""
    (tmp_path / "ceilings.json").mkdir()

    with pytest.raises(StagesInvalid, match="is a directory"):
        load_ceilings(tmp_path)


def test_replace_takes_over_mode_and_owner(tmp_path):
    """A file that replaces another can take over its mode and owner; alone it is 0600 whatever the umask."""
    path = tmp_path / "file"
    old = os.umask(0o777)
    try:
        replace_file(path, b"one")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    if os.getuid() == 0:
        os.chown(path, 12345, 23456)
    like = path.stat()

    replace_file(path, b"two", like=like)

    now = path.stat()
    assert path.read_bytes() == b"two"
    assert (like.st_mode, like.st_uid, like.st_gid) == (now.st_mode, now.st_uid, now.st_gid)
    assert now.st_ino != like.st_ino


@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename"])
def test_replace_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, call):
    """When any step fails, the old content stands and no temporary file is left."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")

    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"old")]


def test_replace_finishes_short_writes(tmp_path, monkeypatch):
    """A write that took only a part is followed by the rest."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))

    replace_file(tmp_path / "file", b"0123456789")

    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_replace_syncs_file_then_renames_then_syncs_directory(tmp_path, monkeypatch):
    """The content is on the disk before the name points to it, and the name before the call returns."""
    steps = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd):
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        real_fsync(fd)

    def rename(old, new, **places):
        steps.append("rename")
        real_rename(old, new, **places)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(sys, "platform", "linux")
    replace_file(tmp_path / "file", b"x")

    assert steps == ["file", "rename", "directory"]


def test_replace_takes_the_longest_name(tmp_path):
    """A name as long as the file system allows can be replaced."""
    path = tmp_path / ("n" * 255)

    replace_file(path, b"x")

    assert path.read_bytes() == b"x"


def test_readers_never_see_a_part(tmp_path):
    """While two writers replace the file over and over, every read finds one of the two contents whole."""
    path = tmp_path / "file"
    contents = [b"a" * 100_000, b"b" * 50_000]
    replace_file(path, contents[0])

    def write(data):
        for _ in range(20):
            replace_file(path, data)

    writers = [threading.Thread(target=write, args=(data,)) for data in contents]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_bytes())
    for writer in writers:
        writer.join()

    assert seen <= set(contents)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
