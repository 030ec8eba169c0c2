"""What can happen to a room's first file from outside, each harmless where there is nothing to do it to."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

TORN_TAIL = b'{"torn": "by a kill in mid-li'
SECOND = 1_000_000_000


def tear(path: Path) -> None:
    """Leave a line without its end, as a kill in the middle of a write does."""
    if path.is_file():
        changed = path.stat().st_mtime_ns + SECOND
        with path.open("ab") as file:
            file.write(TORN_TAIL)
        os.utime(path, ns=(changed, changed))  # a listing may show it


def rotate(path: Path) -> None:
    """Rename the file to the first free of `.1`, `.2`, …, as logrotate does."""
    if path.is_file():
        number = 1
        while _beside(path, f".{number}").exists():
            number += 1
        path.rename(_beside(path, f".{number}"))


def remove(path: Path) -> None:
    """Unlink the file."""
    with suppress(FileNotFoundError, IsADirectoryError, PermissionError):  # macOS: EPERM for a directory
        path.unlink()


def block(path: Path) -> None:
    """Put a directory in the file's place; the file waits beside it."""
    if path.is_dir():
        return
    with suppress(FileNotFoundError):
        path.rename(_beside(path, ".blocked"))
    path.mkdir(parents=True)


def unblock(path: Path) -> None:
    """Take the directory away and put the file back."""
    if path.is_dir():
        os.rmdir(path)
        with suppress(FileNotFoundError):
            _beside(path, ".blocked").rename(path)


def cover(path: Path) -> None:
    """Put a file in the place of the file's directory, which waits beside it."""
    folder = path.parent
    if folder.is_dir() and not _beside(folder, ".covered").exists():
        folder.rename(_beside(folder, ".covered"))
        folder.write_bytes(b"")


def uncover(path: Path) -> None:
    """Take that file away and put the directory back."""
    folder = path.parent
    if _beside(folder, ".covered").exists():
        folder.unlink()
        _beside(folder, ".covered").rename(folder)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


ON_FILE: Mapping[str, Callable[[Path], None]] = {
    "@tear": tear,
    "@rotate": rotate,
    "@remove": remove,
    "@block": block,
    "@unblock": unblock,
    "@cover": cover,
    "@uncover": uncover,
}
"""The actions of `ksi_daemon.exercise` that concern the room's first file."""
