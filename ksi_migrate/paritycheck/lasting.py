"""Programs that go on until they are ended, and what is left of them."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ksi_daemon import proctable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

SECONDS = 60
"""For which one goes on when nobody ends it."""

_PROGRAM = b"""#!/bin/sh
# Begins two processes, one in a session of its own where there is setsid, tells their pids, and waits
%(listens)b
(command -v setsid >/dev/null && exec setsid sleep %(seconds)d || exec sleep %(seconds)d) &
first=$!
sleep %(seconds)d &
echo "$$ $first $!" > "$0.begins" && mv "$0.begins" "$0.began"
wait
"""

OBEDIENT = _PROGRAM % {b"listens": b"", b"seconds": SECONDS}
DEAF = _PROGRAM % {b"listens": b'trap "" TERM', b"seconds": SECONDS}
"""The same, deaf to SIGTERM as its children are, so that only SIGKILL ends them."""


@contextmanager
def in_place_of(
    programs: Mapping[str, bytes], program: bytes, root: Path
) -> Iterator[Callable[[], list[int]]]:
    """Have `program` run instead of `programs`; gives what tells the pids, none before they all run."""
    paths = [root / name for name in programs]
    for path in paths:
        path.write_bytes(program)

    def began() -> list[int]:
        told = [path.with_name(f"{path.name}.began") for path in paths]
        return [int(pid) for path in told if path.exists() for pid in path.read_text().split()]

    try:
        yield began
    finally:
        for path, content in zip(paths, programs.values(), strict=True):
            path.write_bytes(content)
            for ending in ("begins", "began"):
                path.with_name(f"{path.name}.{ending}").unlink(missing_ok=True)


def alive(pids: Iterable[int]) -> list[int]:
    """Those that run; and dead children of ours that nobody has reaped."""
    wanted = set(pids)
    found = (process for process in proctable.table().look() if process.pid in wanted)
    return sorted(process.pid for process in found if process.alive or process.parent == os.getpid())


def kill(pids: Iterable[int]) -> None:
    """End them, so that a side at fault leaves nothing behind on the machine."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children() -> set[int]:
    """The pids of this process's children, dead ones that nobody has reaped too."""
    return {process.pid for process in proctable.table().look() if process.parent == os.getpid()}
