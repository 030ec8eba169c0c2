"""Real faults for the tests of files: a full disk, a size limit, failing system calls, a disk that hangs."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ksi_daemon.linefile import LineFile

ROOT = Path(__file__).parents[1]


@contextmanager
def file_size_limit(limit):
    """No file of this process grows beyond `limit` bytes: a write is cut short there, the next is EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(place, size="1m"):
    """A tmpfs of `size` mounted on a new directory in `place`; skips where nobody may mount one."""
    disk = place / "small-disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(disk)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command, check=False).returncode:
        pytest.skip("a full disk needs root and mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(disk):
    """Leave no byte free on `disk`; the file to remove when it shall have room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out, suppress(OSError):
        while out.write(b"x" * 4096):
            pass
    return filler


def python(code, *args, strace=()):
    """Run Python code in a process of its own, under `strace` with those options if there are any."""
    command = [sys.executable, "-c", code, *map(str, args)]
    if strace:
        if shutil.which("strace") is None:
            pytest.skip("injecting errors of system calls needs strace")
        command = ["strace", "-f", "-o", "/dev/null", *strace, *command]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=50)


class HangingFile(LineFile):
    """A log on a disk that hangs while `answers` is not set; `begun` tells that a call is stuck in it."""

    def __init__(self, path, component="messaging"):
        super().__init__(path, component)
        self.answers = threading.Event()
        self.answers.set()
        self.begun = threading.Event()
        self.writes = []

    def open(self):
        """Open, when the disk answers."""
        self._hang()
        super().open()

    def append(self, data, durability="os"):
        """Note the write and do it, when the disk answers."""
        self._hang()
        self.writes.append(data)
        super().append(data, durability)

    async def stuck(self):
        """Wait until a call hangs."""
        while not self.begun.is_set():
            await asyncio.sleep(0.001)
        self.begun.clear()

    def _hang(self):
        if not self.answers.is_set():
            self.begun.set()
            assert self.answers.wait(30)


def counted(monkeypatch, name):
    """The descriptors with which `os.<name>` is called from now on; the calls are made all the same."""
    calls: list[int] = []
    real = getattr(os, name)

    def call(fd):
        calls.append(fd)
        return real(fd)

    monkeypatch.setattr(os, name, call)
    return calls
