"""The operator's edits of flags.yaml and of the ceilings: whole, locked, and never more than was asked."""

import fcntl
import getpass
import json
import os
import stat
import threading

import pytest

from ksi_daemon.flags import FlagsInvalid, Stage, set_scalars
from ksi_daemon.stages import Ceiling, Ceilings, InForce, StagesInvalid, State, load_ceilings, save_state
from ksi_migrate import flagfile
from ksi_migrate.flagfile import LockHeld, clear_ceiling, edit, set_ceiling
from tests.flagset import AREAS, VALID


@pytest.fixture
def flags(tmp_path):
    """A valid flags.yaml."""
    path = tmp_path / "flags.yaml"
    path.write_bytes(VALID)
    return path


@pytest.fixture
def migrate(tmp_path):
    """A var/migrate that is not there yet."""
    return tmp_path / "var/migrate"


def hold(path):
    """The lock, taken as by another process with the number 4711, until the file is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    file.write("4711\n")
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def test_edit_changes_only_the_named_words(flags, migrate):
    """Several components change in one write; comments, quotes and layout stay."""
    done = edit(flags, migrate, {"messaging": Stage.SYNC, "completion": Stage.ASYNC}, areas=AREAS)

    expected = VALID.replace(b"messaging: async", b"messaging: sync").replace(b'"sync"', b'"async"')
    assert expected == flags.read_bytes()
    assert done.changed == ("messaging", "completion")
    assert (
        done.before.components["messaging"],
        done.after.components["messaging"],
    ) == (Stage.ASYNC, Stage.SYNC)


def test_edit_keeps_mode_link_and_line_endings(tmp_path, migrate):
    """A link stays a link; its target keeps mode and line endings; nothing else is left in the directory."""
    real = tmp_path / "etc/flags.yaml"
    real.parent.mkdir()
    real.write_bytes(VALID.replace(b"\n", b"\r\n"))
    real.chmod(0o664)
    link = tmp_path / "flags.yaml"
    link.symlink_to("etc/flags.yaml")

    edit(link, migrate, {"completion": Stage.ASYNC}, areas=AREAS)

    assert VALID.replace(b'"sync"', b'"async"').replace(b"\n", b"\r\n") == real.read_bytes()
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o664
    assert os.listdir(real.parent) == ["flags.yaml"]


def test_edit_twice_is_harmless(flags, migrate):
    """Nothing to change writes nothing: the file stays the same file."""
    inode = flags.stat().st_ino

    done = edit(flags, migrate, {"messaging": Stage.ASYNC}, areas=AREAS)

    assert done.changed == ()
    assert inode == flags.stat().st_ino


@pytest.mark.parametrize(
    ("data", "stages", "reason"),
    [
        (VALID, {"agent": Stage.ASYNC}, "agent is not built yet"),
        (VALID, {"messaging": Stage.CANARY}, "reserved but not built yet"),
        (VALID, {"discovery": Stage.SYNC}, "has no line for 'components.discovery'"),
        (VALID[:-20], {"messaging": Stage.SYNC}, "is missing"),
        (b"\xff", {"messaging": Stage.SYNC}, "not UTF-8"),
    ],
    ids=["not built", "reserved", "no line", "cut short", "not UTF-8"],
)
def test_edit_refuses(flags, migrate, data, stages, reason):
    """A file that is invalid before or would be after the edit is left as it is."""
    flags.write_bytes(data)

    with pytest.raises(FlagsInvalid, match=reason):
        edit(flags, migrate, stages, areas=AREAS)

    assert data == flags.read_bytes()


def test_edit_beside_an_editor(flags, migrate, monkeypatch):
    """A file that somebody else saved between reading and writing is not overwritten."""
    theirs = VALID + b"# theirs\n"

    def meanwhile(*args):
        flags.write_bytes(theirs)
        return set_scalars(*args)

    monkeypatch.setattr(flagfile, "set_scalars", meanwhile)
    with pytest.raises(FlagsInvalid, match="was saved by somebody else meanwhile; try again"):
        edit(flags, migrate, {"messaging": Stage.SYNC}, areas=AREAS)

    assert theirs == flags.read_bytes()


def test_edit_while_the_lock_is_held(flags, migrate):
    """A held lock refuses the edit and names its holder; once it is free, the edit goes through."""
    with hold(migrate / "lock"), pytest.raises(LockHeld, match="pid 4711") as caught:
        edit(flags, migrate, {"messaging": Stage.SYNC}, areas=AREAS, patience=0.05)
    assert flags.read_bytes() == VALID
    assert caught.value.code == "lock_held"

    edit(flags, migrate, {"messaging": Stage.SYNC}, areas=AREAS)

    assert b"messaging: sync" in flags.read_bytes()
    assert f"{os.getpid()}\n" == (migrate / "lock").read_text()


def test_lock_without_a_pid(flags, migrate):
    """A holder that left no number is "unknown"; what stands in the lock file is not printed."""
    with hold(migrate / "lock") as file:
        file.truncate(0)
        with pytest.raises(LockHeld, match="pid unknown"):
            edit(flags, migrate, {}, areas=AREAS, patience=0)


def test_edits_at_the_same_time(flags, migrate):
    """Edits of two operators are done one after the other: neither is lost."""
    turns = [{"messaging": Stage.SYNC}, {"completion": Stage.ASYNC}]
    threads = [
        threading.Thread(target=edit, args=(flags, migrate, turn), kwargs={"areas": AREAS}) for turn in turns
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (
        VALID.replace(b"messaging: async", b"messaging: sync").replace(b'"sync"', b'"async"')
        == flags.read_bytes()
    )


def test_lock_is_no_link(flags, migrate, tmp_path):
    """A planted link in the lock's place is not followed."""
    migrate.mkdir(parents=True)
    (tmp_path / "victim").write_text("keep")
    (migrate / "lock").symlink_to(tmp_path / "victim")

    with pytest.raises(OSError, match="symbolic links"):
        edit(flags, migrate, {}, areas=AREAS)

    assert (tmp_path / "victim").read_text() == "keep"


def test_ceilings_are_set_and_cleared(migrate):
    """A ceiling names stage, reason and who; setting adds to the others, clearing leaves them."""
    set_ceiling(migrate, {"messaging": Stage.SYNC}, reason="slow", who="ops")
    set_ceiling(migrate, {"completion": Stage.SYNC}, reason="torn", who="ops")

    document = json.loads((migrate / "ceilings.json").read_bytes())["components"]
    assert {key: value for key, value in document["messaging"].items() if key != "at"} == {
        "stage": "sync",
        "reason": "slow",
        "who": "ops",
    }
    assert document["messaging"]["at"].endswith("+00:00")

    left = clear_ceiling(migrate, ["messaging", "agent"])

    assert list(left.components) == ["completion"]
    assert left == load_ceilings(migrate)


def test_clear_without_ceilings_makes_no_file(migrate):
    """Clearing what is not there writes nothing."""
    assert Ceilings() == clear_ceiling(migrate, ["messaging"])

    assert not (migrate / "ceilings.json").exists()


def test_who_is_the_user(migrate, monkeypatch):
    """Without a name given, the ceiling carries the user's, or the number of one that has none."""
    assert getpass.getuser() == set_ceiling(migrate, {"agent": Stage.SYNC}, reason="").components["agent"].who

    def nobody():
        raise OSError

    monkeypatch.setattr(getpass, "getuser", nobody)
    named = set_ceiling(migrate, {"agent": Stage.SYNC}, reason="").components["agent"].who

    assert f"uid {os.getuid()}" == named


def test_set_ceiling_is_never_refused_for_a_lock(migrate):
    """A rollback goes through although both locks are held for ever; lifting a ceiling does not."""
    with hold(migrate / "lock"), hold(migrate / "ceilings.lock"):
        set_ceiling(migrate, {"messaging": Stage.SYNC}, reason="", who="ops", patience=0.05)
        with pytest.raises(LockHeld):
            clear_ceiling(migrate, ["messaging"], patience=0.05)

    assert list(load_ceilings(migrate).components) == ["messaging"]


def test_lock_that_fails_otherwise(migrate, monkeypatch):
    """An error of the lock itself is not taken for "held"."""

    def fail(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="No locks available"):
        clear_ceiling(migrate, ["messaging"])


@pytest.mark.parametrize("state", ["good", "missing", "damaged"])
def test_rollback_over_damaged_ceilings_lifts_nothing(migrate, state):
    """Damaged ceilings are replaced; other components are capped where the daemon has them, else at sync."""
    migrate.mkdir(parents=True)
    (migrate / "ceilings.json").write_bytes(b"{")
    if state == "good":
        save_state(migrate, State(1, "", 1, "", {"completion": InForce(Stage.ASYNC, "", "")}))
    elif state == "damaged":
        (migrate / "state.json").write_bytes(b"{")
    with pytest.raises(StagesInvalid):
        clear_ceiling(migrate, ["messaging"])

    set_ceiling(migrate, {"messaging": Stage.SYNC}, reason="slow", who="ops", areas=AREAS)

    found = load_ceilings(migrate).components
    other = Stage.ASYNC if state == "good" else Stage.SYNC
    assert {area.name for area in AREAS} == set(found)
    assert (Stage.SYNC, other, Stage.SYNC) == tuple(
        found[n].stage for n in ("messaging", "completion", "agent")
    )
    assert found["messaging"].reason == "slow"
    assert "the ceilings were damaged" in found["completion"].reason
    assert isinstance(found["completion"], Ceiling)


@pytest.mark.parametrize("word", ["async", '"async"', "'async'"])
def test_overwriting_keeps_every_other_byte(tmp_path, word):
    """A shorter stage is padded with blanks where the longer one stood; nothing else moves."""
    path = tmp_path / "flags.yaml"
    before = VALID.replace(b"messaging: async", f"messaging: {word}  # é".encode())
    path.write_bytes(before)
    flagfile.overwrite(path, {"messaging": Stage.SYNC, "completion": Stage.SYNC}, areas=AREAS)

    wanted = word.replace("async", "sync").ljust(len(word)).encode()
    assert path.read_bytes() == before.replace(word.encode(), wanted)


def test_overwriting_with_a_longer_stage_is_refused(tmp_path):
    """What does not fit is not written."""
    path = tmp_path / "flags.yaml"
    path.write_bytes(VALID)
    with pytest.raises(FlagsInvalid, match="has no room for async"):
        flagfile.overwrite(path, {"completion": Stage.ASYNC}, areas=AREAS)

    assert path.read_bytes() == VALID
