"""Types, keys, names and answers of configuration: pure, and the same for both sides."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ksi_daemon.config.errors import KeyMissing, NameRefused, PathRefused, Required, Unusable

if TYPE_CHECKING:
    from ksi_daemon.settings import Settings
    from ksi_daemon.site import Durability, Site

Format = Literal["yaml", "json", "mixed"]

LONGEST_NAME: Final = 255
"""Bytes that a file name may have on every file system that we know (NAME_MAX)."""

ENVELOPE: Final = 16 * 1024
"""Bytes that a reply may need beside its value."""

META: Final = ".meta"
"""Ends the name of a backup's record."""

BEFORE: Final = "pre_rollback_"
"""Begins the name of the copy that a rollback makes first."""

EVERYTHING: Final = "*"
"""The key that stands for the whole configuration."""


class Type(NamedTuple):
    """One type of configuration: the setting that names its directory, its default file, its format."""

    base: str
    default: str | None
    format: Format


TYPES: Final[dict[str, Type]] = {
    "daemon": Type("root", "ksi_daemon.yaml", "yaml"),
    "composition": Type("compositions_dir", None, "yaml"),
    "fragment": Type("fragments_dir", None, "mixed"),
    "schema": Type("schemas_dir", None, "yaml"),
    "capabilities": Type("capabilities_dir", "ksi_capabilities.yaml", "yaml"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """A file as a request names it: `path` is relative to `base`, or absolute beneath it."""

    type: str
    base: str
    path: str

    @property
    def format(self) -> Format:
        """How the file is read and written: a type's own way, but JSON for `.json`."""
        own = TYPES[self.type].format
        return "json" if own == "yaml" and self.path.endswith(".json") else own


@dataclass(frozen=True, slots=True)
class Place:
    """What an operation has to know of its daemon; it crosses to a worker with each job."""

    component: str
    root: str
    backups: str
    locks: str
    guarded: tuple[str, ...]
    """Files and directories below the root that a request never writes."""
    open: tuple[str, ...]
    """Directories in `guarded` ones that it may write."""
    durability: Durability
    most_bytes: int
    most_reply: int
    keep: int
    patience_s: float


class Found(NamedTuple):
    """A value, as JSON, and the file it is in."""

    value: bytes
    file_path: str


class Written(NamedTuple):
    """The file that was written, and the backup that was made before; empty if nothing was to be kept."""

    file_path: str
    backup: str


class Checked(NamedTuple):
    """What `validate` found. `error` says why the file cannot be loaded, `code` is its code."""

    file_path: str
    error: str = ""
    code: str = ""
    schema_path: str = ""
    schema_errors: tuple[str, ...] = ()
    composition_errors: tuple[str, ...] = ()


class Kept(NamedTuple):
    """A backup that was made."""

    backup_name: str
    backup_path: str


class RolledBack(NamedTuple):
    """The backup that the file now holds; `current_backup` names the copy of what it held, if it did."""

    file_path: str
    backup_name: str
    backup_timestamp: str
    current_backup: str


def place(site: Site) -> Place:
    """What the operations of a site have to know."""
    settings = site.settings
    guarded = (
        settings.root / "var",
        settings.root / ".env",
        settings.flags_path,
        settings.identity_storage_path,
        settings.daemon_pid_file,
        settings.socket_path,
        *(getattr(settings, name) for name in ("log_dir", "daemon_log_dir", "response_log_dir")),
        *(getattr(settings, name) for name in ("state_dir", "db_dir", "daemon_tmp_dir")),
    )
    return Place(
        component=site.component,
        root=str(settings.root),
        backups=str(settings.daemon_tmp_dir / "backups/config"),
        locks=str(settings.migrate_dir / "locks"),
        guarded=tuple(dict.fromkeys(map(str, guarded))),
        open=(str(settings.root / "var/lib"), *_bases(settings)),
        durability=site.durability,
        most_bytes=settings.config_max_bytes,
        most_reply=max(0, settings.max_unread_bytes - ENVELOPE),
        keep=settings.config_backups,
        patience_s=settings.call_timeout,
    )


def _bases(settings: Settings) -> list[str]:
    return [str(getattr(settings, found.base)) for found in TYPES.values() if found.base != "root"]


def target(settings: Settings, kind: str, file_path: str) -> Target:
    """The file that a type and a path name; without a path the type's default.

    Raises `Unusable` for an unknown type, `Required` when it has no default, `PathRefused`.
    """
    found = TYPES.get(kind)
    if found is None:
        raise Unusable(f"Unknown config type: {kind}")
    path = file_path or found.default
    if path is None:
        raise Required(f"No default file for config type {kind}, file_path required")
    if "\0" in path:
        raise PathRefused(file_path)
    return Target(kind, str(getattr(settings, found.base)), path)


def look_up(document: Any, key: str) -> Any:
    """What stands at a dotted key; dots descend objects only. Raises `KeyMissing`."""
    if key == EVERYTHING:
        return document
    for part in key.split("."):
        if not isinstance(document, dict) or part not in document:
            raise KeyMissing(key)
        document = document[part]
    return document


def put(document: Any, key: str, value: Any) -> Any:
    """The document with a value at a dotted key; objects on the way are made. Raises `Unusable`.

    The document itself is changed, but only if nothing is raised.
    """
    if key == EVERYTHING:
        if not isinstance(value, dict):
            raise Unusable("Value must be dict when setting entire config")
        return value
    *way, last = key.split(".")
    at, missing = document, list(way)
    for part in way:
        if not isinstance(at, dict):
            raise Unusable(f"Cannot set nested key in non-dict value at {part}")
        if part not in at:
            break
        at = at[part]
        missing.pop(0)
    if not isinstance(at, dict):
        raise Unusable("Cannot set key in non-dict value")
    for part in missing:
        at[part] = at = {}
    at[last] = value
    return document


def missing_fields(document: Any) -> tuple[str, ...]:
    """What is wrong with a composition, in the original's words."""
    there = document if isinstance(document, dict) else {}
    missing = [name for name in ("name", "type", "components") if name not in there]
    return (f"Missing required fields: {missing}",) if missing else ()


def stamp(now: float) -> str:
    """Local time without a zone, as the original's records have it."""
    return datetime.fromtimestamp(now).isoformat()  # noqa: DTZ006 - the contract's


def backup_name(file_name: str, now: float) -> str:
    """`<file name>_<local time>`, its beginning cut off where it would be too long to have a record."""
    ending = datetime.fromtimestamp(now).strftime("_%Y%m%d_%H%M%S")  # noqa: DTZ006 - the contract's
    return fitting("", file_name, ending)


def fitting(start: str, middle: str, end: str) -> str:
    """The three together; the middle gives way, so that a number and the record's ending still fit behind."""
    room = LONGEST_NAME - len(os.fsencode(start + end)) - len(META) - len("-00000")
    return start + os.fsencode(middle)[:room].decode(errors="ignore") + end


def checked_name(name: str) -> str:
    """A backup's name as given: one component, no hidden file, none that could be a record.

    Raises `NameRefused`.
    """
    wrong = name in {"", ".", ".."} or name.startswith(".") or name.endswith(META)
    if wrong or "/" in name or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME - len(META):
        raise NameRefused(name)
    return name
