"""The looks that `doctor` takes for conversations and configuration files: libyaml, openat2, directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import yaml

from ksi_daemon import beneath
from ksi_migrate.doctor import Check

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.settings import Settings


def libyaml(_settings: Settings) -> Check:
    """PyYAML's loader and dumper in C; without them large configuration files take ten times as long."""
    there = hasattr(yaml, "CSafeLoader") and hasattr(yaml, "CSafeDumper")
    found = "PyYAML has it" if there else "PyYAML was built without it: YAML is read and written in Python"
    hint = "" if there else "install PyYAML from a wheel: pip install --force-reinstall pyyaml"
    return Check("libyaml", there, "warning", found, hint)


def openat2(_settings: Settings) -> Check:
    """The kernel's own way to keep a path beneath its base; without it each component is looked at."""
    there = beneath._has_openat2()  # noqa: SLF001 - the very probe that decides it
    found = (
        "there" if there else "not there: paths of configuration files are checked one component at a time"
    )
    return Check("openat2", there, "info", found, "" if there else "nothing to do; Linux 5.6 or later has it")


def kept_files(settings: Settings) -> Check:
    """Where the index of conversations, their exports and backups go: directories, or able to become ones."""
    places = (
        settings.cache_dir,
        settings.state_dir / "exports",
        settings.daemon_tmp_dir / "backups/config",
    )
    wrong = [f"{place}: {why}" for place in places if (why := _in_the_way(place))]
    found = "; ".join(wrong) or "the index, exports and backups can be written"
    return Check(
        "kept files", not wrong, "warning", found, "make them directories that you own" if wrong else ""
    )


def _in_the_way(place: Path) -> str:
    """Why nothing can be written there; the nearest directory above decides where it is missing."""
    nearest = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        return f"{nearest} is no directory"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} is not writable"
