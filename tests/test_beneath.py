"""Paths that cannot leave their base, by openat2 and by hand: both give the same answers."""

from __future__ import annotations

import errno
import os
import sys
import threading

import pytest

from ksi_daemon import beneath
from ksi_daemon.beneath import LINKS, Outside, inside, reach

LINUX = sys.platform == "linux"


@pytest.fixture(
    params=[True, False] if LINUX else [False], ids=lambda kernel: "openat2" if kernel else "by hand"
)
def kernel(request):
    """Which of the two ways."""
    return request.param


@pytest.fixture
def base(tmp_path):
    """A base with files, directories and links of every kind, and a secret outside."""
    place = tmp_path / "base"
    for folder in ("a/b", "empty"):
        (place / folder).mkdir(parents=True)
    (tmp_path / "base2").mkdir()
    for name in ("base/x", "base/a/x", "base/a/b/x", "secret", "base2/x"):
        (tmp_path / name).write_text(name)
    for link, to in {
        "file": "a/x",
        "folder": "a/b",
        "up": "a/b/../../x",
        "chain": "file",
        "out": "../secret",
        "out_folder": "..",
        "far": "a/../../base2",
        "absolute": str(place / "x"),
        "etc": "/etc",
        "round": "round",
        "dangling": "nowhere/x",
        "a/back": "../x",
        "a/b/top": "../..",
        "magic": "/proc/self/fd/0",
    }.items():
        (place / link).symlink_to(to)
    return place


def found(base, path, kernel, **more):
    """What is read there, or what came instead."""
    try:
        with reach(str(base), path, kernel=kernel, **more) as spot:
            try:
                with open(spot.open()) as file:
                    return file.read(), spot.path
            except OSError as error:
                return errno.errorcode[error.errno or 0], spot.path
    except Outside:
        return "outside"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x", "x"),
        ("./a//x", "a/x"),
        ("a/b/../x", "a/x"),
        ("file", "a/x"),
        ("folder/x", "a/b/x"),
        ("folder/../x", "a/x"),
        ("up", "x"),
        ("chain", "a/x"),
        ("a/back", "x"),
        ("a/b/top/x", "x"),
        ("a/b/top/a/b/top/x", "x"),
    ],
)
def test_what_lies_beneath_is_found(base, kernel, path, name):
    """Links are followed as long as they stay inside; the path that is told has none."""
    assert found(base, path, kernel) == (f"base/{name}", str(base / name))
    assert found(base, f"{base}/{path}", kernel) == (f"base/{name}", str(base / name))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "..",
        "../secret",
        "../base/x",
        "a/../../secret",
        "a/b/../../../secret",
        "folder/../../../secret",
        "out",
        "out_folder/secret",
        "out_folder/base/x",
        "far/x",
        "absolute",
        "etc/hostname",
        "magic",
        "/etc/hostname",
        "/proc/self/mem",
        "/",
        "nul\0",
        "a/b/top/../secret",
    ],
)
def test_what_leads_outside_is_refused(base, kernel, path):
    """Also where the end would lie inside again, and through a link with an absolute target."""
    assert found(base, path, kernel) == "outside"
    assert found(base, path, kernel, make=True) == "outside"


def test_a_name_that_begins_alike_is_another_one(base, kernel):
    """`/base2` is not below `/base`, though the text begins with it."""
    assert found(base, f"{base}2/x", kernel) == "outside"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("none", ("ENOENT", "none")),
        ("a/b/none", ("ENOENT", "a/b/none")),
        ("none/x", "ENOENT"),
        ("none/../x", "ENOENT"),
        ("dangling", "ENOENT"),
        ("x/x", "ENOTDIR"),
        ("x/../x", "ENOTDIR"),
        ("round", "ELOOP"),
        ("round/x", "ELOOP"),
        ("a", ("EISDIR", "a")),
        ("a/", "EISDIR"),
        (".", "EISDIR"),
        ("a/..", "EISDIR"),
        ("~", ("ENOENT", "~")),
        ("n" * 256, "ENAMETOOLONG"),
        ("n" * 256 + "/x", "ENAMETOOLONG"),
        ("a/" * 2_050 + "x", "ENAMETOOLONG"),
    ],
)
def test_what_is_not_there(base, kernel, path, wanted):
    """The error of the system, the same either way."""
    if isinstance(wanted, tuple):
        wanted = (wanted[0], str(base / wanted[1]))

    assert found(base, path, kernel) == wanted


def test_only_regular_files_are_opened(base, kernel):
    """A FIFO is refused at once, whoever does or does not wait at its other end."""
    os.mkfifo(base / "fifo")

    assert found(base, "fifo", kernel) == ("EINVAL", str(base / "fifo"))


def test_too_many_links(base, kernel):
    """More than forty are a circle, as far as anybody cares."""
    for number in range(LINKS + 2):
        (base / f"l{number}").symlink_to(f"l{number - 1}" if number else "x")

    assert found(base, f"l{LINKS - 2}", kernel)[0] == "base/x"
    assert found(base, f"l{LINKS + 1}", kernel) == "ELOOP"


def test_missing_directories_are_made(base, kernel):
    """Private ones, through links too; what was made for nothing can be unmade, and what others use stays."""
    with reach(str(base), "folder/new/er/file", make=True, kernel=kernel) as spot:
        assert spot.made == [str(base / "a/b/new"), str(base / "a/b/new/er")]
        assert (base / "a/b/new/er").stat().st_mode & 0o7777 == 0o700
        (base / "a/b/new/used").touch()
        spot.unmake()
    assert sorted(one.name for one in (base / "a/b/new").iterdir()) == ["used"]

    assert found(base, "dangling", kernel, make=True) == ("ENOENT", str(base / "nowhere/x"))
    assert found(base, "x/y", kernel, make=True) == "ENOTDIR"


def test_a_base_that_is_missing(tmp_path, kernel):
    """It is made too, and unmade when the path is refused."""
    base = tmp_path / "none/base"

    assert found(base, "x", kernel) == "ENOENT"
    assert found(base, "../x", kernel, make=True) == "outside"
    assert list(tmp_path.iterdir()) == []
    assert found(base, "x", kernel, make=True) == ("ENOENT", str(base / "x"))


def test_a_base_behind_a_link(base, kernel, tmp_path):
    """The base is the operator's: its own links are followed, and both of its names are its own."""
    (tmp_path / "link").symlink_to("base")

    assert found(tmp_path / "link", "a/x", kernel) == ("base/a/x", str(base / "a/x"))
    assert found(tmp_path / "link", str(base / "a/x"), kernel) == ("base/a/x", str(base / "a/x"))
    assert inside(str(tmp_path / "link"), str(tmp_path / "link/x")) == "x"


def test_the_spot_stays_where_it_was(base, kernel, tmp_path):
    """A directory that is exchanged for a link afterwards changes nothing: its descriptor is held."""
    with reach(str(base), "a/x", kernel=kernel) as spot:
        (base / "a").rename(base / "moved")
        (base / "a").symlink_to(tmp_path)
        (tmp_path / "x").write_text("outside")
        with open(spot.open()) as file:
            assert file.read() == "base/a/x"
        os.unlink(base / "moved/x")
        (base / "moved/x").symlink_to(tmp_path / "secret")
        with pytest.raises(OSError, match="symbolic links") as caught:
            spot.open()
    assert caught.value.errno == errno.ELOOP


def test_links_that_are_exchanged_meanwhile(base, kernel, count, tmp_path):
    """Whatever is put in the place of a directory at any moment, nothing outside is read."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_text("outside")
    (base / "evil").symlink_to(tmp_path / "out")
    (base / "good").mkdir()
    (base / "good/x").write_text("inside")
    (base / "d").symlink_to("good")
    seen = [found(base, "d/x", kernel)]
    done = threading.Event()

    def exchange():
        while not done.is_set():
            os.symlink("good", base / "t")
            os.rename(base / "t", base / "d")
            os.symlink("evil", base / "t")
            os.rename(base / "t", base / "d")

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        seen += [found(base, "d/x", kernel) for _ in range(count(400, 20_000))]
    finally:
        done.set()
        thread.join()

    assert {one if isinstance(one, str) else one[0] for one in seen} <= {"inside", "outside", "ENOENT"}
    assert any(isinstance(one, tuple) for one in seen)


def test_a_kernel_without_openat2(base, monkeypatch):
    """ENOSYS, or EPERM in a sandbox: the path is walked by hand."""

    def missing(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(beneath, "_openat2", missing)
    beneath._has_openat2.cache_clear()
    try:
        assert found(base, "folder/x", kernel=True)[0] == "base/a/b/x"
        assert found(base, "out_folder/secret", kernel=True) == "outside"
    finally:
        beneath._has_openat2.cache_clear()


def test_a_kernel_that_says_again(base, monkeypatch):
    """EAGAIN, when something was renamed meanwhile: it is asked again, then walked by hand."""
    asked = []

    def again(*_):
        asked.append(1)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(beneath, "_has_openat2", lambda: True)
    monkeypatch.setattr(beneath, "_openat2", again)

    assert found(base, "a/../x", kernel=True)[0] == "base/x"
    assert len(asked) == beneath._AGAIN


def test_no_descriptor_is_left(base, kernel):
    """Whatever the end."""
    before = len(os.listdir("/dev/fd"))
    for path in ("a/b/x", "folder/none", "out", "round/x", "n" * 256, "a/", "x/y", "none/x"):
        for make in (False, True):
            found(base, path, kernel, make=make)

    assert len(os.listdir("/dev/fd")) == before
