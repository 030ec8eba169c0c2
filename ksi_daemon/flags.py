"""flags.yaml: the stage that the operator wants for each component, read whole and strictly."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ksi_daemon.flagtext import LIMIT, FlagsInvalid, Outline, decode, reading, scan, set_scalars, shown
from ksi_daemon.registry import AREAS
from ksi_daemon.site import Durability

__all__ = ["LIMIT", "Flags", "FlagsInvalid", "Stage", "parse", "read", "schema", "set_scalars"]


class Stage(StrEnum):
    """How far a component has come, in this order; comparing two compares their ranks, not their letters."""

    SYNC = "sync"
    SHADOW = "shadow"
    CANARY = "canary"
    ASYNC = "async"

    @property
    def rank(self) -> int:
        """0 for sync to 3 for async."""
        return list(Stage).index(self)

    def __lt__(self, other: str) -> bool:
        return self.rank < Stage(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Stage(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Stage(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Stage(other).rank


class Component(Protocol):
    """What the flags need to know of an area."""

    @property
    def name(self) -> str:
        """Its key in flags.yaml."""

    @property
    def title(self) -> str:
        """Its description in the schema."""

    @property
    def kind(self) -> str:
        """`append` and `replace` have a durability."""

    @property
    def built(self) -> bool:
        """Whether it can leave `sync`."""

    @property
    def retired(self) -> bool:
        """Whether it cannot go back."""


@dataclass(frozen=True, slots=True)
class Flags:
    """A valid flags.yaml; `durability` names every append and replace component, `components` every one."""

    version: int
    durability: Mapping[str, Durability]
    components: Mapping[str, Stage]


class _Row(NamedTuple):
    name: str
    title: str
    durable: bool
    built: bool
    retired: bool


def parse(data: bytes, *, areas: Sequence[Component] = AREAS, path: Path | str = "flags.yaml") -> Flags:
    """The flags in a file's bytes; anything else than exactly one valid document raises `FlagsInvalid`."""
    rows = _rows(areas)
    outline = scan(decode(data, path), path)
    if not outline.keys:
        raise FlagsInvalid(path, 0, "is empty; `ksi-migrate flags schema` says what it holds")
    try:
        document = _model(rows).model_validate(_tree(outline))
    except ValidationError as error:
        raise _first(error, outline, rows, path) from None
    last = [place[0] for place in outline.keys if len(place) == 1][-1]
    if last != "components":
        line = outline.keys[(last,)]
        raise FlagsInvalid(path, line, f"`components` must be the last key; move `{last}` above it")
    values = document.model_dump()
    return Flags(values["version"], values["durability"], values["components"])


def read(path: Path | str) -> bytes:
    """The bytes of a flags file, at most `LIMIT`; raises `FlagsInvalid` for what is no readable regular file.

    A link to a regular file is followed. A FIFO, a device or a socket is never opened, and an open that
    raced with one does not wait (O_NONBLOCK, POSIX open(2)).
    """
    try:
        _only_regular(path, os.stat(path))
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            _only_regular(path, os.fstat(fd))
            data = _up_to(fd, LIMIT + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise FlagsInvalid(path, 0, "is missing; put it back", missing=True) from None
    except OSError as error:
        raise FlagsInvalid(path, 0, f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > LIMIT:
        raise _too_large(path)
    return data


def schema(areas: Sequence[Component] = AREAS) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the model that `parse` validates with."""
    document = _model(_rows(areas)).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _up_to(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := os.read(fd, size - len(data))):
        data += piece
    return data


_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def _only_regular(path: Path | str, found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        what = _KINDS.get(kind, "no regular file")
        raise FlagsInvalid(path, 0, f"is {what}; put a regular file or a link to one there")
    if found.st_size > LIMIT:
        raise _too_large(path)


def _too_large(path: Path | str) -> FlagsInvalid:
    return FlagsInvalid(path, 0, f"more than {LIMIT} bytes; flags are a few lines")


def _rows(areas: Sequence[Component]) -> tuple[_Row, ...]:
    return tuple(
        _Row(area.name, area.title, area.kind in ("append", "replace"), area.built, area.retired)
        for area in areas
    )


@lru_cache(maxsize=8)
def _model(rows: tuple[_Row, ...]) -> type[BaseModel]:
    stages: dict[str, Any] = {row.name: _stage(row) for row in rows}
    durable: dict[str, Any] = {
        row.name: (Literal["os", "fsync"], Field("os", title=row.name, description=row.title))
        for row in rows
        if row.durable
    }
    strict = ConfigDict(extra="forbid", strict=False)
    components = create_model("Components", __config__=strict, __doc__=_COMPONENTS, **stages)
    durability = create_model("Durability", __config__=strict, __doc__=_DURABILITY, **durable)
    return create_model(
        "Flags",
        __config__=strict,
        __doc__=_FLAGS,
        version=(Literal[1], Field(description="The layout of this file.")),
        durability=(durability, Field(default_factory=durability, description=_DURABILITY)),
        components=(components, Field(description=_COMPONENTS)),
    )


_FLAGS: Final = "The stage that the operator wants for each component of the KSI daemon."
_DURABILITY: Final = (
    "When an append or a save counts as done. os: handed to the kernel, as the daemon always did. "
    "fsync: on the disk (the file, and its directory after a rename)."
)
_COMPONENTS: Final = (
    "sync: the daemon as it was. async: never blocks the loop. shadow and canary are reserved until they are "
    "built. Every component is named, and this is the last key, so that no half-written file is valid."
)


def _stage(row: _Row) -> Any:
    if row.retired:
        return Literal[Stage.ASYNC], Field(title=row.name, description=f"{row.title} (retired: only async)")
    if row.built:
        return Literal[Stage.SYNC, Stage.ASYNC], Field(title=row.name, description=row.title)
    return Literal[Stage.SYNC], Field(title=row.name, description=f"{row.title} (not built yet: only sync)")


def _tree(outline: Outline) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for place in outline.keys:
        scalar = outline.scalars.get(place)
        value: Any = scalar.text if scalar else {}
        if scalar and place == ("version",) and not scalar.quote and scalar.text == "1":
            value = 1
        (tree if len(place) == 1 else tree[place[0]])[place[-1]] = value
    return tree


def _first(error: ValidationError, outline: Outline, rows: Sequence[_Row], path: Path | str) -> FlagsInvalid:
    found = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        place = tuple(str(part) for part in fault["loc"])
        found.append((outline.keys.get(place) or outline.keys.get(place[:1], 0), fault["type"], place))
    line, kind, place = min(found, key=lambda one: one[0])
    return FlagsInvalid(path, line, _reason(kind, place, outline, rows))


def _reason(kind: str, place: tuple[str, ...], outline: Outline, rows: Sequence[_Row]) -> str:
    if kind == "missing":
        return _missing(place, rows)
    if kind == "extra_forbidden":
        return _unknown(place, rows)
    scalar = outline.scalars.get(place)
    if kind == "model_type":
        return (
            f"`{place[0]}` must hold one `name: value` a line below it{'' if scalar else '; it holds none'}"
        )
    if scalar is None:
        return f"`{place[-1]}` must be one word, not a block of its own"
    return _word(place, scalar.text, scalar.quote, {row.name: row for row in rows})


def _missing(place: tuple[str, ...], rows: Sequence[_Row]) -> str:
    if len(place) > 1:
        stage = "async" if any(row.retired for row in rows if row.name == place[1]) else "sync"
        return f"{place[1]} is missing; add the line `  {place[1]}: {stage}` under components"
    line = "version: 1" if place == ("version",) else "components:"
    return f"`{place[0]}` is missing; add the line `{line}`"


def _unknown(place: tuple[str, ...], rows: Sequence[_Row]) -> str:
    above = place[0] if len(place) > 1 else ""
    known = {
        "": ["version", "durability", "components"],
        "durability": [row.name for row in rows if row.durable],
        "components": [row.name for row in rows],
    }[above]
    if above == "durability" and place[-1] in [row.name for row in rows]:
        return f"{place[-1]} writes no file of its own, so it has no durability; remove the line"
    return f"unknown key {shown(place[-1])}; known here: {', '.join(known)}"


def _word(place: tuple[str, ...], text: str, quote: str, rows: Mapping[str, _Row]) -> str:
    made = "" if quote else reading(text)
    heard = (
        shown(text)
        if made in ("", "text") or made.endswith(f" {text}")
        else f"{shown(text)}, which YAML reads as {made}"
    )
    if place == ("version",):
        return f"version must be the number 1, not {'the text ' if quote else ''}{heard}"
    if place[0] == "durability":
        return f"durability of {place[1]} must be os or fsync, not {heard}"
    row = rows[place[1]]
    if not row.built or row.retired:
        why = "is retired" if row.retired else "is not built yet"
        return f"{place[1]} {why} and must be {'async' if row.retired else 'sync'}, not {heard}"
    if text in list(Stage):
        return f"the stage {text} of {place[1]} is reserved but not built yet; use sync or async"
    return f"stage of {place[1]} must be sync or async, not {heard}"
