"""Stored identities to measure on: as many as wanted, the file they make, and proof that it holds them."""

from __future__ import annotations

import json
import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate.bench_proof import Broken

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

Identity = dict[str, Any]
Identities = dict[str, Identity]

BORN: Final = "2025-07-12T17:00:00.000000Z"
_STRIDE: Final = 7919
"""A prime: with it the updates go all over the file."""


def name_of(number: int) -> str:
    """The agent id of an identity."""
    return f"agent_{number:06d}"


def identity(number: int) -> Identity:
    """One identity, of about 300 bytes in the file."""
    return {
        "agent_id": name_of(number),
        "created_at": BORN,
        "updated_at": BORN,
        "name": f"Agent {number}",
        "role": "developer",
        "description": f"{number:06d} reads code, writes code and asks when in doubt.",
        "traits": ["curious", "careful"],
    }


def identities(count: int) -> Identities:
    """So many of them, in the order of their numbers."""
    return {name_of(number): identity(number) for number in range(count)}


@cache
def content(count: int) -> bytes:
    """The file that holds `identities(count)`."""
    return encoded(identities(count))


def encoded(given: Identities) -> bytes:
    """The file as the original writes it (contract 3.4)."""
    return json.dumps(given, indent=2).encode()


def target(number: int, stored: int) -> str:
    """Whom the update of this number is for: another one each time, as long as there are."""
    return name_of(number * _STRIDE % stored)


def change(number: int) -> Identity:
    """What that update changes."""
    return {"role": f"role {number}", "task": f"task {number}"}


def save(path: Path, given: Identities) -> None:
    """What the original does after each change: the file truncated and written in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        json.dump(given, file, indent=2)


def prove(where: str, path: Path, wanted: Identities, changed: Collection[str]) -> bytes:
    """The file's bytes, which are those of `wanted`. Raises `Broken`.

    The stamps of the `changed` ids are the file's own, all the same, since the room's clock stood still.
    """
    found = path.read_bytes() if path.exists() else b""
    stamp = _stamp(where, found, changed)
    same = {key: {**value, "updated_at": stamp} if key in changed else value for key, value in wanted.items()}
    if found != (should := encoded(same)):
        at = len(os.path.commonprefix([found, should]))  # noqa: RUF071 - bytes, not paths
        text = f"at byte {at} it has {found[at : at + 60]!r} where {should[at : at + 60]!r} belongs"
        raise Broken(where, f"the file has {len(found)} bytes, not {len(should)}; {text}")
    return found


def _stamp(where: str, found: bytes, changed: Collection[str]) -> Any:
    try:
        kept = json.loads(found)
        return kept[next(iter(changed))]["updated_at"] if changed else None
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(where, f"the file lacks what was acknowledged: {error!r}") from error
