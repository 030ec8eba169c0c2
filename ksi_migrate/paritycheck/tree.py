"""What lies below a root: every file byte for byte, with type and mode, leftovers too."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LEFT_OUT = frozenset({"var/migrate", "var/cache"})
"""The places of our own, which the original does not have; besides them only what was cut off a torn log."""

TORN = ".torn-"
LARGE = 64 * 1024
"""Files over this size are told by size and digest instead of by their bytes."""

SETTLED_NS = 100_000_000
"""A file that was left alone for so long cannot change any more without its inode telling; the clock by which
files are stamped ticks every 10 ms at least. It is read again only when the inode tells."""

Entry = dict[str, object]
_Known = tuple[int, int, int, int, int]
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


class Tree:
    """Looks at one root again and again; paths in file contents pass through `mask` first."""

    def __init__(self, root: Path, mask: Callable[[bytes], bytes]) -> None:
        self._root = os.fspath(root)
        self._mask = mask
        self._entries: dict[_Known, Entry] = {}
        self._last: dict[str, Entry] = {}

    def look(self) -> dict[str, Entry]:
        """Path below the root → what lies there, sorted by path; the last one again where nothing changed."""
        found = dict(sorted(self._below("")))
        if found != self._last:
            self._last = found
        return self._last

    def _below(self, folder: str) -> Iterator[tuple[str, Entry]]:
        with os.scandir(os.path.join(self._root, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if path in LEFT_OUT or TORN in entry.name:
                    continue
                yield path, self._entry(entry)
                if entry.is_dir(follow_symlinks=False):
                    yield from self._below(path)

    def _entry(self, entry: os.DirEntry[str]) -> Entry:
        found = entry.stat(follow_symlinks=False)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special")
        what: Entry = {"type": kind, "mode": oct(stat.S_IMODE(found.st_mode))}
        if kind == "link":
            return {**what, "target": os.readlink(entry.path)}
        return what if kind != "file" else {**what, **self._content(entry.path, found)}

    def _content(self, path: str, found: os.stat_result) -> Entry:
        which = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if (known := self._entries.get(which)) is not None:
            return known
        settled = time.time_ns() - found.st_ctime_ns > SETTLED_NS
        entry = self._read(path)
        if settled:
            self._entries[which] = entry
        return entry

    def _read(self, path: str) -> Entry:
        try:
            with open(path, "rb") as file:
                content = self._mask(file.read())
        except OSError as error:
            return {"unreadable": errno.errorcode.get(error.errno or 0, "EIO")}
        if len(content) <= LARGE:
            return {"bytes": content}
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
