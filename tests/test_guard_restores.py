"""After the loop guard: every function is the original again, and its audit hook stands once and deaf."""

from __future__ import annotations

import _thread
import asyncio
import io
import os
import socket
import sqlite3
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests import guard as guard_module
from tests.guard import GUARDS, LoopBlocked, expect_trip

if TYPE_CHECKING:
    from pathlib import Path

HERE = (__file__,)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two lines, an empty directory beside it."""
    file = tmp_path / "file"
    file.write_text("one\ntwo\n")
    (tmp_path / "empty").mkdir()
    return file


PATCHED: tuple[object, ...] = (
    os,
    time,
    io.FileIO,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.TextIOWrapper,
)
PATCHED += (socket.socket, sqlite3.Cursor, sqlite3.Connection, type(_thread.allocate_lock()), asyncio.Handle)


def snapshot() -> dict[str, object]:
    """All that the guard patches (but for aliases that forbiddenfruit leaves), and the threads' names."""
    found = {f"{owner} {name}": value for owner in PATCHED for name, value in vars(owner).items()}
    threads = {"threads": sorted(thread.name for thread in threading.enumerate())}
    return {name: value for name, value in found.items() if " _c_" not in name} | threads


@pytest.mark.parametrize("kind", sorted(GUARDS))
async def test_everything_is_restored(kind: str, path: Path) -> None:
    """After the block every function is the original, the watchdog is gone and the hook is deaf."""
    with suppress(LoopBlocked), GUARDS[kind](watched=HERE):
        path.stat()  # the first guard of a process leaves what sockets inherit in their own class, for good
    before = snapshot()
    with suppress(LoopBlocked), GUARDS[kind](watched=HERE) as guard:
        path.stat()
    seen = guard.seen.copy()
    path.read_text()

    assert snapshot() == before
    assert guard.seen == seen
    assert guard_module._active is None


async def test_the_hook_is_installed_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audit hooks stay for ever, so a thousand tests must not install a thousand."""
    installed: list[object] = []
    monkeypatch.setattr(sys, "addaudithook", installed.append)
    for _ in range(3):
        with expect_trip(watched=HERE) as guard:
            os.listdir(path.parent)
        assert guard.names == {"os.listdir"}

    assert installed == []
