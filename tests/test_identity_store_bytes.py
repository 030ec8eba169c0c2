"""The bytes of the identity file: those of `json.dump(…, indent=2)`, on both sides, whatever is in it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from ksi_daemon.agent import aio, core
from ksi_daemon.agent.store import decode_politely
from ksi_daemon.errors import IoFailed, Unserialisable
from tests.identity_sides import beside, made, many, opened, outcome, planted, site_of, stored
from tests.rooms import SIDES

TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
"""With control characters, DEL, lone surrogates and all planes."""

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.integers(-(10**40), 10**40)
JSON = st.recursive(PLAIN, lambda one: st.lists(one, max_size=4) | st.dictionaries(TEXT, one, max_size=4))


def nested(depth):
    """Lists in lists."""
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


@given(TEXT, JSON)
@example("\x7f", {"\x7f": "\x7f", "é": ["\ud800", "\U0001f600", '\x00\x1f\b\f\n\r\t/\\"<>&\u2028']})
@example("a", [2**63, 2**63 - 1, -(2**63), -(2**63) - 1, -0.0, 1e22, 1e-7, float("inf"), [], {}, [{}], ""])
@example("a", {"plain": "x", "list": [], "dict": {}, "deep": {"list": [[], {}], "true": True, "null": None}})
@example("a", nested(255))
@example("a", {1: 2})
def test_an_entry_is_what_the_standard_encoder_writes(agent, value):
    """Floats, long integers, Unicode, control characters, DEL, lone surrogates, empties, depth."""
    assert b"{\n%b\n}" % core.entry(agent, value) == stored({agent: value})


@pytest.mark.parametrize(
    "value", [{1, 2}, nested(5_000), 10**5_000, b"bytes"], ids=["set", "deep", "long", "bytes"]
)
def test_a_value_that_json_cannot_carry(value):
    """unserialisable, and not an error that nobody expects."""
    with pytest.raises(Unserialisable, match="cannot be written as JSON"):
        core.entry("a", {"value": value})


@given(st.dictionaries(TEXT, JSON, max_size=12), st.integers(1, 200))
def test_our_own_layout_in_pieces(identities, piece):
    """Whatever the size of a piece: all members in their order, or, for a strange one, a `ValueError`."""
    data = stored(identities)
    with patch.object(core, "PIECE", piece):
        found = in_pieces(data)

    assert found is None or repr(found) == repr(json.loads(data))


def in_pieces(data):
    """What `decode_in_pieces` gives, None for a `ValueError`."""
    found = {}
    try:
        for part in core.decode_in_pieces(data):
            found.update(part)
    except ValueError:
        return None
    return found


def whole(data):
    """What `json.loads` gives, None for a `ValueError`."""
    try:
        return json.loads(data.decode())
    except ValueError:
        return None


def test_our_own_layout_is_read_in_pieces_indeed():
    """Many pieces, none of them the whole."""
    parts = list(core.decode_in_pieces(stored(many(2_000, 100))))

    assert {agent: one for part in parts for agent, one in part.items()} == many(2_000, 100)
    assert len(parts) > 4


SMALL = b'{\n  "a": {\n    "n": 1\n  },\n  "b": [\n    "\\u00e9",\n    {}\n  ],\n  "a": "\xc3\xa9"\n}'

LAYOUTS = [
    SMALL,
    b"{}",
    b"{\n}",
    b"{\n\n}",
    b'{\n  "a": 1,\n}',
    b'{\n  "a": 1,,\n  "b": 2\n}',
    b'{\n  ,\n  "a": 1\n}',
    b'{\n        ,\n  "a": 1\n}',
    b'{\n  "a": 1\n  "b": 2\n}',
    b'{\n  "a": 1, \n  "b": 2\n}',
    b'{\n  "a": {\n  "b": 1,\n  "c": 2\n}\n}',
    b'{\n  "a": {\n  "b": 1},\n  "c": {"d":\n  "e"}\n}',
    b'{\n  "a": 1}, {\n  "b": 2\n}',
    b'{\n  "a": [\n  "b",\n  "c"\n]\n}',
    b'{\n"a":1,"b":2\n}',
    b'{"a":1,"b":2}',
    b'{\n  "a": 1\n}\n',
    b'\xef\xbb\xbf{\n  "a": 1\n}',
    b'{\n  "a": "\xff",\n  "b": 1\n}',
]


@pytest.mark.parametrize("data", LAYOUTS)
@pytest.mark.parametrize("piece", [1, 6, 10, 64 * 1024])
def test_any_layout_is_read_right_or_not_at_all(data, piece, monkeypatch):
    """Hand-edited, compact, doubled keys, too many commas: what `json.loads` gives, or a `ValueError`."""
    monkeypatch.setattr(core, "PIECE", piece)

    assert in_pieces(data) in (None, whole(data))


@pytest.mark.parametrize("piece", [1, 10])
def test_a_file_cut_short_anywhere(piece, monkeypatch):
    """At no byte does a part pass for the whole."""
    monkeypatch.setattr(core, "PIECE", piece)

    for end in range(len(SMALL)):
        for tail in (b"", b"\n}"):
            data = SMALL[:end] + tail
            assert in_pieces(data) in (None, whole(data)), data


@given(
    st.lists(
        st.sampled_from([b"{", b"}", b"[", b"]", b",", b":", b'"a"', b'"b"', b"1", b"\n", b"  ", b'\n  "c"'])
    )
)
@effort(max_examples=300)
def test_any_mess_is_read_right_or_not_at_all(tokens):
    """Tokens at random between the brackets of our layout."""
    data = b"{\n" + b"".join(tokens) + b"\n}"
    with patch.object(core, "PIECE", 1):
        assert in_pieces(data) in (None, whole(data))


@pytest.mark.parametrize("data", [b"[1]", b"null", b"", b'{"a": 1', b"[" * 200_000])
def test_the_polite_decoder_refuses_what_the_plain_one_refuses(data):
    """No object, nothing, half of one, too deep a one."""
    for decode in (core.decode, decode_politely):
        with pytest.raises((ValueError, RecursionError)):
            decode(data)


# the view


KEYS = st.sampled_from("abcde")


@given(st.dictionaries(KEYS, st.integers()), st.dictionaries(KEYS, st.none() | st.integers()))
def test_a_view_is_a_dict_with_changes(saved, changes):
    """Order, length, members, copy and words are those of a dict in which the changes were made."""
    wanted = dict(saved)
    for agent, value in changes.items():
        core.apply(wanted, agent, value)
    view = core.View(saved, changes)

    assert list(view.items()) == list(wanted.items())
    assert (len(view), repr(view), list(view.copy())) == (len(wanted), repr(wanted), list(wanted))
    assert core.whole(view) == wanted == core.whole(wanted)
    assert [agent in view for agent in "abcdef"] == [agent in wanted for agent in "abcdef"]


def test_a_stored_null_is_a_member_of_the_view():
    """Only a change to None removes; what somebody has written by hand stays."""
    view = core.View({"a": None, "b": 1}, {"b": None})

    assert (view["a"], list(view), "b" in view) == (None, ["a"], False)


# sequences of changes

CHANGES = st.lists(
    st.tuples(st.sampled_from(["a", "é", "\x7f", "d"]), st.none() | st.dictionaries(TEXT, JSON, max_size=2)),
    max_size=8,
)


@given(CHANGES, st.booleans())
@effort(max_examples=40)
def test_both_sides_write_the_bytes_of_the_reference(changes, begun):
    """After each change, also on a file that was there, and what is loaded again is what was saved."""
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(compare(Path(root), changes, {"old": {"n": 1}, "d": []} if begun else None))


async def compare(root, changes, begin):
    """Make the changes on every side."""
    for side in SIDES:
        site, wanted = site_of(root / side), dict(begin or {})
        if begin is not None:
            planted(site, stored(begin))
        async with opened(side, site) as store:
            assert await store.load() == wanted
            for agent, value in changes:
                core.apply(wanted, agent, value)
                await store.save(wanted, [agent])
                assert site.settings.identity_storage_path.read_bytes() == stored(wanted)
        async with opened(side, site) as store:
            assert repr(await store.load()) == repr(wanted)


@pytest.mark.parametrize("side", SIDES)
async def test_one_save_with_many_changes(tmp_path, side):
    """As a restore makes it: some stay, many go, many come."""
    site, before = site_of(tmp_path), many(300)
    after = {
        **{f"agent-{n}": before[f"agent-{n}"] for n in range(0, 300, 7)},
        **{f"new-{n}": n for n in range(200)},
    }
    async with opened(side, site) as store:
        await store.save(before, list(before))
        await store.save(after, [*before, *after])

    assert site.settings.identity_storage_path.read_bytes() == stored(after)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_save_that_cannot_be_encoded(tmp_path, side, fresh):
    """unserialisable; the file is as it was, nothing is left beside it, and the next save works."""
    site = site_of(tmp_path)
    planted(site, stored({"a": 1}))
    async with opened(side, site) as store:
        if not fresh:
            await store.save({"a": 1}, ["a"])
        with pytest.raises(Unserialisable):
            await store.save({"a": 1, "b": {1, 2}}, ["b"])
        kept = site.settings.identity_storage_path.read_bytes()
        await store.save({"a": 1, "c": 2}, ["c"])

    assert (kept, beside(site)) == (stored({"a": 1}), ["identities.json"])
    assert site.settings.identity_storage_path.read_bytes() == stored({"a": 1, "c": 2})


# files that cannot be understood, and files that cannot be read

BROKEN = {
    "empty": b"",
    "null": b"null",
    "array": b"[]",
    "latin": b'{"a": "\xe9"}',
    "bom": b"\xef\xbb\xbf{}",
    "half": stored(many(3))[:-20],
    "deep": b"[" * 200_000,
    "deep below a name": b'{\n  "a": ' + b"[" * 200_000 + b"\n}",
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_a_broken_file_is_set_aside(tmp_path, side, data):
    """Renamed, with the time, its bytes untouched; there are no identities, and saves work."""
    site = site_of(tmp_path)
    path = planted(site, data)
    async with opened(side, site) as store:
        assert await store.load() == {}
        assert beside(site) == ["identities.json.corrupt-20250712T170640Z"]
        await store.save({"a": 1}, ["a"])

    assert path.with_name("identities.json.corrupt-20250712T170640Z").read_bytes() == data
    assert path.read_bytes() == stored({"a": 1})


@pytest.mark.parametrize("side", SIDES)
async def test_broken_files_of_one_second(tmp_path, side):
    """Each gets a name of its own; none is written over another, nor over a link that leads nowhere."""
    site = site_of(tmp_path)
    path = planted(site, b"")
    path.with_name("identities.json.corrupt-20250712T170640Z").symlink_to("nowhere")
    async with opened(side, site) as store:
        for data in (b"one", b"two", b"three"):
            path.write_bytes(data)
            assert await store.load() == {}

    found = [path.with_name(f"identities.json.corrupt-20250712T170640Z-{n}").read_bytes() for n in (1, 2, 3)]
    assert found == [b"one", b"two", b"three"]
    assert len(beside(site)) == 4


@pytest.mark.parametrize("side", SIDES)
async def test_a_missing_file_has_none(tmp_path, side):
    """{}, and nothing is made before the first save; its directories are private then."""
    site = site_of(tmp_path)
    folder = site.settings.identity_storage_path.parent
    async with opened(side, site) as store:
        assert (await store.load(), folder.exists()) == ({}, False)
        await store.save({}, [])

    assert site.settings.identity_storage_path.read_bytes() == b"{}"
    modes = [one.stat().st_mode & 0o7777 for one in (folder, site.settings.identity_storage_path)]
    assert modes == [0o700, 0o600]


@pytest.mark.parametrize("side", SIDES)
async def test_a_broken_file_that_cannot_be_set_aside(tmp_path, side, monkeypatch):
    """io_error, and it stays where it is."""
    site = site_of(tmp_path)
    path = planted(site, b"broken")

    def refuse(*_):
        raise OSError(13, "Permission denied")

    async with opened(side, site) as store:
        with monkeypatch.context() as patched:
            patched.setattr("os.rename", refuse)
            with pytest.raises(IoFailed, match=r"set aside .*EACCES"):
                await store.load()

    assert path.read_bytes() == b"broken"


@pytest.mark.parametrize("side", SIDES)
async def test_a_read_that_woke_too_late_sets_nothing_aside(tmp_path, side):
    """The broken file that it read was replaced meanwhile: the good one stays in its place."""
    site = site_of(tmp_path)
    path = planted(site, b"broken")

    def slow(data):
        path.unlink()
        planted(site, b"good")
        raise ValueError(data)

    async with opened(side, site) as store:
        patched = patch.object(core, "decode", slow)
        with patched:
            await outcome(store.load())

    assert (path.read_bytes(), beside(site)) == (b"good", ["identities.json"])


async def test_the_async_side_yields_while_it_encodes(tmp_path, monkeypatch):
    """Others run between two slices of the first save, and what they change meanwhile comes on top."""
    monkeypatch.setattr(aio, "SLICE_S", 0.0)
    site, wanted = site_of(tmp_path), many(50)
    async with opened("async", site) as store:
        first = asyncio.ensure_future(store.save(dict(wanted), list(wanted)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for agent, value in (("agent-3", None), ("agent-3", 3), ("agent-5", 5), ("new", 1)):
            core.apply(wanted, agent, value)
            await asyncio.sleep(0)
            assert not first.done()
            later = asyncio.ensure_future(store.save(dict(wanted), [agent]))
        await asyncio.gather(first, later)

    assert site.settings.identity_storage_path.read_bytes() == stored(wanted)


@pytest.mark.parametrize("side", SIDES)
async def test_a_store_can_be_opened_again(tmp_path, side):
    """As after a flip and back, on the same object, while the other one has changed the file."""
    site = site_of(tmp_path)
    store = made(side, site)
    for number in range(3):
        await store.open()
        planted(site, stored({"other": number}))
        held = await store.load()
        await store.save({**held, "mine": number}, ["mine"])
        await store.close()

    assert site.settings.identity_storage_path.read_bytes() == stored({"other": 2, "mine": 2})


@pytest.mark.parametrize("broken", [False, True])
async def test_many_callers_are_told_over_some_turns_of_the_loop(tmp_path, broken):
    """A row at a time, in the order of their calls, so that others get theirs; also when the write fails."""
    site, told, seen = site_of(tmp_path), [], set()

    async def save(store, number):
        told.append((number, await outcome(store.save({"a": {"n": number}}, ["a"]))))

    async with opened("async", site) as store:
        if broken:
            site.settings.identity_storage_path.mkdir(parents=True)
        tasks = [asyncio.create_task(save(store, number)) for number in range(3 * aio.ROW)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            seen.add(len(told))

    expected = IoFailed if broken else None
    assert told == [(number, expected) for number in range(3 * aio.ROW)]
    assert {aio.ROW, 2 * aio.ROW} <= seen
