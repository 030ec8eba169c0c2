"""The steps with which discovery is tried on either side: a small source tree, described and searched."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from ksi_daemon.exercise import Case, Exercise, Step
from ksi_daemon.router import Event, Param

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ksi_daemon.router import Client, Data

_PROGRAM = "bin/rg"
"""The real one by another name, so that it can be taken away."""

SOURCES: Mapping[str, bytes] = {
    "app/emits.py": b'''"""Emits in every way."""
import asyncio

NAME = "plain"


async def run(self, name, value):
    await self.emit_event("app:started", {"status": "busy", "by": name, "list": [1, name, None]})
    await emit_event('app:started', {"status": "busy", "by": "x"})
    await emit_event(
        "app:started", {"deep": {"kept": 1.5, "gone": value}, **value, "neg": -1, name: 1, "t": True}
    )
    await emit("app:stopped", {"code": 0})
    await emit_event("app:stopped", {"code": 0, "why": "done"}, extra=1)
    await emit_event("app:none", value)
    await emit_event("app:none")
    print("needle: app:started")
''',
    "app/again.py": b'def go():\n    emit_event("app:started", {"by": "again"})\n    # needle here\n',
    "app/broken.py": b'emit_event("app:started", {"broken": 1}\n# needle in a broken file\n',
    "app/latin.py": b'# -*- coding: latin-1 -*-\nemit_event("app:none", {"text": "gr\xfc\xdfe"})  # needle\n',
    "app/notes.txt": b'emit_event("app:stopped", {"text": 1})\nneedle\nNEEDLE\nlast line: needle',
    "app/long.txt": b"x" * 3000 + b"needle" + b"y" * 3000 + b"\n",
    "app/bytes.bin": b"needle \xff\xfe not UTF-8\n",
    "app/nul.bin": b"needle\x00\n",
    "ignored/gone.py": b'emit_event("app:none", {"ignored": 1})  # needle\n',
    ".gitignore": b"ignored/\n",
    ".secret": b"needle in a hidden file\n",
    "var/kept.py": b'emit_event("app:none", {"var": 1})  # needle\n',
}
"""A tree in which every rule of mining has its place, and every needle."""


async def _answer(data: Data, _client: Client | None) -> Data:
    return data


def _neighbours() -> tuple[Event, ...]:
    params = (
        Param("name", "str", "who", required=True),
        Param("kind", "Literal['a', 'b']", "which", default="a", allowed_values=("a", "b")),
        Param("count", "int", "how many", default=1, min_value=1, max_value=9),
        Param("tags", "list[str]", "words", default=[]),
    )
    return (
        Event("app:started", _answer, "Tell of a start\nin two lines", params, ("app:none", "app:stopped")),
        Event("app:stopped", _answer, "Tell of an end"),
        Event("app:none", _answer, "", (Param("free", "Any", "anything"),)),
        Event("app:*", _answer, "Hear all of them"),
        Event("plain", _answer, "No namespace"),
        Event("app:started", _answer, "A second one"),
    )


def _discover(**data: Any) -> Step:
    return Step("system:discover", data)


def _help(event: Any, **data: Any) -> Step:
    return Step("system:help", {"event": event, **data})


def _search(pattern: Any = "needle", **data: Any) -> Step:
    return Step("discovery:search", {"pattern": pattern, "search_id": "s", **data})


_STYLES = ("verbose", "compact", "ultra_compact", "mcp", "other", 5)
_FILTERS: tuple[dict[str, Any], ...] = (
    {"namespace": "app"},
    {"namespace": "none"},
    {"event": "app:st*"},
    {"event": "*:no?e"},
    {"module": "ksi_daemon.discovery.listing"},
    {"module": "searching"},
    {"module": "exercise", "namespace": "app", "event": "*ed"},
    {"event": "x" * 201},
    {"event": ["x"]},
    {"health": False},
)
_HOSTILE = (
    "--pre=./x",
    "-f/etc/passwd",
    "-e",
    "--",
    ".",
    "--hostname-bin=x",
    "$(touch owned)",
    "needle\0",
    "\ud800",
    "a" * 4096,
    "a" * 4097,
    "a" * 131_072,
    "(a+)+$",
    "(",
    "a{1000}{1000}{1000}",
    "needle\nNEEDLE",
    "\\",
    "[",
    "\u2028",
    "",
    None,
    5,
    ["needle"],
)

_CASES = (
    Case(
        "described in every style",
        (
            *(_discover(format_style=style) for style in _STYLES),
            *(_discover(format_style=style, detail=True) for style in _STYLES),
            *(_help(event, format_style=style) for style in _STYLES for event in ("app:started", "app:none")),
            *(_discover(**filters) for filters in _FILTERS),
            _discover(namespace="app", detail=True),
        ),
        SOURCES,
    ),
    Case(
        "modules, and what is refused",
        (
            Step("module:list"),
            Step("module:events"),
            Step("module:inspect", {"module_name": "ksi_daemon.discovery.listing"}),
            Step("module:inspect", {"module_name": "none"}),
            Step("module:inspect"),
            Step("module:inspect", {"module_name": 5}),
            Step("system:help"),
            _help("no:such"),
            _help(5),
        ),
    ),
    Case(
        "examples",
        (
            *(_help(event) for event in ("app:started", "app:stopped", "app:none", "app:*", "plain")),
            _help("system:help"),
            Step("@restart"),
            _help("app:started"),
        ),
        SOURCES,
    ),
    Case(
        "without rg",
        (
            _help("app:started"),
            _search(),
            Step("@block"),
            Step("@restart"),
            _help("app:started"),
            _discover(detail=True),
            _search(),
            _search(stream=True),
            Step("@unblock"),
            _help("app:started"),
            _search(),
            Step("@remove"),
            _help("app:stopped"),
            _search("another"),
        ),
        SOURCES,
    ),
    Case(
        "searches",
        (
            _search(),
            _search(ignore_case=True),
            _search(context=2),
            _search(context=20, max_count=2),
            _search(max_count=1),
            _search(max_count=3, stream=True),
            _search(stream=True, context=1),
            _search(max_bytes=60),
            _search(max_bytes=1),
            _search(glob="*.txt"),
            _search(glob="!*.py"),
            _search(glob="app/**"),
            _search(glob=".secret"),
            _search(glob="/var/**"),
            _search(glob="../*"),
            _search(glob="["),
            _search(r"ne+dle\b"),
            _search("gr.{2,4}e"),
            _search("app:started", fixed=True),
            _search("(", fixed=True),
            _search("nowhere at all"),
            Step("@restart"),
            _search(),
        ),
        SOURCES,
    ),
    Case(
        "hostile patterns",
        tuple(_search(pattern, fixed=fixed) for pattern in _HOSTILE for fixed in (False, True)),
        SOURCES,
    ),
    Case(
        "refused",
        (
            Step("discovery:search"),
            *(
                _search(**{name: value})
                for name, value in (
                    ("glob", 5),
                    ("glob", "x" * 257),
                    ("glob", "a\0b"),
                    ("fixed", "yes"),
                    ("ignore_case", 1),
                    ("stream", "no"),
                    ("context", -1),
                    ("context", 21),
                    ("context", "2"),
                    ("max_count", 0),
                    ("max_count", True),
                    ("max_count", 1_000_000),
                    ("max_bytes", 0),
                    ("max_bytes", 1_000_000_000),
                    ("search_id", "x" * 201),
                    ("search_id", 5),
                )
            ),
        ),
        SOURCES,
    ),
    Case("an empty tree", (_help("app:started"), _discover(detail=True), _search())),
)

EXERCISE = Exercise(
    files=(_PROGRAM,),
    cases=_CASES,
    writes=(_search("needle", context=1), _help("app:started")),
    neighbours=_neighbours,
    programs={_PROGRAM: f'#!/bin/sh\nPATH="{os.path.dirname(sys.executable)}:$PATH" exec rg "$@"\n'.encode()},
    settings={"discovery_rg": _PROGRAM, "discovery_fresh": 0.000_001},
)
