"""Where bench writes: a scratch directory below the root, on a real file system, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksi_daemon.linefile import private_directory
from ksi_daemon.settings import Settings
from ksi_migrate import mounts
from ksi_migrate.exits import Inconclusive

if TYPE_CHECKING:
    from collections.abc import Iterator


class InMemory(Inconclusive):
    """Figures from a file system without a disk would say nothing about one with a disk."""

    def __init__(self, place: Path, kind: str) -> None:
        super().__init__(f"{place} lies on {kind}, in memory", "use --root with a directory on a real disk")


class NoScratch(Inconclusive):
    """The scratch directory cannot be made."""

    def __init__(self, place: Path, error: OSError) -> None:
        text = f"no scratch directory in {place}: {(error.strerror or str(error)).lower()}"
        super().__init__(text, "use --root with a directory that you may write to")


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A new private directory `var/tmp/bench-…` of the root, removed at the end also after an error.

    Raises `InMemory`, `NoScratch`.
    """
    parent = root.absolute() / "var/tmp"
    try:
        private_directory(parent)
        place = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    except OSError as error:
        raise NoScratch(parent, error) from error
    try:
        kind = mounts.kind(place)
        if kind in mounts.IN_MEMORY:
            raise InMemory(place, kind)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def settings_of(root: Path, **more: Any) -> Settings:
    """Default settings on `root` but for `more`, whatever `KSI_*` says: never on real logs."""
    fields = Settings.model_fields.items()
    plain = {name: field.default for name, field in fields if name != "root"}
    return Settings(**{**plain, **more, "root": root}, _env_file=None)  # type: ignore[call-arg]  # pydantic-settings adds it
