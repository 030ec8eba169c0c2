"""Which file system a path lies on, as far as the platform tells."""

from __future__ import annotations

import os
from pathlib import Path

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "ceph", "glusterfs"})
MOUNTS = Path("/proc/self/mountinfo")


def kind(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The file system's type, such as `ext4`; None where there is no mountinfo (proc(5)), as on macOS."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = os.path.realpath(path)
    held = [
        (point, kind) for point, kind in map(_parse, lines) if os.path.commonpath([point, place]) == point
    ]
    return max(enumerate(held), key=lambda one: (len(one[1][0]), one[0]))[1][1] if held else None


def _parse(line: str) -> tuple[str, str]:
    """Mount point and type; of two mounts on one point the later one is on top."""
    left, _, right = line.partition(" - ")
    octal = left.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
    return octal.encode("latin-1").decode("utf-8", "surrogateescape"), right.split(" ")[0]
