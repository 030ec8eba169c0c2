"""Running one command: what it is given, what it says, and what it must not do."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat

import pytest

from ksi_daemon.children import Finished, Flood, Overtime, run
from tests.families import (
    FOREVER,
    KINDS,
    OURS,
    command,
    spotless,
)
from tests.faults import fill, small_disk
from tests.guard import loop_guard


@pytest.fixture
async def lane(tmp_path):
    """A lane; at the end nothing of the test is left."""
    async with spotless(tmp_path) as lane:
        yield lane


async def test_it_gets_its_input_and_gives_its_output_and_code(tmp_path, lane):
    """Both outputs whole, whatever the exit code, in the directory and environment asked for."""
    script = 'cat; pwd >&2; echo "$KSI_TURN $WORD" >&2; exit 3'
    done = await run(
        command(tmp_path, script, stdin="grüß\0\n".encode(), env={"WORD": "w", "PATH": os.defpath}), lane
    )

    assert done == Finished(3, "grüß\0\n".encode(), f"{tmp_path}\n{OURS}{tmp_path.name} w\n".encode())


async def test_a_signal_is_a_negative_code(tmp_path, lane):
    """As subprocess gives it."""
    assert (await run(command(tmp_path, "kill -9 $$"), lane)).code == -9


async def test_its_files_are_private_and_have_no_name(tmp_path, lane):
    """0600 in a directory of 0700, where nothing is to be seen even while it runs."""
    script = 'stat -L -c %a /dev/stdin /dev/stdout /dev/stderr; ls -A "$0"/scratch'
    done = await run(command(tmp_path, script), lane)

    assert done.stdout == b"600\n600\n600\n"
    assert stat.S_IMODE((tmp_path / "scratch").stat().st_mode) == 0o700


async def test_input_that_nobody_reads_is_no_trouble(tmp_path, lane):
    """A megabyte for a command that exits at once."""
    assert await run(command(tmp_path, "exit 0", stdin=b"x" * 1_000_000), lane) == Finished(0, b"", b"")


async def test_the_loop_is_never_blocked(tmp_path, lane):
    """But for the one start of a child; here with a deadline, leftovers and a killing."""
    with loop_guard():
        await run(command(tmp_path, f"echo x; {KINDS['own session']}"), lane)
        with pytest.raises(Overtime):
            await run(command(tmp_path, f"trap '' TERM; {FOREVER}", deadline_s=0.3), lane)


@pytest.mark.parametrize("stream", [1, 2])
async def test_each_output_has_the_limit_of_its_own(tmp_path, lane, stream):
    """To the byte; one more is a flood, also when the command has ended meanwhile."""
    script = f"head -c {{}} /dev/zero >&{stream}"
    done = await run(command(tmp_path, script.format(1000), most_bytes=1000), lane)

    assert len(done.stdout + done.stderr) == 1000
    with pytest.raises(Flood, match="more than 1000 bytes"):
        await run(command(tmp_path, script.format(1001), most_bytes=1000), lane)


async def test_a_flood_is_stopped_while_it_runs(tmp_path, lane):
    """Long before the deadline."""
    with pytest.raises(Flood):
        await run(command(tmp_path, "cat /dev/zero >&2"), lane)


def broken(place):
    """A file that may be executed and is no program."""
    path = place / "broken"
    path.write_bytes(b"\x7fELF nothing")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    ("argv", "changes", "number"),
    [
        (lambda place: str(place / "missing"), {}, errno.ENOENT),
        (str, {}, errno.EACCES),
        (broken, {}, errno.ENOEXEC),
        (lambda place: "/bin/true", {"cwd": "/missing"}, errno.ENOENT),
        (lambda place: "/bin/true", {"cwd": "/bin/true"}, errno.ENOTDIR),
        (lambda place: "/bin/true", {"env": {"A": "x" * 3_000_000}}, errno.E2BIG),
    ],
    ids=["missing", "directory", "broken", "no cwd", "cwd is a file", "too much"],
)
async def test_what_cannot_be_started_is_an_os_error(tmp_path, lane, argv, changes, number):
    """With the kernel's own number, and nothing left open."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked
        await run(command(tmp_path, "", argv=(argv(tmp_path),), **changes), lane)

    assert caught.value.errno == number


async def refused(wanted, lane):
    """The error with which a run is refused, without the frames that keep its parts alive."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked
        await run(wanted, lane)
    error = caught.value.with_traceback(None)
    error.__cause__ = error.__context__ = None
    del caught
    gc.collect()
    return error


async def test_no_thread_to_wait_for_the_child_is_an_os_error(tmp_path, lane, monkeypatch):
    """The child was started by then: it is ended and reaped all the same."""

    def refuse(*_args):
        raise RuntimeError("can't start new thread")

    watcher = type(asyncio.get_event_loop_policy().get_child_watcher())
    monkeypatch.setattr(watcher, "add_child_handler", refuse)
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        caught = await refused(command(tmp_path, FOREVER), lane)

    assert (caught.errno, str(caught)) == (errno.EAGAIN, f"[Errno {errno.EAGAIN}] can't start new thread")


async def test_a_full_disk_is_an_os_error(tmp_path, lane):
    """Nothing is started when its input finds no room."""
    with small_disk(tmp_path) as disk:
        fill(disk)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked
            await run(command(tmp_path, "touch began", scratch=disk, stdin=b"x" * 5000), lane)

        assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "began").exists()


async def test_a_disk_that_fills_up_is_the_commands_own_trouble(tmp_path, lane):
    """It sees the error, and its exit code tells."""
    with small_disk(tmp_path) as disk:
        done = await run(
            command(tmp_path, "head -c 3000000 /dev/zero", scratch=disk, most_bytes=9_000_000), lane
        )

        assert done.code == 1
