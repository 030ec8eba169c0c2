"""Where trials stand: numbered directories of equal length, each with the files that it begins with."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ksi_migrate.exits import Refused
from ksi_migrate.paritycheck.rig import Rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from ksi_daemon.area import Area
    from ksi_daemon.site import Durability
    from ksi_migrate.paritycheck.sides import Make

NOT_COPIED = frozenset({"run", "migrate", "cache"})
"""What of a `var/` belongs to the daemon that runs on it, or to us."""


class Scratch:
    """A directory for one run of parity. `pristine` is a copy of the user's own `var/`, or None."""

    def __init__(self, place: Path, pristine: Path | None = None) -> None:
        self.place = place
        self._numbers = itertools.count()
        self.pristine = pristine

    @asynccontextmanager
    async def rig(
        self,
        area: Area,
        make: Make,
        files: Mapping[str, bytes] | Path | None = None,
        durability: Durability = "os",
    ) -> AsyncIterator[Rig]:
        """A rig in a fresh directory with `files` (path → bytes, or a `var/` to copy); removed at the end."""
        root = self.place / f"{next(self._numbers):08d}"
        root.mkdir(mode=0o700)
        try:
            if isinstance(files, Path):
                copy_tree(files, root / "var")
            else:
                _lay_down(root, files or {}, 0o600)
            _lay_down(root, area.exercise.programs, 0o700)
            async with Rig(area, root, make, durability) as rig:
                yield rig
        finally:
            shutil.rmtree(root)


@contextmanager
def scratch(data: Path | None = None) -> Iterator[Scratch]:
    """A scratch for one run, with a copy of `data` taken once. Raises `Refused` when that cannot be read."""
    with tempfile.TemporaryDirectory(prefix="ksi-parity-") as name:
        place = Path(name).resolve()
        pristine = None
        if data is not None:
            pristine = place / "pristine"
            _copy_data(data, pristine)
        yield Scratch(place, pristine)


def _copy_data(data: Path, to: Path) -> None:
    source = data / "var" if (data / "var").is_dir() else data
    try:
        copy_tree(source, to)
    except OSError as error:
        hint = "give a root that holds var/, or the var/ itself, as a user who may read all of it"
        raise Refused(f"{data} could not be copied: {error}", hint) from error


def copy_tree(source: Path, to: Path) -> None:
    """Copy regular files and directories with their modes, links as what they lead to; the source stays.

    No link is copied as a link: writing through it would reach the original. Sockets and pipes are left out.
    """
    _copy_folder(source, to, frozenset())


def _copy_folder(source: Path, to: Path, above: frozenset[tuple[int, int]]) -> None:
    found = source.stat()
    here = (found.st_dev, found.st_ino)
    if here in above:  # a link to a directory that holds it
        return
    to.mkdir()
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if above or entry.name not in NOT_COPIED:
            _copy_entry(entry, to / entry.name, above | {here})
    to.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRWXU)


def _copy_entry(entry: os.DirEntry[str], to: Path, above: frozenset[tuple[int, int]]) -> None:
    if entry.is_dir():
        _copy_folder(Path(entry.path), to, above)
    elif entry.is_file():
        shutil.copyfile(entry.path, to)
        to.chmod(stat.S_IMODE(entry.stat().st_mode) | stat.S_IRUSR | stat.S_IWUSR)


def _lay_down(root: Path, files: Mapping[str, bytes], mode: int) -> None:
    for name, content in files.items():
        path = root / name
        for folder in reversed(path.relative_to(root).parents[:-1]):
            (root / folder).mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
