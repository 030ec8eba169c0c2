"""Questions, answers and the arguments of `rg`, as values. Pure, and shared by both sides."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from ksi_daemon import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MOST_EXAMPLES: Final = 2
"""Examples of one event (the KSI contract, 3.6)."""

MOST_FILES: Final = 200
"""Files of one event that are parsed: the first by path."""

MOST_OUTPUT: Final = 16 * 1024 * 1024
"""Bytes that one run may print; what is kept of them is far less."""

_ARGUMENT: Final = 60_000
"""Characters of one pattern; the kernel takes 131,071 bytes in one argument."""

_PYTHON: Final = ("--type-add=ksi:*.py", "--type=ksi")
_BASE: Final = (
    *("--no-config", "--json", "--no-ignore-messages", "--color=never", "--engine=default", "--no-follow"),
    *("--regex-size-limit=10M", "--dfa-size-limit=64M"),
    *("--no-ignore-parent", "--no-ignore-global", "--no-ignore-exclude", "--no-require-git"),
)
"""No configuration, no other engine, no link followed; of ignore files only those in the tree, git or not."""

_HIDDEN: Final = ("--glob=!.*", "--glob=!__pycache__")
"""Last among the globs, so that none before it can bring them back."""

_MINABLE: Final = re.compile(r"[^\x00-\x1f\x7f\"'\\\ud800-\udfff]{1,200}")


class Example(NamedTuple):
    """One call that emits an event: where it stands, and its data as JSON."""

    path: str
    line: int
    column: int
    data: bytes

    def shown(self) -> dict[str, Any]:
        """As `system:help` shows it (the KSI contract, 3.6)."""
        name = self.path.rpartition("/")[2]
        data = wire.decode(self.data)
        return {"source": self.path, "type": "emit_event", "data": data, "description": f"From {name}"}


class Match(NamedTuple):
    """One line that matches: `line` and `column` from 1, the lines around it without their ends."""

    path: str
    line: int
    column: int
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """One search: what a client asks for, within the limits."""

    pattern: str
    most_matches: int
    most_bytes: int
    fixed: bool = False
    ignore_case: bool = False
    glob: str = ""
    context: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found. `stopped` names the limit that ended it: matches, bytes or time; empty for none.

    `trouble` is what `rg` said when it could not read everything: then this is only a part.
    """

    matches: tuple[Match, ...] = ()
    stopped: str = ""
    trouble: str = ""
    size: int = field(default=0, compare=False)

    @property
    def whole(self) -> bool:
        """Whether the same search of the same tree would find just this again."""
        return self.stopped != "time" and not self.trouble


def minable(events: Iterable[str]) -> tuple[str, ...]:
    """Those that can stand in a string literal without an escape; no source is searched for others."""
    return tuple(event for event in dict.fromkeys(events) if _MINABLE.fullmatch(event))


def escaped(text: str) -> str:
    """A text as a pattern that matches it alone, in `rg`'s own syntax: any sign by its number."""
    plain = (char if char.isascii() and (char.isalnum() or char == "_") else None for char in text)
    return "".join(known or f"\\x{{{ord(char):x}}}" for known, char in zip(plain, text, strict=True))


def patterns_of(event: str) -> tuple[str, str, str]:
    """The three for which the original ran `rg` once each (the KSI contract, 3.6)."""
    name = escaped(event)
    return rf'emit_event\("{name}"', rf"emit_event\('{name}'", rf'emit_event\(\s*"{name}"'


def patterns_of_all(events: Sequence[str]) -> Iterator[str]:
    """The same for many events in one, or in as few as the kernel takes."""
    part: list[str] = []
    size = 0
    for name in map(escaped, events):
        if part and size + len(name) > _ARGUMENT // 2:
            yield _any_of(part)
            part, size = [], 0
        part.append(name)
        size += len(name) + 1
    if part:
        yield _any_of(part)


def _any_of(names: list[str]) -> str:
    either = "|".join(names)
    return rf"""emit_event\((?:\s*"(?:{either})"|'(?:{either})')"""


def argv_of_mining(pattern: str, most_file_bytes: int, left_out: str) -> tuple[str, ...]:
    """The arguments with which emitting files are found."""
    more = ("--multiline", f"--max-filesize={most_file_bytes}", *_PYTHON)
    return _argv(more, left_out, pattern)


def argv_of(query: Query, most_file_bytes: int, left_out: str) -> tuple[str, ...]:
    """The arguments of a search. `--sort` makes its order, and so what a limit leaves, always the same."""
    given = (
        (query.fixed, "--fixed-strings"),
        (query.ignore_case, "--ignore-case"),
        (query.context, f"--context={query.context}"),
        (query.glob, f"--glob={query.glob}"),
    )
    more = ("--sort=path", f"--max-filesize={most_file_bytes}", f"--max-count={query.most_matches + 1}")
    return _argv((*more, *(option for wanted, option in given if wanted)), left_out, query.pattern)


def _argv(more: tuple[str, ...], left_out: str, pattern: str) -> tuple[str, ...]:
    without = (f"--glob=!/{left_out}",) if left_out else ()
    return (*_BASE, *more, *without, *_HIDDEN, "-e", pattern, "--", ".")


def chosen(rows: Iterable[Example]) -> tuple[Example, ...]:
    """The first by path and line whose data no earlier one has, at most two."""
    found: dict[bytes, Example] = {}
    for row in sorted(rows):
        found.setdefault(_same(row.data), row)
        if len(found) == MOST_EXAMPLES:
            break
    return tuple(found.values())


def _same(data: bytes) -> bytes:
    """Equal for objects that differ only in the order of their keys."""
    return orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)


def tell(matches: Iterable[Match], told: Callable[[Match], None] | None) -> None:
    """Say all that is known already to who wants to hear it."""
    if told is not None:
        for match in matches:
            told(match)


def first_files(emitting: dict[str, set[str]]) -> dict[str, list[str]]:
    """Of each event the files that are parsed."""
    return {event: sorted(paths)[:MOST_FILES] for event, paths in emitting.items()}
