"""What the last parity run of each component found: `var/migrate/evidence/parity-<component>.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter, ValidationError

from ksi_daemon.conductor import utc_now
from ksi_daemon.flags import FlagsInvalid, read
from ksi_daemon.linefile import private_directory
from ksi_daemon.replace import replace_file
from ksi_migrate.origin import Origin, here

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


VERSION = 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """One component's last parity: whether both sides agreed, over how many cases, and when (UTC).

    The rest says how it came about; evidence of earlier releases lacks it. `inconclusive` are the reasons why
    some cases could not be compared.
    """

    component: str
    ok: bool
    cases: int
    at: str
    mismatches: int = field(default=0, compare=False)
    inconclusive: tuple[str, ...] = field(default=(), compare=False)
    seed: int | None = field(default=None, compare=False)
    origin: Origin | None = field(default=None, compare=False)
    version: int = field(default=VERSION, compare=False)

    def document(self) -> dict[str, Any]:
        """As a journal entry and `status` show it."""
        return {"ok": self.ok, "cases": self.cases, "at": self.at}


_SHAPE = TypeAdapter(Evidence)


def from_parity(components: Iterable[Mapping[str, Any]], seed: int | None = None) -> tuple[Evidence, ...]:
    """The evidence in a parity document's `components`."""
    at, origin = utc_now(), here()
    return tuple(
        Evidence(
            found["name"],
            bool(found["ok"]),
            int(found["cases"]),
            at,
            len(found.get("mismatches", ())),
            tuple(found.get("inconclusive", ())),
            seed,
            origin,
        )
        for found in components
    )


def store(migrate_dir: Path, found: Iterable[Evidence]) -> None:
    """Put each in the place of the component's last one. Raises `OSError`."""
    for one in found:
        path = _path(migrate_dir, one.component)
        private_directory(path.parent)
        replace_file(path, orjson.dumps(asdict(one), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def store_or_say(migrate_dir: Path, found: Iterable[Evidence]) -> tuple[str, ...]:
    """Store; evidence that cannot be kept holds nothing up and is told in a note."""
    try:
        store(migrate_dir, found)
    except OSError as error:
        return (f"the evidence of parity could not be kept: {error}",)
    return ()


def keep(
    migrate_dir: Path, components: Iterable[Mapping[str, Any]], seed: int | None = None
) -> tuple[str, ...]:
    """Store what `parity` found, in a root that has a `var/migrate`; elsewhere it leaves nothing behind."""
    return store_or_say(migrate_dir, from_parity(components, seed)) if migrate_dir.is_dir() else ()


def load(migrate_dir: Path, component: str) -> Evidence | None:
    """The last evidence; None when there is none, and also when what is there cannot be read as such."""
    try:
        found = _SHAPE.validate_json(read(_path(migrate_dir, component)), strict=True)
    except (FlagsInvalid, ValidationError):
        return None
    return found if found.version == VERSION else None


def _path(migrate_dir: Path, component: str) -> Path:
    return migrate_dir / "evidence" / f"parity-{component}.json"
