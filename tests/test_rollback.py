"""`rollback`: accepted in every state of daemon, flags.yaml and disk, and never asked about."""

import resource
import signal

import pytest

from ksi_daemon import settings
from ksi_daemon.flags import Stage, parse
from ksi_daemon.stages import load_ceilings
from ksi_migrate import flagfile, journal, rollback
from ksi_migrate.exits import Exit
from tests.daemon import running, write_flags
from tests.faults import fill, small_disk
from tests.operate import migrate, migrate_apart


@pytest.fixture
def root(tmp_path):
    """A root whose flags.yaml has week 1 at async."""
    write_flags(tmp_path, messaging="async", completion="async")
    return tmp_path


def ceilings(root):
    """The stages that var/migrate/ceilings.json caps."""
    return {name: cap.stage for name, cap in load_ceilings(root / "var/migrate").components.items()}


def test_rollback_is_in_force_when_it_returns(root):
    """Exit 0 means that the daemon is back at sync, last component first."""
    with running(root) as daemon:
        ended = migrate("rollback", "--all", "--reason", "it hung", "--json", "--root", root)
        told = {row["name"]: row["effective"] for row in daemon.ask("migration:status")["components"]}

    assert (ended.code, ended.document["applied"]) == (0, True)
    assert set(told.values()) == {"sync"}
    assert next(row["name"] for row in ended.document["components"]) == "discovery"
    mine = [entry for entry in journal.read(root / "var/migrate").entries if entry["action"] == "rollback"]
    assert [(entry["component"], entry["why"]) for entry in mine] == [
        ("completion", "it hung"),
        ("messaging", "it hung"),
    ]


def test_rollback_without_a_daemon_is_recorded(root):
    """Exit 0, applied false: the next start takes it up. Twice is harmless and journals once."""
    for _ in range(2):
        ended = migrate("rollback", "messaging", "--json", "--root", root)

        assert (ended.code, ended.document["applied"]) == (0, False)
    assert "  messaging: sync\n" in (root / "flags.yaml").read_text()
    assert len(journal.read(root / "var/migrate").entries) == 1


@pytest.mark.parametrize("broken", ["version: 2\n", "", None, "directory"])
def test_rollback_with_broken_flags_sets_a_ceiling(root, broken):
    """An invalid, empty, missing or unusable flags.yaml does not hold it up; the daemon obeys the ceiling."""
    flags = root / "flags.yaml"
    with running(root) as daemon:
        flags.unlink()
        if broken == "directory":
            flags.mkdir()
        elif broken is not None:
            flags.write_text(broken)
        ended = migrate("rollback", "--phase", 1, "--json", "--root", root)
        told = {row["name"]: row["effective"] for row in daemon.ask("migration:status")["components"]}

    assert (ended.code, ended.document["applied"]) == (0, True)
    assert ceilings(root) == {"messaging": "sync", "completion": "sync"}
    assert (told["messaging"], told["completion"]) == ("sync", "sync")
    assert "a ceiling holds them at sync until ksi-migrate enable lifts it" in ended.document["notes"]


def test_rollback_of_a_wedged_daemon_is_exit_3_and_holds_afterwards(root):
    """SIGSTOP: recorded, not yet in force; when it goes on, it goes down by itself."""
    place = settings.load(root)
    with running(root) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        report = rollback.run(place, ["messaging"], deadline=0.5)
        daemon.process.send_signal(signal.SIGCONT)
        again = rollback.run(place, ["messaging"])

    assert (report.exit_code, report.document()["error"]["code"]) == (Exit.UNREACHABLE, "not_acknowledged")
    assert report.changes[0].reason.startswith("recorded in flags.yaml; the daemon does not answer")
    assert (again.exit_code, again.changes[0].applied) == (Exit.DONE, True)


def test_rollback_does_not_wait_for_a_lock(root):
    """While another ksi-migrate edits, a ceiling is set instead: never exit 6."""
    with flagfile._locked(root / "var/migrate/lock", 1.0):
        ended = migrate("rollback", "messaging", "--json", "--root", root)

    assert ended.code == 0
    assert ceilings(root) == {"messaging": "sync"}


def test_rollback_that_can_be_written_nowhere_is_a_finding(root):
    """With nothing to write to it is exit 1, told in one line, and the reason stands in it."""
    (root / "var").write_text("in the way")
    (root / "flags.yaml").write_text("broken")
    ended = migrate("rollback", "messaging", "--root", root)

    assert ended.code == 1
    assert ended.err.startswith("error: could not be recorded: flags.yaml not edited: ")
    assert "ceiling not set: " in ended.err
    assert "not recorded; the daemon is not running" in ended.out


def full_disk():
    """Every write to a file fails in this process, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_rollback_that_cannot_be_recorded_says_what_to_do(root):
    """With a disk that takes nothing it is exit 1, and nothing is claimed."""
    with running(root):
        ended = migrate_apart("rollback", "messaging", "--json", "--root", root, before=full_disk)

    assert (ended.code, ended.document["error"]["code"]) == (1, "not_recorded")
    assert ended.document["applied"] is False
    assert "free space" in ended.document["error"]["hint"]
    assert "not recorded; messaging is still at async" in ended.document["components"][0]["reason"]
    assert "  messaging: async\n" in (root / "flags.yaml").read_text()


def test_rollback_of_what_is_down_already_is_nothing(tmp_path):
    """A component at sync stays there, also one that is not built."""
    write_flags(tmp_path)
    with running(tmp_path):
        ended = migrate("rollback", "messaging", "agent", "--json", "--root", tmp_path)

    assert ended.code == 0
    assert {row["reason"] for row in ended.document["components"]} == {"nothing to do: at sync"}


def test_rollback_survives_bytes_that_are_no_text(root):
    """A reason that is no UTF-8 is written with replacements, into ceilings and journal."""
    (root / "flags.yaml").write_text("broken")
    report = rollback.run(settings.load(root), ["messaging"], reason="caf\udce9")

    assert report.exit_code == Exit.DONE
    assert load_ceilings(root / "var/migrate").components["messaging"].reason == "caf?"


def test_rollback_goes_on_without_a_journal(root):
    """A journal that cannot be written is a note, no failure."""
    (root / "var/migrate/journal.jsonl").mkdir(parents=True)
    report = rollback.run(settings.load(root), ["messaging"])

    assert report.exit_code == Exit.DONE
    assert report.notes[0].startswith("not in the journal")
    assert report.changes[0].after == Stage.SYNC


def test_rollback_on_a_full_disk_overwrites_in_place(tmp_path):
    """Where no file can be written anew, `sync` goes where `async` stood, and is in force."""
    with small_disk(tmp_path) as disk:
        write_flags(disk, messaging="async", completion="async")
        size = (disk / "flags.yaml").stat().st_size
        with running(disk):
            filler = fill(disk)
            ended = migrate("rollback", "messaging", "--json", "--root", disk)
            filler.unlink()

        after = parse((disk / "flags.yaml").read_bytes())
        assert (ended.code, ended.document["applied"]) == (0, True)
        assert any("overwritten in place" in note for note in ended.document["notes"])
        assert (disk / "flags.yaml").stat().st_size == size
        assert (after.components["messaging"], after.components["completion"]) == ("sync", "async")
