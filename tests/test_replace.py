"""Replacing a file by pieces: short writes, what a crash left, what is no file, what nobody wants."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon import replace
from ksi_daemon.replace import (
    Abandoned,
    NotSynced,
    only_regular,
    prepared,
    replace_by,
    replace_file,
    sweep,
    sync_folder,
    write_pieces,
)


def pieces_of(*sizes):
    """Pieces of these sizes, all bytes different from their neighbours."""
    return [bytes((at * 7 + number) % 251 for at in range(size)) for number, size in enumerate(sizes)]


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1025, 3000])
def test_any_number_of_pieces(tmp_path, count):
    """More than one writev(2) takes, and none at all."""
    pieces = pieces_of(*[3] * count)
    replace_by(tmp_path / "file", lambda fd: write_pieces(fd, pieces))

    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(0, 30), st.integers(1, 4))
def test_short_writes_are_finished(sizes, first, each):
    """Wherever the kernel stops, in a piece or between two, the rest follows and nothing is written twice."""
    pieces = pieces_of(*sizes)
    written: list[bytes] = []

    def writev(_fd, group):
        written.append(b"".join(group)[:first])
        return len(written[-1])

    def write(_fd, data):
        written.append(bytes(data[:each]))
        return len(written[-1])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "writev", writev)
        patched.setattr(os, "write", write)
        patched.setattr(replace, "_AT_ONCE", 5)
        write_pieces(-1, pieces)

    assert b"".join(written) == b"".join(pieces)


def test_what_nobody_wants_takes_no_effect(tmp_path):
    """Asked when all is written, just before the rename: the old file stands, nothing is beside it."""
    path, asked = tmp_path / "file", []
    path.write_bytes(b"old")

    def wanted():
        asked.append(sorted(one.read_bytes() for one in tmp_path.iterdir()))
        return False

    with pytest.raises(Abandoned):
        replace_by(path, lambda fd: write_pieces(fd, [b"new"]), wanted=wanted)

    assert asked == [[b"new", b"old"]]
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"old")]


def test_a_directory_that_cannot_be_synced(tmp_path, monkeypatch):
    """`NotSynced`, with the system's own words: the new content stands."""
    real = os.open

    def refuse(path, flags, *mode, **more):
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotSynced, match="Too many open files") as caught:
        replace_file(tmp_path / "file", b"new")

    assert caught.value.errno == errno.EMFILE
    assert (tmp_path / "file").read_bytes() == b"new"


def test_the_kernel_is_left_to_it(tmp_path, monkeypatch):
    """`durability: os` asks for no fsync, of the file or of its directory."""

    def refuse(_fd):
        raise AssertionError

    monkeypatch.setattr(os, "fsync", refuse)
    replace_by(tmp_path / "file", lambda fd: write_pieces(fd, [b"new"]), durability="os")

    assert (tmp_path / "file").read_bytes() == b"new"


def test_an_owner_that_is_ours_already(tmp_path, monkeypatch):
    """Is not set again, which only root may; the mode is taken over."""
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o640)

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(os, "fchown", refuse)
    replace_file(path, b"new", like=path.stat())

    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", 0o640)


def test_an_interrupt_leaves_nothing(tmp_path):
    """Also what is no `Exception` ends with the old file and nothing beside it."""

    def write(fd):
        os.write(fd, b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_by(tmp_path / "file", write)

    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_what_a_crash_left(tmp_path):
    """Files of that prefix and of our form; not one that looks like it, nor one of another prefix."""
    ours = [".x.0123456789abcdef.tmp", ".x.fedcba9876543210.tmp"]
    strange = [
        ".x.0123456789abcde.tmp",
        ".x.0123456789abcdef.tmp~",
        ".y.0123456789abcdef.tmp",
        "x.0.tmp",
        ".x.tmp",
    ]
    for name in (*ours, *strange):
        (tmp_path / name).touch()
    (tmp_path / ".x.0000000000000000.tmp").mkdir()
    sweep(tmp_path, "x.")

    assert {one.name for one in tmp_path.iterdir()} == {*strange, ".x.0000000000000000.tmp"}


def test_a_sweep_of_nothing(tmp_path):
    """A directory that is not there, and a file in its place, are no trouble."""
    (tmp_path / "file").touch()
    sweep(tmp_path / "missing", "x.")
    sweep(tmp_path / "file", "x.")

    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_is_no_file(tmp_path):
    """ELOOP for a link, also one that leads nowhere, EISDIR, EINVAL for the rest; a missing file is fine."""
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    found = {}
    for name in (".", "link", "fifo", "file", "missing"):
        try:
            only_regular(tmp_path / name)
        except OSError as error:
            found[name] = errno.errorcode[error.errno or 0]

    assert found == {".": "EISDIR", "link": "ELOOP", "fifo": "EINVAL"}


def test_under_a_directory_that_is_open(tmp_path):
    """By its descriptor, wherever it was moved; under another name, when that is known only then."""
    (tmp_path / "folder").mkdir()
    fd = os.open(tmp_path / "folder", os.O_RDONLY)
    (tmp_path / "folder").rename(tmp_path / "moved")
    try:
        with prepared("x", lambda to: write_pieces(to, [b"new"]), dir_fd=fd, prefix="p.") as put:
            assert [name[:3] for name in os.listdir(fd)] == [".p."]
            put("y")
        with prepared("x", lambda to: write_pieces(to, [b"unwanted"]), dir_fd=fd):
            pass
        (tmp_path / "moved/.p.0123456789abcdef.tmp").touch()
        sweep(fd, "p.")
        sync_folder(fd)
        assert os.listdir(fd) == ["y"]
    finally:
        os.close(fd)
    with pytest.raises(NotSynced):
        sync_folder(fd)

    assert (tmp_path / "moved/y").read_bytes() == b"new"
