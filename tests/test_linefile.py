"""The log file: whole lines whatever fails, whoever else touches it, and wherever a writer died."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from ksi_daemon import linefile
from ksi_daemon.errors import IoFailed, OutcomeUnknown
from ksi_daemon.linefile import LineFile
from tests.faults import ROOT, file_size_limit, fill, python, small_disk

A, B, C = b'{"n":1}\n', b'{"n":2}\n', b'{"n":3}\n'


@pytest.fixture
def path(tmp_path):
    """Where the log will be: two directories deep, neither of them there."""
    return tmp_path / "logs" / "responses" / "bus.jsonl"


@pytest.fixture
def log(path):
    """The log, opened and closed at the end."""
    file = LineFile(path, "messaging")
    file.open()
    yield file
    file.close()


def torn_parts(path):
    """What was cut off and kept beside the log, by name."""
    return {part.name: part.read_bytes() for part in path.parent.glob("*.torn-*")}


def reopened(path):
    """The log's bytes after a start on it."""
    file = LineFile(path, "messaging")
    file.open()
    file.close()
    return path.read_bytes()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_private(path, umask):
    """Directories are 0700 and the file 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        file = LineFile(path, "messaging")
        file.append(A)
    finally:
        os.umask(before)
    file.close()

    modes = [stat.S_IMODE(found.stat().st_mode) for found in (path.parent.parent, path.parent, path)]
    assert modes == [0o700, 0o700, 0o600]


def test_lines_stand_in_order_and_opening_twice_is_harmless(log, path):
    """What is appended stands in the file when `append` returns."""
    log.append(A)
    log.open()
    log.append(B + C)

    assert path.read_bytes() == A + B + C
    assert log.end == len(A + B + C)


def test_closing_lets_go_and_the_next_append_opens(log, path):
    """`close` twice is harmless; a closed log opens itself."""
    log.append(A)
    log.close()
    log.close()
    log.append(B)

    assert path.read_bytes() == A + B


def test_short_writes_are_finished(log, path, monkeypatch):
    """A kernel that takes three bytes at a time gets all of them."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    log.append(A + B)
    monkeypatch.undo()

    assert path.read_bytes() == A + B


def test_a_write_of_nothing_is_a_full_disk(log, path, monkeypatch):
    """A write that returns 0 ends in ENOSPC instead of being tried for ever."""
    monkeypatch.setattr(os, "write", lambda _fd, _data: 0)
    with pytest.raises(IoFailed) as caught:
        log.append(A)
    monkeypatch.undo()

    assert caught.value.fields()["errno"] == "ENOSPC"
    assert path.read_bytes() == b""


def test_a_size_limit_in_mid_line_is_cut_back(log, path):
    """EFBIG in mid-line: io_error, nothing of the line stays, and later writes are fine."""
    log.append(A)
    with file_size_limit(64 * 1024), pytest.raises(IoFailed) as caught:
        log.append(b"x" * 100_000 + b"\n")

    log.append(B)

    expected = {"code": "io_error", "component": "messaging", "errno": "EFBIG", "retryable": False}
    assert expected == caught.value.fields()
    assert path.read_bytes() == A + B


def test_a_full_disk_in_mid_line_is_cut_back(tmp_path):
    """ENOSPC in mid-line: nothing of the line stays; when there is room again, writes are fine."""
    with small_disk(tmp_path) as disk:
        log = LineFile(disk / "bus.jsonl", "messaging")
        log.append(A)
        filler = fill(disk)
        with pytest.raises(IoFailed) as caught:
            log.append(b"x" * 50_000 + b"\n")
        kept = log.path.read_bytes()
        filler.unlink()
        log.append(B)
        log.close()
        found = log.path.read_bytes()

    assert caught.value.fields() == {
        "code": "io_error",
        "component": "messaging",
        "errno": "ENOSPC",
        "retryable": True,
    }
    assert (kept, found) == (A, A + B)


FSYNC_FAILS = """
import sys
from pathlib import Path
from ksi_daemon.errors import IoFailed
from ksi_daemon.linefile import LineFile
log = LineFile(Path(sys.argv[1]), "messaging")
log.open()
log.append(b"1\\n")
try:
    log.append(b"2\\n", "fsync")
except IoFailed as error:
    print(error.fields())
log.append(b"3\\n", "fsync")
"""


def test_a_failed_fsync_takes_the_line_back(tmp_path):
    """EIO from fsync itself: the line is no longer in the file, and a new handle goes on."""
    path = tmp_path / "bus.jsonl"
    path.touch()  # no fsync of the directory before
    done = python(FSYNC_FAILS, path, strace=("-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1"))

    assert "'code': 'io_error'" in done.stdout, done.stderr
    assert "'errno': 'EIO'" in done.stdout
    assert path.read_bytes() == b"1\n3\n"


SYNCS = """
import sys
from pathlib import Path
from ksi_daemon.linefile import LineFile
log = LineFile(Path(sys.argv[1]), "messaging")
log.open()
for number in range(5):
    log.append(b"%d\\n" % number, sys.argv[2])
"""


@pytest.mark.parametrize(("durability", "syncs"), [("os", 0), ("fsync", 5)])
def test_the_kernel_is_really_asked(tmp_path, durability, syncs):
    """Seen from outside, by strace: one fsync of the log for each append with `fsync`, none with `os`."""
    path, trace = tmp_path / "bus.jsonl", tmp_path / "trace"
    path.touch()
    done = python(SYNCS, path, durability, strace=("-y", "-e", "trace=fsync", "-o", str(trace)))

    assert (done.returncode, done.stderr) == (0, "")
    assert trace.read_text().count(f"<{path}>) ") == syncs


def test_fsync_is_called_once_a_batch_and_only_when_asked(log, monkeypatch):
    """`durability: os` hands to the kernel; `fsync` reaches the disk once for all lines given together."""
    calls: list[int] = []
    monkeypatch.setattr(linefile, "sync_to_disk", calls.append)

    log.append(A + B)
    assert calls == []

    log.append(A + B + C, "fsync")
    assert len(calls) == 1


def test_a_mac_is_told_to_reach_the_drive(log, monkeypatch):
    """Where fsync stops at the drive's cache, F_FULLFSYNC is used (Apple, fsync(2))."""
    calls = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _fd, command: calls.append(command))
    log.append(A, "fsync")

    assert calls == [51]


# what somebody else does to the log


def test_a_rotated_log_is_left_and_a_new_one_begun(log, path):
    """After a rename the next line begins a new file; the old one keeps its lines."""
    log.append(A)
    path.rename(path.with_suffix(".1"))
    log.append(B)

    assert (path.with_suffix(".1").read_bytes(), path.read_bytes()) == (A, B)


def test_a_removed_log_is_begun_anew(log, path):
    """After an unlink the next line is in a file that has a name."""
    log.append(A)
    path.unlink()
    log.append(B)

    assert path.read_bytes() == B


def test_a_log_removed_during_the_write_is_written_again(log, path, monkeypatch):
    """A line that went into a file without a name is written to the log again before it counts."""
    real = linefile.write_all

    def write_all(fd, data):
        real(fd, data)
        if path.exists() and data == B:
            path.unlink()
            monkeypatch.setattr(linefile, "write_all", real)

    log.append(A)
    monkeypatch.setattr(linefile, "write_all", write_all)
    log.append(B)

    assert path.read_bytes() == B


def test_a_truncated_log_goes_on_from_where_it_ends(log, path):
    """Truncated to nothing, or in mid-line: the next record begins a line of its own."""
    log.append(A + B)
    os.truncate(path, 0)
    log.append(C)
    assert path.read_bytes() == C

    log.append(A)
    os.truncate(path, len(C) + 3)
    log.append(B)
    assert C + A[:3] + b"\n" + B == path.read_bytes()


def test_lines_of_another_writer_are_kept(log, path):
    """A second writer's whole lines stay; one that it left open is ended and costs only itself."""
    log.append(A)
    with path.open("ab") as other:
        other.write(b"other\n")
    log.append(B)
    with path.open("ab") as other:
        other.write(b"open")
    log.append(C)

    assert path.read_bytes() == A + b"other\n" + B + b"open\n" + C


def replace_by_directory(path):
    """A directory in its place."""
    path.mkdir()


def replace_by_link(path):
    """A link in its place."""
    path.symlink_to(path.with_suffix(".elsewhere"))
    path.with_suffix(".elsewhere").write_bytes(b"keep\n")


def replace_by_fifo(path):
    """A FIFO in its place."""
    os.mkfifo(path)


def replace_by_socket(path):
    """A socket in its place."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    ("replace", "name"),
    [
        (replace_by_directory, "EISDIR"),
        (replace_by_link, "ELOOP"),
        (replace_by_fifo, "EINVAL"),
        (replace_by_socket, "ENXIO"),
    ],
)
def test_what_is_no_file_is_refused(log, path, replace, name, monkeypatch):
    """A directory, link, FIFO or socket in the log's place: io_error, never written to, and no wait."""
    monkeypatch.chdir(path.parent)  # a socket's name must be short
    log.append(A)
    path.unlink()
    replace(path)

    with pytest.raises(IoFailed) as appending:
        log.append(B)
    with pytest.raises(IoFailed) as opening:
        LineFile(path, "messaging").open()
    path.rmdir() if path.is_dir() else path.unlink()
    log.append(C)

    assert ("io_error", name) == (appending.value.code, appending.value.errno)
    assert name == opening.value.errno
    assert path.read_bytes() == C
    assert not path.with_suffix(".elsewhere").exists() or (
        path.with_suffix(".elsewhere").read_bytes() == b"keep\n"
    )


def test_a_deleted_directory_is_made_again(log, path):
    """Deleted under us, directory and all: the next line is there."""
    log.append(A)
    path.unlink()
    path.parent.rmdir()
    log.append(B)

    assert path.read_bytes() == B


def test_a_file_in_the_directorys_place_is_an_error(log, path):
    """ENOTDIR before anything was written is io_error, not an unknown outcome."""
    log.append(A)
    path.rename(path.parent.parent / "moved")
    path.parent.rmdir()
    path.parent.touch()

    with pytest.raises(IoFailed) as caught:
        log.append(B)

    assert (caught.value.code, caught.value.errno) == ("io_error", "ENOTDIR")


def test_a_file_made_at_the_same_moment_is_used(path, monkeypatch):
    """When another process makes the file first, it is opened like any other."""
    made = linefile.private_directory

    def raced(folder):
        made(folder)
        if folder == path.parent:
            path.write_bytes(A)

    monkeypatch.setattr(linefile, "private_directory", raced)
    log = LineFile(path, "messaging")
    log.append(B)
    log.close()

    assert path.read_bytes() == A + B


def test_a_directory_made_at_the_same_moment_is_used(tmp_path, monkeypatch):
    """Losing the race for mkdir is no error."""
    folder = tmp_path / "new"
    monkeypatch.setattr(type(folder), "is_dir", lambda self: self != folder)
    folder.mkdir()
    linefile.private_directory(folder)

    assert os.path.isdir(folder)


# cutting back, where it cannot be done


def failing_write(path, after):
    """A write that puts half of the data down, does `after`, and fails."""
    real = os.write

    def write(fd, data):
        if data == b"\n":
            return real(fd, data)
        real(fd, data[: len(data) // 2])
        after(path)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    return write


def other_line(path):
    """Somebody else begins a line."""
    with path.open("ab") as other:
        other.write(b"other")


@pytest.mark.parametrize("after", [other_line, lambda path: path.unlink(), lambda path: os.truncate(path, 0)])
def test_what_cannot_be_cut_back_is_unknown(log, path, after, monkeypatch):
    """When somebody wrote behind the failed line, removed or emptied the log: outcome_unknown."""
    log.append(A)
    monkeypatch.setattr(os, "write", failing_write(path, after))
    with pytest.raises(OutcomeUnknown) as caught:
        log.append(B)
    monkeypatch.undo()
    log.append(C)

    assert caught.value.fields() == {
        "code": "outcome_unknown",
        "component": "messaging",
        "errno": "EIO",
        "retryable": False,
    }
    assert path.read_bytes().endswith(b"\n" + C) or path.read_bytes() == C


# torn tails


def test_every_prefix_is_mended(tmp_path):
    """Cut anywhere, a log opens with whole lines only; a whole object gets its newline, the rest is kept."""
    whole = A + b'{"text":"\xc3\xa9"}\n' + b'{"n":{"m":[1,2]}}\n'
    for cut in range(len(whole) + 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(whole[:cut])
        lines, _, tail = whole[:cut].rpartition(b"\n")
        before = lines + b"\n" if lines else b""

        found, kept = reopened(path), list(tmp_path.glob(f"{cut}.jsonl.torn-*"))

        if tail.endswith(b"}") and whole[cut : cut + 1] == b"\n":
            assert (whole[: cut + 1], []) == (found, kept)
        else:
            assert (before, [tail] if tail else []) == (found, [part.read_bytes() for part in kept])


@pytest.mark.parametrize(
    "tail", [b'{"n":2,"te', b"\0" * 5_000, b"[1,2]", b"17", b'"text"', b"\xff\xfe{}", b"x" * 200_000]
)
def test_a_torn_tail_is_kept_beside_the_log(path, tail):
    """Half an object, a NUL block, JSON that is no object, junk: cut, and kept byte for byte, 0600."""
    path.parent.mkdir(parents=True)
    path.write_bytes(A + tail)

    assert reopened(path) == A
    assert [tail] == list(torn_parts(path).values())
    (part,) = path.parent.glob("*.torn-*")
    assert part.name.startswith(f"bus.jsonl.torn-{len(A)}-")
    assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_a_log_without_any_newline_is_mended(path):
    """The tail may be the whole file."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"n":1')
    assert reopened(path) == b""

    path.write_bytes(A.rstrip())
    assert reopened(path) == A


def test_an_endless_tail_is_not_loaded(path, monkeypatch):
    """A tail over the largest line is cut without being parsed."""
    monkeypatch.setattr(linefile, "LARGEST_LINE", 10)
    path.parent.mkdir(parents=True)
    path.write_bytes(A + b'{"text":"long"}')

    assert reopened(path) == A


def test_the_same_tail_twice_is_one_file(path):
    """A tail torn again at the same place takes the same name: a repair that ran twice leaves no heap."""
    path.parent.mkdir(parents=True)
    for _ in range(2):
        path.write_bytes(A + b"torn")
        assert reopened(path) == A

    assert len(torn_parts(path)) == 1


def test_damage_in_the_middle_is_left_alone(path):
    """Only the tail is mended: a bad line with good ones after it stays, and costs only itself."""
    path.parent.mkdir(parents=True)
    path.write_bytes(A + b"\0\0\0\n" + B)

    assert reopened(path) == A + b"\0\0\0\n" + B


def test_a_second_writer_does_not_mend(log, path):
    """While one writer has the log, the next ends an open line and cuts nothing: it may be being written."""
    log.append(A)
    with path.open("ab") as other:
        other.write(b'{"half')
    second = LineFile(path, "messaging")
    second.open()
    second.append(B)
    second.close()

    assert path.read_bytes() == A + b'{"half\n' + B
    assert torn_parts(path) == {}


def test_a_mending_that_fails_is_an_error(path):
    """When the cut bytes cannot be kept, nothing is cut and `open` says so."""
    path.parent.mkdir(parents=True)
    path.write_bytes(A + b"torn")
    (path.parent / "bus.jsonl.torn-partial").mkdir()
    file = LineFile(path, "messaging")

    with pytest.raises(IoFailed) as caught:
        file.open()

    assert caught.value.errno == "EISDIR"
    assert path.read_bytes() == A + b"torn"


DIES = """
import os, sys
from pathlib import Path
from ksi_daemon.linefile import LineFile
left = 0
def dying(call):
    def step(*args):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*args)
    return step
for left, path in enumerate(sys.argv[1:]):
    pid = os.fork()
    if not pid:
        log = LineFile(Path(path), "messaging")
        for name in ("open", "write", "pread", "fsync", "replace", "ftruncate", "close"):
            setattr(os, name, dying(getattr(os, name)))
        log.open()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize(("tail", "calls"), [(b'{"torn', 15), (b'{"whole":1}', 6)], ids=["torn", "whole"])
def test_a_death_during_the_repair_is_harmless(tmp_path, tail, calls):
    """Killed before any system call of the repair, the next start finds the same lines and the same tail."""
    paths = [tmp_path / str(step) / "bus.jsonl" for step in range(20)]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(A + tail)
    done = python(DIES, *paths)
    codes = done.stdout.split()
    assert (20, ["9"] * calls) == (len(codes), codes[:calls]), done.stderr
    assert {"0"} == set(codes[calls + 2 :])

    for path in paths:
        found, kept = reopened(path), torn_parts(path)

        kept.pop("bus.jsonl.torn-partial", None)
        expected = (A + tail + b"\n", []) if tail.endswith(b"}") else (A, [tail])
        assert expected == (found, list(kept.values()))


DIES_WRITING = """
import os, sys
from pathlib import Path
from ksi_daemon.linefile import LineFile
log = LineFile(Path(sys.argv[1]), "messaging")
log.append(b'{"n":1}\\n')
real = os.write
def write(fd, data):
    real(fd, data[:int(sys.argv[2])])
    os._exit(9)
os.write = write
log.append(b'{"n":2}\\n{"n":3}\\n')
"""


@pytest.mark.parametrize("taken", [0, 1, 7, 8, 9, 15, 16])
def test_a_death_in_mid_write_costs_nothing_acknowledged(path, taken):
    """Killed with `taken` bytes of a batch written, the log opens with whole lines, the first one there."""
    assert python(DIES_WRITING, path, taken).returncode == 9

    lines = [json.loads(line)["n"] for line in reopened(path).splitlines()]

    assert lines == [1, 2, 3][: len(lines)]
    assert len(lines) >= 1


WRITES_MANY = """
import sys
from pathlib import Path
from ksi_daemon.linefile import LineFile
path, name, count, size = sys.argv[1:]
log = LineFile(Path(path), "messaging")
log.open()
for number in range(int(count)):
    line = b'{"w":%s,"n":%d,"x":"' % (name.encode(), number)
    log.append(line + b"x" * (int(size) - len(line) - 3) + b'"}\\n')
"""


@pytest.mark.soak
@pytest.mark.parametrize("size", [50, 9_000, 300_000])
def test_four_processes_share_a_log(path, size, count):
    """Four writers, each with its own handle: whole lines, none lost, each writer's in its order."""
    number = count(300, 2_000) if size < 100_000 else count(20, 200)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITES_MANY, str(path)]
    writers = [
        subprocess.Popen([*command, str(name), str(number), str(size)], env=env, cwd=ROOT)
        for name in range(4)
    ]
    assert [writer.wait(50) for writer in writers] == [0] * 4

    lines = [line for line in path.read_bytes().splitlines() if line]  # see LineFile._close_gap

    assert {size - 1} == {len(line) for line in lines}
    found = [json.loads(line) for line in lines]
    for name in range(4):
        assert list(range(number)) == [line["n"] for line in found if line["w"] == name]
    assert torn_parts(path) == {}
