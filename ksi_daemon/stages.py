"""What is, beside what is wanted: the ceilings of rollbacks, and the stages that the daemon acknowledged."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from ksi_daemon.errors import KsiError
from ksi_daemon.flags import Flags, FlagsInvalid, Stage, read
from ksi_daemon.flagtext import shown
from ksi_daemon.replace import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CEILINGS: Final = "ceilings.json"
"""Written by ksi-migrate alone, in `var/migrate`."""
STATE: Final = "state.json"
"""Written by the daemon alone, in `var/migrate`."""
SCHEMA_VERSION: Final = 1

_STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")


class StagesInvalid(KsiError):
    """A ceilings or state file that is there but cannot be used."""

    code = "flags_invalid"

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")


@checked(config=_STRICT, frozen=True, slots=True)
class Ceiling:
    """The highest stage a component may have whatever flags.yaml says; `at` is ISO 8601, UTC."""

    stage: Stage
    reason: str
    who: str
    at: str


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The ceilings in force, by component; a component without one is free."""

    components: Mapping[str, Ceiling] = field(default_factory=dict)


@checked(config=_STRICT, frozen=True, slots=True)
class InForce:
    """One component's stage as the daemon has it, since when (ISO 8601, UTC), and why."""

    stage: Stage
    since: str
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """What the daemon acknowledged: `digest` says which flags and ceilings, `generation` how many changes."""

    generation: int
    digest: str
    pid: int
    at: str
    components: Mapping[str, InForce]


def effective(flags: Flags, ceilings: Ceilings) -> dict[str, Stage]:
    """The stage each component should have: what is desired, or its ceiling where that is lower."""
    return {
        name: min(desired, ceilings.components[name].stage) if name in ceilings.components else desired
        for name, desired in flags.components.items()
    }


def digest(flags: bytes, ceilings: bytes) -> str:
    """SHA-256 over both files' bytes (empty for a missing one), as hexadecimal digits."""
    return hashlib.sha256(flags + ceilings).hexdigest()


def parse_ceilings(data: bytes | None, path: Path | str = CEILINGS) -> Ceilings:
    """The ceilings in a file's bytes; None is a missing file, which has none. Raises `StagesInvalid`.

    An empty file is refused: read as "no ceilings" it would undo a rollback.
    """
    if data is None:
        return Ceilings()
    found = _checked(_CEILINGS_FILE, data, path)
    return Ceilings(dict(found.components))


def parse_state(data: bytes | None, path: Path | str = STATE) -> State | None:
    """The state in a file's bytes, None for a missing file. Raises `StagesInvalid`."""
    if data is None:
        return None
    found = _checked(_STATE_FILE, data, path)
    return State(found.generation, found.digest, found.pid, found.at, dict(found.components))


def load_ceilings(migrate_dir: Path) -> Ceilings:
    """The ceilings on disk; without a file there are none. Raises `StagesInvalid`."""
    path = migrate_dir / CEILINGS
    return parse_ceilings(bytes_of(path), path)


def load_state(migrate_dir: Path) -> State | None:
    """The last acknowledged state, None before a first one. Raises `StagesInvalid`."""
    path = migrate_dir / STATE
    return parse_state(bytes_of(path), path)


def dump_ceilings(ceilings: Ceilings) -> bytes:
    """The file's bytes."""
    return _dump(ceilings)


def dump_state(state: State) -> bytes:
    """The file's bytes."""
    return _dump(state)


def save_ceilings(migrate_dir: Path, ceilings: Ceilings) -> None:
    """Put the ceilings on the disk, whole. Blocks; raises `OSError`."""
    replace_file(migrate_dir / CEILINGS, dump_ceilings(ceilings))


def save_state(migrate_dir: Path, state: State) -> None:
    """Put the state on the disk, whole. Blocks; raises `OSError`."""
    replace_file(migrate_dir / STATE, dump_state(state))


def bytes_of(path: Path) -> bytes | None:
    """A stage file's bytes, read as carefully as flags.yaml; None when there is none."""
    try:
        return read(path)
    except FlagsInvalid as error:
        if error.missing:
            return None
        raise StagesInvalid(path, error.reason) from None


@checked(config=_STRICT, frozen=True, slots=True)
class _CeilingsFile:
    schema_version: int
    components: dict[str, Ceiling]


@checked(config=_STRICT, frozen=True, slots=True)
class _StateFile:
    schema_version: int
    generation: int
    digest: str
    pid: int
    at: str
    components: dict[str, InForce]


_CEILINGS_FILE: Final = TypeAdapter(_CeilingsFile)
_STATE_FILE: Final = TypeAdapter(_StateFile)


def _checked(shape: TypeAdapter[T], data: bytes, path: Path | str) -> T:
    try:
        found: Any = shape.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = shown(".".join(str(part) for part in first["loc"]))
        told = f"{first['msg'].lower()} at {place}" if first["loc"] else first["msg"].lower()
        raise StagesInvalid(path, f"is damaged ({told}); put back a good copy, or remove it") from None
    if found.schema_version != SCHEMA_VERSION:
        raise StagesInvalid(
            path, f"has schema_version {found.schema_version}; this release knows {SCHEMA_VERSION}"
        )
    return found  # type: ignore[no-any-return]


def _dump(stages: Ceilings | State) -> bytes:
    document = {"schema_version": SCHEMA_VERSION, **asdict(stages)}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
