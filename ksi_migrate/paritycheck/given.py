"""The user's own files for `--data`: copied once, and laid down anew for each trial; the originals stay."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ksi_migrate.exits import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_COPIED: Final = frozenset({"run", "migrate", "cache"})
"""What of a `var/` belongs to the daemon that runs on it, or to us."""

CONFIGURATION: Final = frozenset({".yaml", ".yml", ".json"})
NO_CONFIGURATION: Final = frozenset({"flags.yaml", "flags.schema.json"})
"""What in a root ends like that and is ours, not the daemon's configuration."""

BACKUPS: Final = "var/tmp/backups"
META: Final = ".meta"
"""Ends the names of the records of backups: each tells the absolute path of the file that was backed up."""

WHERE: Final = "root"
"""Beside the copy, the path that its records are written for."""


def take(data: Path, to: Path) -> None:
    """Copy a root, or its `var/` alone, to `to`: `var/`, and the configuration files beside it in the root.

    Raises `Refused` when that cannot be read.
    """
    whole = (data / "var").is_dir()
    try:
        to.mkdir()
        copy_tree(data / "var" if whole else data, to / "var")
        for entry in _configuration(data) if whole else ():
            _copy_entry(entry, to / entry.name, frozenset())
    except OSError as error:
        hint = "give a root that holds var/, or the var/ itself, as a user who may read all of it"
        raise Refused(f"{data} could not be copied: {error}", hint) from error
    root = data if whole else data.absolute().parent
    to.with_name(WHERE).write_bytes(_in_json(root.resolve()))


def lay(pristine: Path, root: Path) -> None:
    """Put a copy of what was taken into an empty root; backups there are backups of that root's files."""
    with os.scandir(pristine) as entries:
        for entry in entries:
            _copy_entry(entry, root / entry.name, frozenset())
    old = pristine.with_name(WHERE).read_bytes()
    for path in (root / BACKUPS).rglob(f"*{META}"):
        _rewrite(path, old + b"/", _in_json(root) + b"/")


def _in_json(path: Path) -> bytes:
    """As it stands within a string of a record."""
    return json.dumps(os.fspath(path))[1:-1].encode()


def _rewrite(path: Path, old: bytes, new: bytes) -> None:
    """A record, as it would be had the daemon always run there; its times stay."""
    content = path.read_bytes() if path.is_file() else b""
    if old in content:
        found = path.stat()
        path.write_bytes(content.replace(old, new))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _configuration(root: Path) -> Iterator[os.DirEntry[str]]:
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        ours = entry.name in NO_CONFIGURATION or entry.name.startswith(".")
        if entry.is_file() and not ours and Path(entry.name).suffix in CONFIGURATION:
            yield entry


def copy_tree(source: Path, to: Path) -> None:
    """Copy regular files and directories with modes and times, links as what they lead to; the source stays.

    No link is copied as a link: writing through it would reach the original. Sockets and pipes are left out.
    """
    _copy_folder(source, to, frozenset(), NOT_COPIED)


def _copy_folder(
    source: Path, to: Path, above: frozenset[tuple[int, int]], but: frozenset[str] = frozenset()
) -> None:
    found = source.stat()
    here = (found.st_dev, found.st_ino)
    if here in above:  # a link to a directory that holds it
        return
    to.mkdir()
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if entry.name not in but:
            _copy_entry(entry, to / entry.name, above | {here})
    to.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRWXU)


def _copy_entry(entry: os.DirEntry[str], to: Path, above: frozenset[tuple[int, int]]) -> None:
    if entry.is_dir():
        _copy_folder(Path(entry.path), to, above)
    elif entry.is_file():
        found = entry.stat()
        shutil.copyfile(entry.path, to)
        to.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
        os.utime(to, ns=(found.st_atime_ns, found.st_mtime_ns))  # both sides tell it in their listings
