"""A disk that really stalls: a scratch ext4 image, frozen for some milliseconds again and again.

All that needs care has one owner, a child process: it makes the image, mounts it, freezes and thaws it, and
takes everything down when its stdin ends. So a killed parent leaves nothing frozen and nothing mounted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

FIFREEZE = 0xC0045877  # linux/fs.h; the argument is not used
FITHAW = 0xC0045878
CAP_SYS_ADMIN = 21
SIZE_MIB = 512  # sparse: takes what is written to it
PATIENCE_S = 15.0
SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


class StallDiskError(RuntimeError):
    """The disk could not be set up, or ceased to stall before its end; nothing is left mounted."""

    def __init__(self, scratch: Path, why: str) -> None:
        super().__init__(f"no stalling disk in {scratch}: {why}")


def _may_mount() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = status.partition("CapEff:")[2].split()[0]
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


def _tool(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name, path=SYSTEM_PATH) is not None


NEEDS: tuple[tuple[Callable[[], bool], str], ...] = (
    (lambda: sys.platform == "linux", "needs Linux: only there can a single file system be frozen"),
    (_may_mount, "needs root and loop devices: run as root, with CAP_SYS_ADMIN"),
    (
        Path("/dev/loop-control").exists,
        "needs root and loop devices: modprobe loop",
    ),
    (_tool("mkfs.ext4"), "needs mkfs.ext4: install e2fsprogs"),
    (_tool("mount"), "needs mount and umount: install the package mount"),
)
"""What must hold on this machine, in the order of asking, and what to say when it does not."""


def unavailable() -> str | None:
    """Why no disk can be made to stall here, with a hint; None when it can."""
    return next((why for holds, why in NEEDS if not holds()), None)


@contextmanager
def stalling_disk(scratch: Path, *, hold_ms: float = 50, every_ms: float = 500) -> Generator[Path]:
    """A mounted, empty directory below `scratch` whose writes block for `hold_ms` once in every `every_ms`.

    A stall begins with the kernel's own flush of what is dirty, so it lasts `hold_ms` and that long. Blocks
    while it sets up and takes down (parts of a second): not to be entered on a loop whose stalls are
    measured. Raises `StallDiskError`, at the end also when the stalls ceased before it; ValueError when the
    disk would never be thawed.
    """
    if not 0 < hold_ms < every_ms:
        raise ValueError(f"hold_ms must lie between 0 and every_ms, not {hold_ms:g} of {every_ms:g}")
    if why := unavailable():
        raise StallDiskError(scratch, why)
    place = Path(tempfile.mkdtemp(prefix="stalldisk-", dir=scratch)).absolute()
    owner = _start_owner(place, hold_ms, every_ms)
    try:
        _await_ready(owner, scratch)
        yield _mountpoint(place)
        if owner.poll() is not None:
            raise StallDiskError(scratch, f"the stalls ceased early (exit {owner.returncode}), measure again")
    finally:
        _end(owner)
        _take_down(place)  # nothing to do, unless somebody killed the owner


def _start_owner(place: Path, hold_ms: float, every_ms: float) -> subprocess.Popen[str]:
    """Start the child in a session of its own, so that Ctrl-C reaches it as the end of its stdin only."""
    command = [sys.executable, "-m", "ksi_migrate.stalldisk", str(place), str(hold_ms), str(every_ms)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def _await_ready(owner: subprocess.Popen[str], scratch: Path) -> None:
    assert owner.stdout is not None  # noqa: S101  (pipes: see _start_owner)
    assert owner.stderr is not None  # noqa: S101
    if owner.stdout.readline() != "ready\n":
        raise StallDiskError(scratch, owner.stderr.read().strip() or "its process ended without a word")


def _end(owner: subprocess.Popen[str]) -> None:
    """Close the owner's stdin and wait for it; reading its last words, so that it cannot block on them."""
    try:
        owner.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        owner.kill()
        owner.communicate()


def _mountpoint(place: Path) -> Path:
    return place / "disk"


def _image(place: Path) -> Path:
    return place / "image"


def _run(*command: str) -> None:
    env = {"PATH": SYSTEM_PATH}
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=env)


def _set_up(place: Path) -> None:
    """Make the image in `place` and mount it there."""
    with _image(place).open("xb") as image:
        image.truncate(SIZE_MIB << 20)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "4096", "-E", "lazy_itable_init=0", str(_image(place)))
    _mountpoint(place).mkdir()
    options = "loop,nodev,nosuid,noexec,noatime"
    _run("mount", "-t", "ext4", "-o", options, str(_image(place)), str(_mountpoint(place)))


def _take_down(place: Path) -> None:
    """Thaw and unmount what is mounted in `place`, and remove it; harmless when that is done already."""
    if os.path.ismount(_mountpoint(place)):
        with _opened(place) as disk:
            _thaw(disk)
        _unmount(_mountpoint(place))
    for remove, path in ((os.unlink, _image(place)), (os.rmdir, _mountpoint(place)), (os.rmdir, place)):
        with suppress(FileNotFoundError):
            remove(path)


def _unmount(mountpoint: Path) -> None:
    """Unmount, for a second in vain while files are open, then lazily: it is gone when they are closed."""
    for _ in range(20):
        with suppress(subprocess.CalledProcessError):
            return _run("umount", str(mountpoint))
        time.sleep(0.05)
    return _run("umount", "--lazy", str(mountpoint))


@contextmanager
def _opened(place: Path) -> Generator[int]:
    """A descriptor of the image's root; any other file system is refused: freezing that could stop all."""
    disk = os.open(_mountpoint(place), os.O_RDONLY | os.O_DIRECTORY)
    try:
        if os.fstat(disk).st_dev == place.stat().st_dev:
            raise StallDiskError(place.parent, "its image is not mounted, and nothing else may be frozen")
        yield disk
    finally:
        os.close(disk)


def _thaw(disk: int) -> None:
    try:
        fcntl.ioctl(disk, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # it was not frozen
            raise


def _stdin_ended(wait_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], wait_s)[0])


def _stall_until_stdin_ends(disk: int, hold_s: float, every_s: float) -> None:
    ended = False
    while not ended and not _stdin_ended(every_s - hold_s):
        try:
            fcntl.ioctl(disk, FIFREEZE, 0)
            ended = _stdin_ended(hold_s)
        finally:
            _thaw(disk)


def _leave(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def _on_signals(action: signal.Handlers | Callable[[int, object], None]) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, action)


def own(place: Path, hold_ms: float, every_ms: float) -> None:
    """The child: set up, say `ready`, stall until stdin ends or a signal comes, take down."""
    _on_signals(_leave)
    try:
        _set_up(place)
        with _opened(place) as disk:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            _stall_until_stdin_ends(disk, hold_ms / 1e3, every_ms / 1e3)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.cmd[0]} failed: {error.stderr.decode(errors='replace').strip()}") from error
    finally:
        _on_signals(signal.SIG_IGN)
        _take_down(place)


if __name__ == "__main__":
    own(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
