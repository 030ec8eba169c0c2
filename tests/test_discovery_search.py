"""`discovery:search` on both sides: what it finds, its limits, and what it does with hostile requests."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from ksi_daemon.discovery import cache, core
from tests.discovery_trees import COUNTS, HANGS, ONE, RG, lay, runs, searched, vanish
from tests.families import left
from tests.rooms import SIDES, Peer

PLAIN = {
    "a.txt": "one\ntwo needle\nthree\n",
    "b/c.py": "needle\nNeedle needle\n",
    "z.txt": "needle at the end",
}
FOUND = [("a.txt", 2), ("b/c.py", 1), ("b/c.py", 2), ("z.txt", 1)]


@pytest.fixture(params=SIDES)
def side(request):
    """Each side on its own tree."""
    return request.param


async def find(made, pattern: Any = "needle", *, peer=None, **data):
    """One search's reply."""
    return await made.send("discovery:search", peer, pattern=pattern, **data)


def places(reply):
    """Where its matches are."""
    return [(match["path"], match["line"]) for match in reply["matches"]]


async def test_a_reply_has_every_match_by_path_and_line(tmp_path, side):
    """With the whole line, the column in characters, and what the search is known by."""
    files = {**PLAIN, "a.txt": "one\r\nzwölf needle\r\n"}
    async with searched(tmp_path, side, files) as made:
        reply = await find(made, search_id="mine")
        named = await find(made, "twelve")

    assert reply == {
        "search_id": "mine",
        "matches": [
            {"path": "a.txt", "line": 2, "column": 7, "text": "zwölf needle"},
            {"path": "b/c.py", "line": 1, "column": 1, "text": "needle"},
            {"path": "b/c.py", "line": 2, "column": 8, "text": "Needle needle"},
            {"path": "z.txt", "line": 1, "column": 1, "text": "needle at the end"},
        ],
        "count": 4,
        "stopped": None,
        "partial": False,
    }
    assert (named["search_id"], named["matches"]) == ("00000001-0000-4000-8000-000000000000", [])


async def test_its_parameters(tmp_path, side):
    """Text or expression, case, glob; a null counts as absent."""
    async with searched(tmp_path, side, {**PLAIN, "d.txt": "n(e+dle\n"}) as made:
        asked: dict[str, dict[str, Any]] = {
            "expression": {"pattern": "^ne+dle$"},
            "text": {"pattern": "n(e+dle", "fixed": True},
            "case": {"pattern": "NEEDLE", "ignore_case": True},
            "glob": {"glob": "*.py"},
            "not": {"glob": "!*.txt"},
            "below": {"glob": "b/**"},
            "above": {"glob": "../**"},
            "null": {"glob": None, "context": None, "max_count": None, "fixed": None, "stream": None},
        }
        found = {words: places(await find(made, **data)) for words, data in asked.items()}

    assert found == {
        "expression": [("b/c.py", 1)],
        "text": [("d.txt", 1)],
        "case": FOUND,
        "glob": FOUND[1:3],
        "not": FOUND[1:3],
        "below": FOUND[1:3],
        "above": [],
        "null": FOUND,
    }


async def test_context_is_of_the_lines_around(tmp_path, side):
    """None of another file, none that matches itself; one between two matches is with both."""
    lines = ["0", "1", "needle 2", "3", "needle 4", "needle 5", "6", "7", "8", "needle 9"]
    async with searched(tmp_path, side, {"a": "\n".join(lines), "b": "x\nneedle\ny\n"}) as made:
        reply = await find(made, context=2)

    around = [(match["before"], match["after"]) for match in reply["matches"]]
    assert [(list(before), list(after)) for before, after in around] == [
        (["0", "1"], ["3"]),
        (["3"], ["6"]),
        (["3"], ["6", "7"]),
        (["7", "8"], []),
        (["x"], ["y"]),
    ]


async def test_long_lines_are_cut_around_the_match(tmp_path, side):
    """Five hundred characters of each, with a sign where something is missing."""
    line = "a" * 3000 + "needle" + "b" * 3000
    async with searched(tmp_path, side, {"a": f"{line}\n{'c' * 600}\n"}) as made:
        (match,) = (await find(made, context=1))["matches"]

    assert match["column"] == 3001
    assert match["text"] == f"…{'a' * 100}needle{'b' * 394}…"
    assert list(match["after"]) == [f"{'c' * 500}…"]


async def test_what_is_not_utf8_is_marked(tmp_path, side):
    """In a line as in a path; a file with NUL bytes is none to search."""
    async with searched(tmp_path, side, {"a": b"\xff needle\n", "b": b"needle \0\n"}) as made:
        with made.overlooked():
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/src/c\xff")).write_text("needle\n")
        reply = await find(made)

    assert [(match["path"], match["text"]) for match in reply["matches"]] == [
        ("a", "\ufffd needle"),
        ("c\ufffd", "needle"),
    ]


@pytest.mark.parametrize("context", [0, 1])
async def test_the_number_of_matches_is_limited(tmp_path, side, context):
    """The first so many, with their lines around; exactly as many is no limit reached."""
    files = {f"{number:02}": "before\nneedle\nafter\n" * 3 for number in range(20)}
    async with searched(tmp_path, side, files) as made:
        whole = await find(made, context=context)
        reply = await find(made, max_count=5, context=context)
        exact = await find(made, max_count=60, context=context)

    assert (reply["count"], reply["stopped"], exact["count"], exact["stopped"]) == (5, "matches", 60, None)
    assert reply["matches"] == whole["matches"][:5]


async def test_the_bytes_of_a_reply_are_limited(tmp_path, side):
    """A match counts with its path and its lines around, or it is left out with all that follow."""
    files = {f"{number:02}": f"needle {number:02}\n" for number in range(20)}
    async with searched(tmp_path, side, files) as made:
        replies = [await find(made, max_bytes=size) for size in (1, 10, 11, 109, 110, 220)]

    counts = [(reply["count"], reply["stopped"]) for reply in replies]
    assert counts == [(0, "bytes"), (0, "bytes"), (1, "bytes"), (9, "bytes"), (10, "bytes"), (20, None)]


async def test_the_settings_bound_what_can_be_asked_for(tmp_path, side, monkeypatch):
    """Help shows the limits; a request beyond them is refused, one without them gets no more."""
    monkeypatch.setattr(cache, "SHARE", 0)
    files = {"a": "needle\n" * 200, "b": "needle" + " " * 300}
    limits: dict[str, Any] = {"discovery_max_matches": 7, "discovery_max_bytes": 70, "discovery_fresh": 1e-6}
    limits["discovery_max_file_bytes"] = 290
    async with searched(tmp_path, side, files, **limits) as made:
        shown = (await made.send("system:help", event="discovery:search"))["parameters"]
        refused = [await find(made, max_count=8), await find(made, max_bytes=71)]
        none = await find(made)
        with made.overlooked():
            lay(tmp_path, {"src/a": "needle\n" * 30})
        reply = await find(made)

    assert [(shown[name]["default"], shown[name]["max_value"]) for name in ("max_count", "max_bytes")] == [
        (7, 7),
        (70, 70),
    ]
    assert [one["error"] for one in refused] == [
        "max_count must be a whole number from 1 to 7, not int",
        "max_bytes must be a whole number from 1 to 70, not int",
    ]
    assert none["matches"] == []
    assert (reply["count"], reply["stopped"]) == (7, "matches")


async def test_a_search_in_frames(tmp_path, side):
    """Each match in one, to this client alone, before a reply that has none."""
    async with searched(tmp_path, side, PLAIN) as made:
        peer, other = Peer(), Peer()
        plain = await find(made, peer=other, search_id="s")
        reply = await find(made, peer=peer, stream=True, search_id="s")
        nobody = await find(made, stream=True, search_id="s")

    assert other.frames == made.told == []
    assert peer.frames == [
        {"event": "discovery:match", "data": {"search_id": "s", **match}} for match in plain["matches"]
    ]
    assert reply == {"search_id": "s", "count": 4, "stopped": None, "partial": False}
    assert nobody == plain


HOSTILE = (
    "--pre=./x",
    "-f/etc/passwd",
    "--hostname-bin=x",
    "--",
    "-e",
    "--files",
    "$(touch owned)",
    "`touch owned`; touch owned | touch owned",
    "(a*)*(a*)*(a*)*b",
    "(x+x+)+y",
    "a" * 4096,
    "\u2028\x1b",
)
REFUSED = (
    "needle\0",
    "\ud800",
    "a" * 4097,
    "a" * 131_072,
    "(",
    "[",
    "a{1000}{1000}{1000}",
    "a\nb",
    "(?P<x",
    "\\",
)


async def test_hostile_patterns_are_text_or_refused(tmp_path, side, monkeypatch):
    """None is an option of rg, none runs anything, none takes long, none crashes anything."""
    monkeypatch.setenv("RIPGREP_CONFIG_PATH", str(tmp_path / "config"))
    lay(tmp_path, {"config": "--pre=./x\n--hidden\n", "src/x": "#!/bin/sh\ntouch owned\n", "src/rg": "no"})
    (tmp_path / "src/x").chmod(0o700)
    monkeypatch.chdir(tmp_path / "src")
    literal = "\n".join(pattern for pattern in HOSTILE[:8])
    async with searched(tmp_path, side, {"a": literal, "b": "a" * 5000, ".c": "needle"}) as made:
        with made.overlooked():
            os.chdir(tmp_path / "src")
        found = [await find(made, pattern, fixed=True, max_count=1000) for pattern in HOSTILE]
        plain = [await find(made, pattern) for pattern in HOSTILE]
        refused = [await find(made, pattern) for pattern in REFUSED]

    assert [len(reply["matches"]) for reply in found[:8]] == [1, 1, 1, 4, 1, 1, 1, 1]
    assert [reply for reply in (*found, *plain) if "matches" not in reply] == []
    assert {reply["code"] for reply in refused} == {"invalid_parameter"}
    assert list(tmp_path.rglob("owned")) == []


async def test_nothing_outside_the_tree_is_read(tmp_path, side):
    """Neither links, nor what is hidden, nor `var/`, whatever the glob."""
    lay(
        tmp_path, {"out/o": "needle", "var/v": "needle", ".env": "needle", ".git/c": "needle", "in": "needle"}
    )
    lay(tmp_path, {".gitignore": "gone\n", "gone": "needle", "__pycache__/p": "needle"})
    os.symlink(tmp_path / "out/o", tmp_path / "link")
    async with searched(tmp_path, side, {}, discovery_tree=".") as made:
        globs = (
            "",
            "*",
            "**",
            ".*",
            ".env",
            "/.git/**",
            "var/**",
            "/var/v",
            "link",
            "__pycache__/**",
            "gone",
        )
        found = {glob: places(await find(made, glob=glob)) for glob in globs}

    everything = [("gone", 1), ("in", 1), ("out/o", 1)]
    assert found.pop("") == everything[1:]
    assert (found.pop("*"), found.pop("**"), found.pop("gone")) == (everything, everything, everything[:1])
    assert set(map(len, found.values())) == {0}


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("pattern", None, "pattern required"),
        ("pattern", "", "pattern required"),
        ("pattern", ["needle"], "pattern must be a string, not list"),
        ("glob", 5, "glob must be a string, not int"),
        ("glob", "x" * 257, "glob must have at most 256 characters, not 257"),
        ("glob", "a\0b", "glob must not hold NUL or a lone surrogate"),
        ("glob", "[", "rg refuses the pattern or the glob: error parsing glob"),
        ("fixed", "yes", "fixed must be true or false, not str"),
        ("stream", 1, "stream must be true or false, not int"),
        ("context", 21, "context must be a whole number from 0 to 20, not int"),
        ("context", True, "context must be a whole number from 0 to 20, not bool"),
        ("max_count", 0, "max_count must be a whole number from 1 to 1000, not int"),
        ("max_bytes", 2**40, "max_bytes must be a whole number from 1 to 262144, not int"),
        ("search_id", "x" * 201, "search_id must have at most 200 characters, not 201"),
    ],
)
async def test_wrong_parameters_are_named(tmp_path, name, value, wanted):
    """With what they must be; nothing is searched then. One side: no other has a part in it."""
    async with searched(tmp_path, "async", PLAIN, settled=False) as made:
        reply = await find(made, **{"pattern": "needle", name: value})

    assert reply["error"].startswith(wanted)
    assert reply["code"] in {"invalid_parameter", "missing_parameter"}


def says(*lines: str, code: int = 0, error: str = "") -> str:
    """A program that prints that."""
    text = "\n".join(lines).replace("'", "'\\''")
    return f"#!/bin/sh\nprintf '%s\\n' '{text}'\n[ -z '{error}' ] || echo '{error}' >&2\nexit {code}\n"


SUMMARY = '{"type":"summary","data":{}}'
TROUBLE: dict[str, tuple[str, dict[str, Any]]] = {
    "a part": (
        says(ONE, SUMMARY, code=2, error="rg: ./b: Permission denied (os error 13)"),
        {"count": 1, "partial": True, "reason": "./b: Permission denied (os error 13)"},
    ),
    "a part, without a word": (
        says(ONE, SUMMARY, code=2),
        {"count": 1, "partial": True, "reason": "rg could not read everything"},
    ),
    "nothing, but for trouble": (says(SUMMARY, code=2), {"count": 0, "partial": True}),
    "no end": (says(ONE), {"code": "search_failed", "error": "rg ended with exit code 0: it said nothing"}),
    "a crash": ("#!/bin/sh\nkill -11 $$\n", {"code": "search_failed"}),
    "another code": (says(code=77, error="what?"), {"error": "rg ended with exit code 77: what?"}),
    "no such option": (says(code=2, error="unrecognized flag --x"), {"code": "search_failed"}),
    "no program": ("\x7fELF", {"code": "io_error", "errno": "ENOEXEC"}),
    "never ends": (HANGS, {"count": 1, "stopped": "time", "partial": False}),
}


@pytest.mark.parametrize("how", TROUBLE)
async def test_trouble_with_rg_is_told(tmp_path, side, how):
    """A part says so, with rg's own words; what is no result is an error; nothing of it is remembered."""
    program, expected = TROUBLE[how]
    async with searched(tmp_path, side, PLAIN, program=program, discovery_timeout=0.4) as made:
        reply = await find(made)
        with made.overlooked():
            lay(tmp_path, {}, COUNTS)
        mended = await find(made)

    assert expected.items() <= reply.items()
    assert places(mended) == FOUND
    assert left(tmp_path) == []


async def test_a_flood_is_cut(tmp_path, side, monkeypatch):
    """What was found until then is the result; async stops it while it runs."""
    monkeypatch.setattr(core, "MOST_OUTPUT", 100_000)
    endless = "exec yes" if side == "async" else "yes | head -n 60000"
    program = f"#!/bin/sh\nprintf '%s\\n' '{ONE}'\n{endless}\n"
    async with searched(tmp_path, side, PLAIN, program=program) as made:
        reply = await find(made)

    assert (reply["count"], reply["stopped"]) == (1, "bytes")


async def test_without_rg_the_error_says_where_it_is_looked_for(tmp_path, side):
    """And without a tree, which setting names it."""
    async with searched(tmp_path, side, discovery_rg="bin/rg") as made:
        missing = await find(made)
        with made.overlooked():
            lay(tmp_path, {}, COUNTS)
            os.rename(tmp_path / "src", tmp_path / "elsewhere")
        made.backend._cache.clear() if side == "async" else made.backend._side._cache.clear()
        gone = await find(made)

    assert missing["code"] == "program_missing"
    assert str(tmp_path / "bin/rg") in missing["error"]
    assert gone["code"] == "not_found"
    assert "KSI_DISCOVERY_TREE" in gone["error"]


async def test_what_is_known_is_not_looked_for_again(tmp_path, side):
    """The same question, until the tree changes; another one is another search."""
    async with searched(tmp_path, side, PLAIN, program=COUNTS, discovery_fresh=30.0) as made:
        first = await find(made, search_id="s", context=1)
        other = await find(made, search_id="s")
        vanish(tmp_path)
        streamed = Peer()

        assert await find(made, search_id="s", context=1) == first != other
        assert (await find(made, peer=streamed, stream=True, search_id="s"))["count"] == 4
        assert [frame["data"]["line"] for frame in streamed.frames] == [2, 1, 2, 1]
        assert runs(tmp_path) == 2


async def test_twenty_equal_searches_are_one(tmp_path, side):
    """Each gets all of it, also those in frames."""
    async with searched(tmp_path, side, PLAIN, program=COUNTS, discovery_fresh=30.0) as made:
        peers = [Peer() for _ in range(20)]
        streams = [number % 2 == 0 for number in range(20)]
        asked = (find(made, peer=peer, stream=stream) for peer, stream in zip(peers, streams, strict=True))
        replies = await asyncio.gather(*asked)

    assert [reply["count"] for reply in replies] == [4] * 20
    assert [len(peer.frames) for peer in peers] == [4, 0] * 10
    assert runs(tmp_path) == 1


async def test_the_real_rg_is_found_beside_the_interpreter(tmp_path, side, monkeypatch):
    """Else in an absolute entry of PATH; never in the working directory."""
    lay(tmp_path, {"rg": "#!/bin/sh\ntouch owned\n"})
    (tmp_path / "rg").chmod(0o700)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}bin{os.pathsep}/nowhere")
    monkeypatch.chdir(tmp_path)
    async with searched(tmp_path, side, PLAIN) as made:
        assert places(await find(made)) == FOUND

    assert os.path.isabs(RG)
    assert not (tmp_path / "owned").exists()
