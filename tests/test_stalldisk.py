"""The stalling disk: writes to it really block, everything else goes on, and nothing is ever left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ksi_migrate import stalldisk
from ksi_migrate.stalldisk import StallDiskError, stalling_disk, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
real_disk = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

HOLDER = """
import sys, time
from pathlib import Path
from ksi_migrate.stalldisk import stalling_disk

with stalling_disk(Path(sys.argv[1]), hold_ms=float(sys.argv[2]), every_ms=float(sys.argv[2]) + 20) as disk:
    held = (disk / "open").open("w")
    print(disk, flush=True)
    time.sleep(60)
"""


def longest_write_ms(path: Path, seconds: float) -> float:
    """The longest of many small writes to a new file, in ms."""
    longest, end = 0.0, time.monotonic() + seconds
    with path.open("wb", buffering=0) as file:
        while time.monotonic() < end:
            begin = time.perf_counter()
            file.write(b"x" * 300)
            longest = max(longest, time.perf_counter() - begin)
            time.sleep(0.001)
    return longest * 1e3


def eventually_empty(scratch: Path) -> bool:
    """Whether all that the disk put in `scratch` goes away; its owner is nobody's child here, so poll."""
    deadline = time.monotonic() + 20
    while any(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(scratch.iterdir()) and str(scratch) not in Path("/proc/mounts").read_text()


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """The child processes that own a disk, in the order of their start."""
    started: list[subprocess.Popen[str]] = []
    start = stalldisk._start_owner

    def recorded(place: Path, hold_ms: float, every_ms: float) -> subprocess.Popen[str]:
        started.append(start(place, hold_ms, every_ms))
        return started[-1]

    monkeypatch.setattr(stalldisk, "_start_owner", recorded)
    return started


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process within the block, with a file open on a disk nearly always frozen; and that disk."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path), "400"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        line = child.stdout.readline()
        assert line, child.stderr.read()
        yield child, Path(line.strip())
        child.kill()


@real_disk
def test_a_write_blocks_for_as_long_as_the_disk_is_held(tmp_path: Path) -> None:
    """Held for 50 ms in every 200, the longest of many writes took about 50 ms or more."""
    with stalling_disk(tmp_path, hold_ms=50, every_ms=200) as disk:
        assert longest_write_ms(disk / "log", 0.7) >= 45


@real_disk
def test_each_period_has_its_stall(tmp_path: Path) -> None:
    """Several stalls come one after the other, and between them writes are fast."""
    slow = 0
    with (
        stalling_disk(tmp_path, hold_ms=30, every_ms=100) as disk,
        (disk / "log").open("wb", buffering=0) as log,
    ):
        end = time.monotonic() + 10
        while slow < 3 and time.monotonic() < end:
            begin = time.perf_counter()
            log.write(b"x")
            slow += time.perf_counter() - begin > 0.02
            time.sleep(0.001)

    assert slow == 3


@real_disk
def test_nothing_is_left_after_the_block(tmp_path: Path) -> None:
    """After the block, also one that raised, the scratch directory is empty and nothing is mounted in it."""
    with suppress(KeyError), stalling_disk(tmp_path) as disk:
        (disk / "file").write_text("left")
        raise KeyError

    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@real_disk
def test_an_open_file_does_not_keep_the_disk(tmp_path: Path) -> None:
    """A file still open at the end is no reason to stay mounted; it can be written to until it is closed."""
    with stalling_disk(tmp_path) as disk:
        held = (disk / "file").open("w")

    with held:
        assert held.write("still there") == 11
        held.flush()
    assert list(tmp_path.iterdir()) == []


@real_disk
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_parent_leaves_nothing(
    holder: tuple[subprocess.Popen[str], Path], tmp_path: Path, how: signal.Signals
) -> None:
    """Whatever kills the process within the block, even at a frozen moment: thawed, unmounted, removed."""
    holder[0].send_signal(how)
    holder[0].wait(20)

    assert eventually_empty(tmp_path)


@real_disk
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_leaves_nothing(
    tmp_path: Path, owners: list[subprocess.Popen[str]], how: signal.Signals
) -> None:
    """The process that freezes the disk dies, perhaps while it is frozen: the end of the block mends it."""
    ceased = pytest.raises(StallDiskError, match="the stalls ceased early")
    with ceased, stalling_disk(tmp_path, hold_ms=400, every_ms=401) as disk:
        (disk / "file").write_text("written")
        time.sleep(0.05)  # chance decides whether it is frozen now, 400 to 1
        owners[0].send_signal(how)
        owners[0].wait(20)

    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@real_disk
def test_a_stopped_owner_is_killed(
    tmp_path: Path, owners: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that does not answer the end of its stdin is killed, and its work undone by the parent."""
    monkeypatch.setattr(stalldisk, "PATIENCE_S", 0.2)
    with stalling_disk(tmp_path):
        owners[0].send_signal(signal.SIGSTOP)

    assert owners[0].returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@real_disk
def test_no_other_file_system_is_frozen(tmp_path: Path) -> None:
    """A directory on which no image is mounted is refused before any ioctl."""
    (tmp_path / "disk").mkdir()

    with pytest.raises(StallDiskError, match="nothing else may be frozen"), stalldisk._opened(tmp_path):
        pytest.fail("opened a file system that is not the image's")


def test_a_thaw_that_fails_is_an_error() -> None:
    """Only "it was not frozen" is passed over: a disk that cannot be thawed must not go unnoticed."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        stalldisk._thaw(1 << 20)


@real_disk
def test_a_failing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When mkfs.ext4 fails, its own words are in the error, and nothing is left."""
    scratch, tools = tmp_path / "scratch", tmp_path / "tools"
    scratch.mkdir()
    tools.mkdir()
    (tools / "mkfs.ext4").write_text("#!/bin/sh\necho no room left >&2\nexit 1\n")
    (tools / "mkfs.ext4").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    with pytest.raises(StallDiskError, match=r"mkfs\.ext4 failed: no room left"), stalling_disk(scratch):
        pytest.fail("mounted without a file system")
    assert list(scratch.iterdir()) == []


def test_says_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first thing that is missing is named, by `unavailable` and in the error."""
    needs = ((lambda: True, "no"), (lambda: False, "needs root and loop devices"), (lambda: False, "no"))
    monkeypatch.setattr(stalldisk, "NEEDS", needs)

    assert unavailable() == "needs root and loop devices"
    with pytest.raises(StallDiskError, match="needs root and loop devices"), stalling_disk(tmp_path):
        pytest.fail("made a disk where none can be")


@pytest.mark.parametrize(("hold", "every"), [(0, 100), (-1, 100), (100, 100), (200, 100)])
def test_refuses_a_disk_that_would_never_be_thawed(tmp_path: Path, hold: float, every: float) -> None:
    """The hold must be shorter than the period, before anything is made."""
    with pytest.raises(ValueError, match="hold_ms must lie between"):
        stalling_disk(tmp_path, hold_ms=hold, every_ms=every).__enter__()

    assert list(tmp_path.iterdir()) == []
