"""Configuration files to measure on: YAML of a wanted size, and proof that it holds every set."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import yaml

from ksi_migrate.bench_proof import Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Document = dict[str, Any]

FOLDER: Final = "var/lib/compositions"
BACKUPS: Final = "var/tmp/backups"
KEPT: Final = "bench"
"""The key below which all that is set lies."""

_DRIFT: Final = 0.02
"""How near to the wanted size a document is made, as a part of it."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _components(count: int) -> Document:
    """A composition: a list of small maps."""
    names = ("system_identity", "conversation_patterns", "tool_use", "handover")
    return {
        "components": [
            {"name": f"{names[at % 4]}_{at}", "source": f"fragments/{at}.md", "vars": {"on": at % 2 == 0}}
            for at in range(count)
        ]
    }


def _settings(count: int) -> Document:
    """Maps within maps, with values of every type."""
    kinds: tuple[Any, ...] = (True, None, 3.25, 42, "plain", "yes", "2025-07-12", "Größe: ja")
    return {
        f"service_{at}": {"limits": {"queue": at, "rate": at / 8}, "value": kinds[at % 8]}
        for at in range(count)
    }


def _prompts(count: int) -> Document:
    """Long texts, of several lines each."""
    text = "You review code.\n\nSay what is wrong, where, and how to mend it.\n  - first the faults\n"
    return {"prompts": {f"prompt_{at}": text * 2 for at in range(count)}}


def _agents(count: int) -> Document:
    """Lists of words within a list of maps."""
    return {
        "agents": [
            {"id": f"agent_{at:04d}", "capabilities": ["read", "write", f"skill_{at}"], "peers": [at, at + 1]}
            for at in range(count)
        ]
    }


_SHAPES: Final[tuple[Callable[[int], Document], ...]] = (_components, _settings, _prompts, _agents)
SHAPES: Final = len(_SHAPES)


def name_of(number: int) -> str:
    """The name of a file."""
    return f"bench_{number:02d}.yaml"


def key_of(number: int) -> str:
    """What the set of this number sets: another key each time."""
    return f"{KEPT}.key_{number:03d}"


def dumped(document: Document) -> str:
    """As the original writes it (contract 3.5)."""
    return yaml.safe_dump(document, default_flow_style=False, sort_keys=False)


def document_of(number: int, size: int) -> Document:
    """The content of that file, of about `size` bytes when written; the shapes take turns."""
    shape = _SHAPES[number % SHAPES]
    head = {"name": f"bench {number}", "type": "profile", "version": "1.0"}
    count = 8
    while True:
        found = {**head, **shape(count)}
        has = len(dumped(found))
        if abs(has - size) <= max(_DRIFT * size, has / count):
            return found
        count = max(1, round(count * size / has))


class Files:
    """So many files below a root; `lay` puts them there anew, as they were in the beginning."""

    def __init__(self, root: Path, count: int, size: int) -> None:
        made = [document_of(number, size) for number in range(min(count, SHAPES))]
        self.root = root
        self.count = count
        self.documents = [{**made[number % SHAPES], "name": f"bench {number}"} for number in range(count)]
        self._texts = [dumped(document).encode() for document in self.documents]

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.root / FOLDER

    def path(self, number: int) -> Path:
        """Which file the set of this number is for."""
        return self.folder / name_of(number % self.count)

    def lay(self) -> None:
        """Write all of them, drop every backup and whatever else lies beside them."""
        for folder in (self.folder, self.root / BACKUPS):
            shutil.rmtree(folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for number, text in enumerate(self._texts):
            (self.folder / name_of(number)).write_bytes(text)

    def prove(self, where: str, sets: Iterable[int]) -> list[bytes]:
        """The bytes of all files, which hold each set and all that was there before. Raises `Broken`."""
        wanted = [{**document} for document in self.documents]
        for number in sets:
            one = wanted[number % self.count]
            one[KEPT] = {**one.get(KEPT, {}), f"key_{number:03d}": value_of(number)}
        names = sorted(path.name for path in self.folder.iterdir())
        if names != sorted(map(name_of, range(self.count))):
            raise Broken(where, f"{self.folder} holds {names}")
        found = [(self.folder / name_of(number)).read_bytes() for number in range(self.count)]
        for number, (content, should) in enumerate(zip(found, wanted, strict=True)):
            _check(f"{where}: {name_of(number)}", content, should)
        return found


def _check(where: str, content: bytes, wanted: Document) -> None:
    try:
        found = yaml.load(content, Loader=_LOADER)  # noqa: S506 - a safe loader, in C where there is one
    except yaml.YAMLError as error:
        raise Broken(where, f"it is no YAML any more: {error}") from error
    kept, should = (one.get(KEPT, {}) if isinstance(one, dict) else {} for one in (found, wanted))
    if lost := sorted(should.keys() - kept.keys()):
        raise Broken(where, f"acknowledged and not in the file: {', '.join(lost)}")
    if found != wanted:
        raise Broken(where, "it holds something else than what was there before and was set")


def value_of(number: int) -> Document:
    """What the set of this number sets the key to."""
    return {"number": number, "text": f"set {number}"}
