"""Where trials stand: numbered directories of equal length, each with the files that it begins with."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ksi_migrate.paritycheck import given
from ksi_migrate.paritycheck.clock import START
from ksi_migrate.paritycheck.rig import Rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from ksi_daemon.area import Area
    from ksi_daemon.site import Durability
    from ksi_migrate.paritycheck.sides import Make


LAID_DOWN = START - 60.0
"""The time of all files that a trial begins with: replies may tell it."""


class Scratch:
    """A directory for one run of parity. `pristine` is a copy of the user's own files, or None."""

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
        """A rig in a fresh place with `files`: path → bytes, or what `given.take` made. Removed at last."""
        root = self.place / f"{next(self._numbers):08d}"
        root.mkdir(mode=0o700)
        try:
            if isinstance(files, Path):
                given.lay(files, root)
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
            given.take(data, pristine)
        yield Scratch(place, pristine)


def _lay_down(root: Path, files: Mapping[str, bytes], mode: int) -> None:
    for name, content in files.items():
        path = root / name
        for folder in reversed(path.relative_to(root).parents[:-1]):
            (root / folder).mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, (LAID_DOWN, LAID_DOWN))
