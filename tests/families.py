"""Commands with families of every kind, and what is left of them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ksi_daemon import proctable
from ksi_daemon.children import Command
from ksi_daemon.lane import Lane
from ksi_daemon.proctable import become_subreaper
from tests.threads import new

if TYPE_CHECKING:
    from pathlib import Path

FOREVER = 'tail -f "$0"/empty'
"""A process that never ends, and whose command line names its test."""

OURS = f"test-{os.getpid()}-"
"""How the marks of this test process begin: others on the machine may run the same tests."""

NEVER = f"touch began; {FOREVER}"
"""The same, which says when it runs."""

KINDS = {
    "child": f"{FOREVER} &",
    "own session": f"setsid {FOREVER} &",
    "double-forked": f"(setsid sh -c '{FOREVER} &' \"$0\" &) &",
    "no environment": f"env -i {FOREVER} &",
    "no environment, own session": f"env -i setsid {FOREVER} &",
    "no environment, orphaned": f"(env -i {FOREVER} &)",
    "stopped": f"{FOREVER} & while ! grep -qs tail /proc/$!/comm; do :; done; kill -STOP $!",
    "ignores SIGTERM": f"(trap '' TERM; {FOREVER}) &",
    "ignores SIGTERM, own session": f"(trap '' TERM; setsid {FOREVER}) &",
}
"""What a command may leave behind, wherever that goes."""

ESCAPED = f"(env -i setsid sh -c '{FOREVER} &' \"$0\" &)"
"""A daemon of its own: in another session, without the mark, its parents dead. Found only where we adopt."""


def command(place: Path, script: str, **changes):
    """`sh` with a script whose `$0` is `place`."""
    (place / "empty").touch()
    values: dict[str, Any] = {
        "argv": ("/bin/sh", "-c", script, str(place)),
        "cwd": str(place),
        "env": {"PATH": os.environ["PATH"]},
        "mark": f"{OURS}{place.name}",
        "stdin": b"",
        "deadline_s": 30.0,
        "grace_s": 0.2,
        "most_bytes": 1_000_000,
        "scratch": place / "scratch",
    }
    return Command(**(values | changes))


def left(place: Path) -> list[int]:
    """The living processes whose command line names `place`."""
    found = []
    for process in proctable.Proc().look():
        words = (proctable._read(process.pid, "cmdline") or b"").split(b"\0")
        if process.alive and any(word.startswith(os.fsencode(place)) for word in words):
            found.append(process.pid)
    return found


_begun = 0


def begin() -> None:
    """Note the time before a test: what was born earlier, and dies whenever it likes, is not of it."""
    global _begun  # noqa: PLW0603  (one test runs at a time)
    if sys.platform == "linux":
        _begun = proctable.Proc().now()


def zombies() -> list[int]:
    """Our dead children of this test that nobody has waited for."""
    ours = [p for p in proctable.Proc().look() if p.parent == os.getpid() and p.start >= _begun]
    return [p.pid for p in ours if not p.alive]


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def stop_adopting() -> None:
    """Let orphans go to the system's first process again, as they do wherever they cannot be adopted."""
    if sys.platform == "linux":
        proctable._prctl(36, ctypes.c_ulong(0))


def adopting() -> bool:
    """Whether orphans come to this process (Linux)."""
    return sys.platform == "linux" and proctable.Proc().adopts() and os.getpid() != 1


async def there_or_done(path: Path, task: asyncio.Future) -> None:
    """Wait for the file, or for the end of the task that makes it."""
    while not path.exists() and not task.done():
        await asyncio.sleep(0.002)


@asynccontextmanager
async def spotless(place: Path):
    """A lane, where we adopt; at the end no process, zombie, descriptor or thread of the test is left."""
    assert become_subreaper()
    try:
        lane = Lane("ksi-test")
        await lane.run(int)
        before = descriptors()
        yield lane
        assert left(place) == []
        assert zombies() == []
        assert descriptors() == before
        assert await lane.close(5)
        assert [thread for thread in new() if "waitpid" in thread.name] == []
    finally:
        stop_adopting()
