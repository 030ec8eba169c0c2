"""Real faults of saves and loads: the old file or the new, an error that says which, and then it goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from ksi_daemon.errors import IoFailed, OutcomeUnknown
from ksi_daemon.lane import Lane
from tests.faults import ROOT, file_size_limit, fill, small_disk
from tests.identity_sides import beside, identity, made, many, opened, outcome, planted, site_of, stored
from tests.rooms import SIDES

OLD = many(3)
LARGE = many(400, 500)


@contextmanager
def full_disk(place):
    """No room on the disk."""
    filler = fill(place)
    yield
    filler.unlink()


@contextmanager
def size_limit(_place):
    """Files of 64 kB at most."""
    with file_size_limit(64 * 1024):
        yield


FAULTS = {"ENOSPC": full_disk, "EFBIG": size_limit}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("errno", FAULTS)
async def test_a_write_that_does_not_fit(tmp_path, side, errno, begun):
    """io_error with its errno; the old file stands, nothing is beside it; when it is over all is saved."""
    with small_disk(tmp_path) as disk:
        site, last = site_of(disk), {**OLD, "last": identity(9)}
        path = planted(site, stored(OLD))
        async with opened(side, site) as store:
            if begun:
                await store.save(OLD, [])
            with FAULTS[errno](disk), pytest.raises(IoFailed) as caught:
                await store.save({**OLD, **LARGE}, list(LARGE))
            kept, names = path.read_bytes(), beside(site)
            await store.save(last, ["last"])
        found = path.read_bytes()

    assert (caught.value.component, caught.value.errno) == ("agent", errno)
    assert (kept, names) == (stored(OLD), ["identities.json"])
    assert found == stored(last)


def failing(call, number, wanted=lambda _fd: True):
    """`os.<call>` that fails with this error where `wanted` says so."""
    real = getattr(os, call)

    def fail(*args, **options):
        if wanted(args[0]):
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    return fail


def is_folder(fd):
    """Whether a directory is open there."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def is_temp(path):
    """Whether it is one of our temporary files."""
    return isinstance(path, str) and path.endswith(".tmp")


STEPS = {
    "open": ("open", 24, is_temp),
    "fchmod": ("fchmod", 1, lambda _fd: True),
    "fsync": ("fsync", 5, lambda fd: not is_folder(fd)),
    "rename": ("rename", 122, lambda _path: True),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("step", STEPS)
async def test_a_step_that_fails(tmp_path, side, step, begun, monkeypatch):
    """io_error; the old file stands, nothing is beside it; the next save holds what it was given."""
    site, last = site_of(tmp_path, "fsync"), {**OLD, "last": identity(9)}
    path = planted(site, stored(OLD))
    call, number, wanted = STEPS[step]
    async with opened(side, site) as store:
        if begun:
            await store.save(OLD, [])
        with monkeypatch.context() as patched:
            patched.setattr(os, call, failing(call, number, wanted))
            with pytest.raises(IoFailed) as caught:
                await store.save({**OLD, "lost": identity(8)}, ["lost"])
        kept, names = path.read_bytes(), beside(site)
        await store.save(last, ["last"])

    assert type(caught.value) is IoFailed
    assert caught.value.fields()["errno"] == {24: "EMFILE", 1: "EPERM", 5: "EIO", 122: "EDQUOT"}[number]
    assert (kept, names) == (stored(OLD), ["identities.json"])
    assert path.read_bytes() == stored(last)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("call", ["open", "fsync"])
async def test_a_directory_that_cannot_be_synced(tmp_path, side, call, monkeypatch):
    """outcome_unknown: the new file stands, but may not survive a power cut; the next save is the next."""
    site, last = site_of(tmp_path, "fsync"), {**OLD, "last": identity(9)}
    path = planted(site, stored(OLD))
    folder = os.fspath(path.parent)
    async with opened(side, site) as store:
        with monkeypatch.context() as patched:
            wanted = is_folder if call == "fsync" else (lambda name: name == folder)
            patched.setattr(os, call, failing(call, 5, wanted))
            with pytest.raises(OutcomeUnknown) as caught:
                await store.save({**OLD, "new": identity(8)}, ["new"])
        kept, names = path.read_bytes(), beside(site)
        await store.save(last, ["last"])

    assert (caught.value.component, caught.value.errno, caught.value.transient) == ("agent", "EIO", False)
    assert (kept, names) == (stored({**OLD, "new": identity(8)}), ["identities.json"])
    assert path.read_bytes() == stored(last)


NO_RIGHT = """
import asyncio, os, sys
from pathlib import Path
from ksi_daemon.errors import IoFailed
from tests.identity_sides import beside, many, opened, site_of, stored
async def main(root, side):
    site = site_of(root)
    path = site.settings.identity_storage_path
    async with opened(side, site) as store:
        await store.save(many(2), [])
        path.parent.chmod(0o500)
        try:
            await store.save(many(3), ["agent-2"])
        except IoFailed as error:
            print(error.errno, path.read_bytes() == stored(many(2)), beside(site))
        path.parent.chmod(0o700)
        await store.save(many(4), ["agent-3"])
        print(path.read_bytes() == stored(many(4)))
        path.chmod(0)
        try:
            await store.load()
        except IoFailed as error:
            print(error.errno, beside(site))
asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("side", SIDES)
def test_no_right_to_write_or_read(tmp_path, side):
    """EACCES of the directory and of the file: io_error, nothing is changed, and it goes on when it may."""
    command = [sys.executable, "-c", NO_RIGHT, str(tmp_path), side]
    if os.geteuid() == 0:  # who is asked for no rights otherwise
        if shutil.which("setpriv") is None:
            pytest.skip("taking rights from root needs setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=50)

    expected = ["EACCES True ['identities.json']", "True", "EACCES ['identities.json']"]
    assert (expected, "") == (done.stdout.splitlines(), done.stderr)


@pytest.mark.parametrize("side", SIDES)
async def test_a_directory_that_is_gone(tmp_path, side):
    """It is made again, private, with everything in the file."""
    site = site_of(tmp_path)
    path = planted(site, stored(OLD))
    async with opened(side, site) as store:
        await store.save(OLD, [])
        shutil.rmtree(path.parent)
        await store.save({**OLD, "last": 1}, ["last"])

    assert path.read_bytes() == stored({**OLD, "last": 1})
    assert path.parent.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("side", SIDES)
async def test_a_file_in_the_directorys_place(tmp_path, side):
    """ENOTDIR on load and save, and opening is no trouble; afterwards all is saved."""
    site = site_of(tmp_path)
    folder = site.settings.identity_storage_path.parent
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"")
    async with opened(side, site) as store:
        for call in (store.load(), store.save(OLD, [])):
            with pytest.raises(IoFailed, match="ENOTDIR"):
                await call
        folder.unlink()
        await store.save(OLD, [])

    assert site.settings.identity_storage_path.read_bytes() == stored(OLD)


def a_link(path, target):
    """To a file that may be written."""
    path.symlink_to(target)


def a_fifo(path, _target):
    """That nobody reads."""
    os.mkfifo(path)


def a_directory(path, _target):
    """With something in it."""
    path.mkdir()
    (path / "kept").touch()


def a_socket(path, _target):
    """That somebody has bound."""
    with socket.socket(socket.AF_UNIX) as made_, pytest.MonkeyPatch.context() as patched:
        patched.chdir(path.parent)  # the name of a socket must be short
        made_.bind(path.name)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("lay", "errno"), [(a_link, "ELOOP"), (a_fifo, "EINVAL"), (a_directory, "EISDIR"), (a_socket, "EINVAL")]
)
async def test_what_is_no_file_is_refused(tmp_path, side, lay, errno):
    """On load and on save; it stays, nothing is written through it, and nothing waits for its other end."""
    site, target = site_of(tmp_path), tmp_path / "target"
    target.write_bytes(b'{"a": 1}')
    path = site.settings.identity_storage_path
    path.parent.mkdir(parents=True)
    lay(path, target)
    before = path.lstat()
    async with opened(side, site) as store:
        for call in (store.load(), store.save(OLD, [])):
            with pytest.raises(IoFailed, match=errno):
                await call

    after = path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert (target.read_bytes(), beside(site)) == (b'{"a": 1}', ["identities.json"])


@pytest.mark.parametrize("side", SIDES)
async def test_an_open_sweeps_its_own_leftovers_only(tmp_path, side):
    """What a crash left is removed, also behind one that cannot be; strangers' files stay."""
    site = site_of(tmp_path)
    path = planted(site, stored(OLD))
    for name in ("00000000000000aa", "ffffffffffffffff"):
        path.with_name(f".identities.{name}.tmp").touch()
    for number in range(3):
        path.with_name(f".identities.000000000000000{number}.tmp").mkdir()
    strange = [".identities.json.swp", ".identities.tmp", ".0123456789abcdef.tmp", ".identities.abc.tmp"]
    for name in strange:
        path.with_name(name).touch()
    async with opened(side, site):
        kept = [name for name in beside(site) if not name.startswith(".identities.00000000")]

    assert kept == sorted(["identities.json", *strange])


# the async side's callers share a write, and its failure


async def test_a_failed_write_fails_those_who_wait(tmp_path, monkeypatch):
    """All saves called before its end fail; the next one holds what it was given, and nothing of theirs."""
    site = site_of(tmp_path)
    path = planted(site, stored(OLD))
    go_on, rename = threading.Event(), os.rename

    def refuse(*_, **__):
        assert go_on.wait(30)
        raise OSError(28, "No space left on device")

    async with opened("async", site) as store:
        await store.save(OLD, [])
        monkeypatch.setattr(os, "rename", refuse)
        first = asyncio.ensure_future(outcome(store.save({**OLD, "one": 1}, ["one"])))
        while store.pending() is None:
            await asyncio.sleep(0)
        others = [asyncio.ensure_future(outcome(store.save({**OLD, "one": 1, n: n}, [n]))) for n in "abc"]
        await asyncio.sleep(0)
        go_on.set()
        found = await asyncio.gather(first, *others)
        monkeypatch.setattr(os, "rename", rename)
        await store.save({**OLD, "last": 1}, ["last"])

    assert found == [IoFailed] * 4
    assert path.read_bytes() == stored({**OLD, "last": 1})


async def test_a_save_before_the_callers_of_a_failed_one_have_run(tmp_path, monkeypatch):
    """It was built on what they lose, so it fails as they do; the one after them all is written."""
    site = site_of(tmp_path)
    path = planted(site, stored(OLD))
    found = []
    async with opened("async", site) as store:
        await store.save(OLD, [])
        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", failing("rename", 28))
            losing = asyncio.ensure_future(outcome(store.save({**OLD, "lost": 1}, ["lost"])))
            while store.pending() is None:
                await asyncio.sleep(0)
            while store.pending() is not None:
                await asyncio.sleep(0)
            patched.undo()
            assert not losing.done()
            found.append(await outcome(store.save({**OLD, "lost": 1, "built on it": 2}, ["built on it"])))
        found.append(await losing)
        kept = path.read_bytes()
        await store.save({**OLD, "last": 1}, ["last"])

    assert found == [IoFailed, IoFailed]
    assert (kept, path.read_bytes()) == (stored(OLD), stored({**OLD, "last": 1}))


async def test_an_error_that_nobody_expects_is_answered(tmp_path, monkeypatch):
    """Whoever waits gets it, instead of waiting for ever; the next save works."""
    site = site_of(tmp_path)
    async with opened("async", site) as store:
        await store.save(OLD, [])
        with monkeypatch.context() as patched:
            patched.setattr(store._store, "replace", lambda *_: 1 / 0)
            calls = [asyncio.ensure_future(store.save({**OLD, n: n}, [n])) for n in "ab"]
            found = await asyncio.gather(*calls, return_exceptions=True)
        await store.save({**OLD, "last": 1}, ["last"])

    assert [type(error) for error in found] == [ZeroDivisionError] * 2
    assert site.settings.identity_storage_path.read_bytes() == stored({**OLD, "last": 1})


async def test_a_thread_that_cannot_be_started(tmp_path, monkeypatch):
    """The open fails with what the system said, and the same store can be opened later."""
    store = made("async", site_of(tmp_path))

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(Lane, "submit", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await store.open()
    await store.open()
    await store.save(OLD, [])
    await store.close()

    assert store._site.settings.identity_storage_path.read_bytes() == stored(OLD)
