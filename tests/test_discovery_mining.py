"""Examples of events, mined from source on both sides: the rules, the cache, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ksi_daemon.discovery import cache, core
from tests.discovery_trees import COUNTS, HANGS, appears, in_tree, lay, runs, searched, vanish
from tests.families import left, zombies
from tests.rooms import SIDES

EVENTS = ("app:started", "app:stopped", "app:none")


@pytest.fixture(params=SIDES)
def side(request):
    """Each side on its own tree."""
    return request.param


async def mined(made, *events):
    """What the side finds, as help shows it; of one event alone, or of each."""
    found = await made.backend.mine(events)
    shown = {event: [one.shown() for one in found[event]] for event in events}
    return shown if len(events) > 1 else shown[events[0]]


def emits(*data: str, event: str = "app:started", name: str = "emit_event") -> str:
    """A file with a call for each."""
    return "".join(f"{name}({event!r}, {one})\n" for one in data)


async def test_the_rules_of_the_contract(tmp_path, side):
    """Constants are kept, others left out of objects and null in lists; two at most, by path and line."""
    async with searched(tmp_path, side) as made:
        found = await mined(made, *EVENTS)

    assert found["app:started"] == [
        {
            "source": "./app/again.py",
            "type": "emit_event",
            "data": {"by": "again"},
            "description": "From again.py",
        },
        {
            "source": "./app/emits.py",
            "type": "emit_event",
            "data": {"status": "busy", "list": [1, None, None]},
            "description": "From emits.py",
        },
    ]
    assert [one["data"] for one in found["app:stopped"]] == [{"code": 0}, {"code": 0, "why": "done"}]
    assert [one["data"] for one in found["app:none"]] == [{"text": "grüße"}, {"var": 1}]


CALLS: dict[str, Any] = {
    'emit_event("e", {"a": 1})': {"a": 1},
    "emit_event('e', {'a': 1})": {"a": 1},
    'emit_event(\n\n  "e", {"a": 1})': {"a": 1},
    'bus.router.emit_event("e", {"a": 1})': {"a": 1},
    'x = await(emit_event("e", {"a": 1}))': {"a": 1},
    'emit_event("e", {"a": {"b": [1, x, {"c": y, "d": None}]}})': {"a": {"b": [1, None, {"d": None}]}},
    'emit_event("e", {"a": -1, "b": f"{x}", "c": (1,), "d": "s" + "t", "k": True})': {"k": True},
    'emit_event("e", {**more, 1: 2, x: 3, "a": 1.5})': {"a": 1.5},
    'emit_event("e", {"a": 1e999, "b": b"", "c": ..., "d": 1j, "k": 99999999999999999999})': {},
    'emit_event("e", {"a": "\\ud800", "b": "\\u2028"})': {"b": "\u2028"},
    'emit_event("e", {})': {},
    'emit_event("e", dict(a=1))': None,
    'emit_event("e", data={"a": 1})': None,
    'emit_event("e")': None,
    'emit_event(f"e", {"a": 1})': None,
    'emit_events("e", {"a": 1})': None,
    'emit_event("ee", {"a": 1})': None,
    '# emit_event("e", {"a": 1})': None,
    "emit_event(\n  'e', {\"a\": 1})": None,
    'emit_event( # why\n "e", {"a": 1})': None,
    'emit("e", {"a": 1})': None,
    'emit("e", {"a": 1})\n# emit_event("e"': {"a": 1},
    'emit_event("e", {"a": 1}': None,
    'emit_event("e", {"a": 1})\n\0': None,
    '# coding: latin-1\nemit_event("e", {"a": "é"})': {"a": "Ã©"},
    '# coding: nonsense\nemit_event("e", {"a": 1})': None,
    '\ufeffemit_event("e", {"a": 1})': {"a": 1},
    'emit_event("e", {"a": "\\d"})': {"a": "\\d"},
}
"""A call in a file → the example that it is, or None. A `'` after white space is in none of the patterns."""


async def test_each_way_to_emit(tmp_path, side):
    """As the contract says, whatever else is in the file; each in a tree where it is the only one."""
    names = {f"n{number}": call for number, call in enumerate(CALLS)}
    files = {
        f"{name}.py": call.replace('"e"', f'"{name}"').replace("'e'", f"'{name}'")
        for name, call in names.items()
    }
    async with searched(tmp_path, side, files) as made:
        found = await mined(made, *names)

    expected = {name: CALLS[call] for name, call in names.items()}
    assert {name: rows[0]["data"] if rows else None for name, rows in found.items()} == expected


async def test_equal_data_is_shown_once(tmp_path, side):
    """Whatever the order of its keys, and in whichever file; of different ones the first two."""
    files = {
        "b.py": emits("{'x': 3}"),
        "a.py": emits("{'x': 1, 'y': 2}", "{'y': 2, 'x': 1}", "{'x': True, 'y': 2}", "{'x': 2}"),
    }
    async with searched(tmp_path, side, files) as made:
        found = await mined(made, "app:started")

    assert [json.dumps(one["data"]) for one in found] == ['{"x": 1, "y": 2}', '{"x": true, "y": 2}']


async def test_only_python_files_of_the_tree_are_read(tmp_path, side):
    """Not what is hidden or ignored, not through links, not what is too large."""
    outside = tmp_path / "outside"
    lay(tmp_path, {"outside/o.py": emits("{'o': 1}"), "src/a.py": emits("{'a': 1}")})
    (tmp_path / "src/link.py").symlink_to(outside / "o.py")
    (tmp_path / "src/linked").symlink_to(outside)
    files = {
        ".hidden/h.py": emits("{'h': 1}"),
        "gone/g.py": emits("{'g': 1}"),
        ".gitignore": "gone\n",
        "big.py": emits("{'big': 1}") + "#" * 5000,
        "text.txt": emits("{'text': 1}"),
        "deep/er/d.py": emits("{'d': 1}"),
    }
    async with searched(tmp_path, side, files, discovery_max_file_bytes=4000) as made:
        found = await mined(made, "app:started")

    assert [one["data"] for one in found] == [{"a": 1}, {"d": 1}]


async def test_the_roots_own_var_is_left_out(tmp_path, side):
    """Where the tree is the root, as it is by default; any other `var` is like everything else."""
    lay(tmp_path, {"var/v.py": emits("{'v': 1}"), "src/var/w.py": emits("{'w': 1}")})
    async with searched(tmp_path, side, {}, discovery_tree=".") as made:
        found = await mined(made, "app:started")

    assert [one["data"] for one in found] == [{"w": 1}]


async def test_names_are_text_in_patterns(tmp_path, side):
    """An event whose name would mean something in a pattern, of rg's or of Python's, is found alone."""
    names = ["a.b:c", "a+:(x)", "[ab]:c", "é:ß", "x|y", "a:$^", "#:-", "a b:~&"]
    files = {f"f{number}.py": emits(f"{{'n': {number}}}", event=name) for number, name in enumerate(names)}
    files["other.py"] = emits("{}", event="axb:c")
    async with searched(tmp_path, side, files) as made:
        found = await mined(made, *names)

    assert [[one["data"] for one in found[name]] for name in names] == [[{"n": n}] for n in range(len(names))]


async def test_names_that_no_literal_shows_have_no_examples(tmp_path, side):
    """Quotes, backslashes, control characters: rg is not even asked."""
    names = ('a"b', "a'b", "a\\b", "a\nb", "", "x" * 201, "\ud800")
    async with searched(tmp_path, side, {"a.py": "x"}, COUNTS) as made:
        assert await made.backend.mine(names) == dict.fromkeys(names, ())
        assert runs(tmp_path) == 0
        await mined(made, "app:none")


words = st.sampled_from(("a", "b"))
values = st.recursive(
    st.sampled_from(("1", "1.5", "'s'", "None", "True", "x", "-1", "f()", "2 ** 3")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(words, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key!r}: {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
objects = st.lists(st.tuples(words, values), max_size=3).map(
    lambda pairs: "{" + ", ".join(f"{key!r}: {value}" for key, value in pairs) + "}"
)
calls = st.builds(
    "{}({}{}, {})".format,
    st.sampled_from(("emit_event", "emit", "self.emit_event", "emit_events")),
    st.sampled_from(("", " ", "\n  ")),
    st.sampled_from(("'e:1'", '"e:1"', '"e:2"', "'e:12'", "name")),
    st.one_of(objects, values),
)
noise = st.sampled_from(("x = 1", "def f(:", "# emit_event('e:1', {})", "'emit_event(\"e:2\"'", "\x1c", ""))
trees = st.dictionaries(
    st.sampled_from(
        [f"{folder}{name}" for folder in ("", "b/", "c/d/") for name in ("a.py", "e.py", "f.txt")]
    ),
    st.lists(st.one_of(calls, calls, noise), max_size=5).map("\n".join),
    max_size=9,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tree=trees)
@example(tree={"a.py": "emit_event('e:1', {'a': x})\nemit('e:1', {'a': [x, 1]})"})
def test_both_sides_find_the_same(tmp_path_factory, tree):
    """In any tree."""

    async def found(side: str) -> Any:
        async with searched(tmp_path_factory.mktemp("t"), side, tree, settled=False) as made:
            return await mined(made, "e:1", "e:2", "e:12")

    first, *others = [asyncio.run(found(side)) for side in SIDES]
    assert all(one == first for one in others)


async def test_what_is_known_needs_no_program_and_no_file(tmp_path, side):
    """Until the next look at the tree: then the change is noticed."""
    async with searched(tmp_path, side, program=COUNTS, discovery_fresh=30.0) as made:
        first = await made.send("system:help", event="app:started")
        once = runs(tmp_path)
        vanish(tmp_path)

        assert await made.send("system:help", event="app:started") == first
        assert runs(tmp_path) == once == (3 if side == "sync" else 1)


CHANGES = {
    "a new file": lambda src: (src / "app/aaa.py").write_text(emits("{'new': 1}")),
    "a longer file": lambda src: (src / "app/again.py").write_text(emits("{'new': 1}") * 2),
    "the same size": lambda src: (src / "app/again.py").write_text(
        (src / "app/again.py").read_text().replace("again", "AGAIN")
    ),
    "size and time as before": lambda src: _in_disguise(src / "app/again.py"),
    "another file in its place": lambda src: os.replace(src / "app/emits.py", src / "app/again.py"),
    "a file less": lambda src: (src / "app/again.py").unlink(),
    "an ignore file": lambda src: (src / ".ignore").write_text("again.py\n"),
}


@pytest.mark.usefixtures("eager")
async def test_what_is_no_python_costs_no_examples(tmp_path, side):
    """A log that grows in the tree makes searches begin anew, and nothing be mined again."""
    async with searched(tmp_path, side, program=COUNTS, discovery_fresh=0.01) as made:
        before = await mined(made, "app:started")
        await made.send("discovery:search", pattern="needle")
        known = runs(tmp_path)
        with made.overlooked():
            lay(tmp_path, in_tree({"grows.log": "needle\n"}))
        await asyncio.sleep(0.15)

        assert await mined(made, "app:started") == before
        assert runs(tmp_path) == known
        found = await made.send("discovery:search", pattern="needle")
        assert "grows.log" in [match["path"] for match in found["matches"]]
        assert runs(tmp_path) == known + 1


def _in_disguise(path):
    known = path.stat()
    path.write_text(path.read_text().replace("again", "AGAIN"))
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


@pytest.fixture
def eager(monkeypatch):
    """Looks as often as asked for, however long one takes on a busy machine."""
    monkeypatch.setattr(cache, "SHARE", 0)


@pytest.mark.usefixtures("eager")
async def test_every_change_is_noticed(tmp_path, side):
    """At the next look, here a hundredth of a second later; without one nothing is run again."""
    async with searched(tmp_path, side, program=COUNTS, discovery_fresh=0.01) as made:
        for what, change in CHANGES.items():
            before = await mined(made, "app:started")
            known = runs(tmp_path)
            await asyncio.sleep(0.02)
            assert await mined(made, "app:started") == before
            assert runs(tmp_path) == known, what

            with made.overlooked():
                change(tmp_path / "src")
                lay(tmp_path, in_tree({"touch.txt": what}))
            await asyncio.sleep(0.15)
            assert await mined(made, "app:started") != before, what
            with made.overlooked():
                (tmp_path / "src/.ignore").unlink(missing_ok=True)
                (tmp_path / "src/app/aaa.py").unlink(missing_ok=True)
                lay(tmp_path, {"src/app/again.py": emits("{'by': 'again'}"), "src/app/emits.py": emits("{}")})
            await asyncio.sleep(0.15)


@pytest.mark.usefixtures("eager")
async def test_a_change_that_hides_behind_another_is_noticed(tmp_path, side):
    """What was changed just before the look may change again in the same tick of the clock."""
    async with searched(tmp_path, side, discovery_fresh=0.01, settled=False) as made:
        with made.overlooked():
            lay(tmp_path, in_tree({"a.py": emits("{'n': 1}")}))
        first = await mined(made, "app:started")
        with made.overlooked():
            _same_stat(tmp_path / "src/a.py", emits("{'n': 2}"))
        await asyncio.sleep(0.02)

        assert first[0]["data"] == {"n": 1}
        assert (await mined(made, "app:started"))[0]["data"] == {"n": 2}


def _same_stat(path, text):
    known = path.stat()
    path.write_text(text)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


async def test_a_stampede_mines_once(tmp_path, side):
    """Twenty details and twenty helps at once: each event is looked for once."""
    async with searched(tmp_path, side, program=COUNTS, discovery_fresh=30.0) as made:
        details = [made.send("system:discover", detail=True) for _ in range(20)]
        found = await asyncio.gather(*details)
        helps = await asyncio.gather(*(made.send("system:help", event="app:none") for _ in range(20)))

    assert all(one == found[0] for one in found)
    assert all(one == helps[0] for one in helps)
    assert runs(tmp_path) == (3 * 11 if side == "sync" else 1)


async def test_details_fill_the_cache_and_show_no_examples(tmp_path, side):
    """Examples are in help alone, which then looks for nothing."""
    async with searched(tmp_path, side, program=COUNTS, discovery_fresh=30.0) as made:
        shown = await made.send("system:discover", detail=True, event="app:started", format_style="compact")
        known = runs(tmp_path)
        found = await made.send("system:help", event="app:started")

    assert list(shown["events"]) == ["app:started"]
    assert "examples" not in json.dumps(shown)
    assert found["examples"][0]["data"] == {"by": "again"}
    assert runs(tmp_path) == known > 0


FAILS = {
    "missing": None,
    "exits 2 at once": "#!/bin/sh\necho 'rg: something' >&2\nexit 2\n",
    "exits 77": "#!/bin/sh\nexit 77\n",
    "is killed": "#!/bin/sh\nkill -9 $$\n",
    "says no summary": "#!/bin/sh\nexit 0\n",
    "is no program": "\x7fELF",
    "never ends": HANGS,
    "floods": "#!/bin/sh\nexec cat /dev/zero\n",
}


@pytest.mark.parametrize("how", FAILS)
async def test_whatever_is_wrong_with_rg_costs_examples_and_no_reply(tmp_path, side, how):
    """Help and details are answered as if nothing could be found; nothing of it is remembered."""
    program = FAILS[how]
    if how == "floods" and side == "sync":
        program = "#!/bin/sh\nexec head -c 20000000 /dev/zero\n"  # it is measured when it is over
    async with searched(
        tmp_path, side, program=program, discovery_timeout=0.3, discovery_rg="bin/rg"
    ) as made:
        found = await made.send("system:help", event="app:started")
        shown = await made.send("system:discover", event="app:started")
        with made.overlooked():
            lay(tmp_path, {}, COUNTS)
        mended = await made.send("system:help", event="app:started")

    assert found["examples"] == [found["usage"]]
    assert shown["total"] == 1
    assert mended["examples"][0]["data"] == {"by": "again"}
    assert left(tmp_path) == []


async def test_a_missing_tree_costs_examples_and_no_reply(tmp_path, side):
    """It may come later."""
    async with searched(tmp_path, side, discovery_tree="later") as made:
        found = await made.send("system:help", event="app:started")
        details = await made.send("system:discover", detail=True, event="app:started")
        with made.overlooked():
            lay(tmp_path, {"later/a.py": emits("{'late': 1}")})
        late = await made.send("system:help", event="app:started")

    assert found["examples"] == [found["usage"]]
    assert details["total"] == 1
    assert late["examples"][0]["data"] == {"late": 1}


async def test_what_could_be_read_is_used_and_not_remembered(tmp_path, side):
    """Exit code 2 with matches: a part, so it is looked for again."""
    program = COUNTS.replace("exec ", "").rstrip() + "\nexit 2\n"
    async with searched(tmp_path, side, program=program, discovery_fresh=30.0) as made:
        found = await mined(made, "app:started")
        once = runs(tmp_path)
        again = await mined(made, "app:started")

    assert found[0]["data"] == {"by": "again"}
    assert again == found
    assert runs(tmp_path) == 2 * once


async def test_a_tree_that_takes_too_long_to_look_at_is_given_up(tmp_path, side):
    """The reply comes all the same."""
    async with searched(tmp_path, side, discovery_timeout=1e-9) as made:
        found = await made.send("system:help", event="app:started")
        refused = await made.send("discovery:search", pattern="needle")

    assert found["examples"] == [found["usage"]]
    assert refused["code"] == "search_failed"
    assert "KSI_DISCOVERY_TREE" in refused["error"]


@asynccontextmanager
async def hanging(root):
    """A room at async whose rg hangs, and a detailed discovery that waits for it."""
    async with searched(root, "async", program=HANGS) as made:
        task = asyncio.create_task(made.send("system:discover", detail=True))
        await appears(root / "bin/pid")
        yield made, task


async def test_mining_ends_with_the_last_who_wants_it(tmp_path):
    """One of two leaves: it goes on. The other one, too: rg is gone when that has its answer."""
    async with hanging(tmp_path) as (made, task):
        second = asyncio.create_task(made.send("system:discover", detail=True))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        pid = int((tmp_path / "bin/pid").read_text())
        assert os.path.exists(f"/proc/{pid}")

        second.cancel()
        await asyncio.wait([second])
        assert not os.path.exists(f"/proc/{pid}")
        with made.overlooked():
            assert zombies() == []


async def test_a_close_kills_what_mines(tmp_path):
    """The request is answered without examples."""
    async with hanging(tmp_path) as (made, task):
        await made.backend.close()

        assert (await task)["total"] == 11
        assert made.backend.pending() is None
        await made.backend.open()


def test_many_events_are_asked_for_in_few_runs():
    """No argument is longer than the kernel takes."""
    events = [f"namespace:{'x' * 150}{number}" for number in range(1000)]
    patterns = list(core.patterns_of_all(events))

    assert 1 < len(patterns) < 10
    assert max(len(pattern.encode()) for pattern in patterns) < 131_072
    assert list(core.patterns_of_all(())) == []
