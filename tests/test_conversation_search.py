"""Searching conversations on both sides: where, how much is shown, in what order, and who waits for it."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon.conversation import aio
from ksi_daemon.conversation.aio import AsyncConversations
from ksi_daemon.conversation.core import Wanted
from ksi_daemon.conversation.matching import Sieve, match, preview
from tests.line_client import daemon
from tests.rooms import SIDES, Peer
from tests.talks import answer, lay, said, talks


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room, its conversations listed already."""
    lay(
        tmp_path,
        a=[said("user", 0, "Needle"), said("claude", 1, None, result="no"), b"{broken needle", [1]],
        b=[said("human", n, f"needle {n}") for n in range(12)],
        c=[answer(0, "a NEEDLE of ours"), said("x", "no stamp", "needle too")],
        d=[said("user", 0, "nothing"), said("DIRECT_MESSAGE", 1, "you too", **{"from": "z"})],
    )
    async with talks(request.param, tmp_path) as made:
        await made.ask("list")
        yield made


def hits(found):
    """How often each conversation matches, in the order of the reply."""
    return [(one["session_id"], one["match_count"]) for one in found["results"]]


async def test_a_search_finds_with_the_default_places(room):
    """In any case of letters, in both formats; the most matches first, ten of a conversation at most."""
    found = await room.ask("search", query="NeeDLe")

    assert (found["query"], found["total_conversations"]) == ("needle", 3)
    assert hits(found) == [("b", 10), ("c", 2), ("a", 1)]
    (matched,) = found["results"][2]["matches"]
    assert matched == {
        "line_num": 0,
        "timestamp": "2025-07-12T10:00:00Z",
        "type": "user",
        "content_preview": "Needle",
        "sender": "You",
    }
    assert found["results"][2]["conversation_metadata"]["message_count"] == 2
    assert [one["line_num"] for one in found["results"][0]["matches"]] == list(range(10))
    assert [one["type"] for one in found["results"][1]["matches"]] == ["claude", "x"]


@pytest.mark.parametrize(
    ("places", "query", "expected"),
    [
        (["sender"], "you", [("b", 10), ("a", 1), ("d", 1)]),
        (["sender"], "claude", [("c", 2), ("a", 1), ("d", 1)]),
        (["content", "sender"], "you", [("b", 10), ("d", 2), ("a", 1)]),
        (["content"], "you", [("d", 1)]),
        ([], "needle", []),
        (["elsewhere"], "needle", []),
    ],
)
async def test_places_to_search_in(room, places, query, expected):
    """The sender is You, or for anything else Claude."""
    assert hits(await room.ask("search", query=query, search_in=places)) == expected


async def test_a_search_stops_at_its_limit(room):
    """The first conversations that match, in the order of their ids, then sorted."""
    assert hits(await room.ask("search", query="needle", limit=2)) == [("b", 10), ("a", 1)]
    assert hits(await room.ask("search", query="needle", limit=0)) == []


async def test_logs_that_are_gone_match_nothing(room):
    """Removed, or replaced by something else, since the listing."""
    folder = room.root / "var/logs/responses"
    (folder / "a.jsonl").unlink()
    (folder / "c.jsonl").unlink()
    (folder / "c.jsonl").mkdir()

    assert hits(await room.ask("search", query="needle")) == [("b", 10)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 0, "needle"),
        (97, 97, "x" * 97 + "needle" + "y" * 97),
        (0, 195, "needle" + "y" * 194 + "..."),
        (50, 145, "x" * 50 + "needle" + "y" * 144 + "..."),
        (51, 144, "..." + "x" * 50 + "needle" + "y" * 144 + "..."),
        (500, 500, "..." + "x" * 50 + "needle" + "y" * 144 + "..."),
        (500, 0, "..." + "x" * 50 + "needle" + "..."),
    ],
)
def test_what_a_preview_shows(before, after, expected):
    """All of up to 200 characters; else the beginning, or 50 before and 150 from a hit that is past 50."""
    assert preview("x" * before + "needle" + "y" * after, "needle") == expected


def test_no_other_character_becomes_ascii_in_lower_case():
    """The two that the sieve knows of are all that Python's tables have."""
    found = {
        chr(code)
        for code in range(128, sys.maxunicode + 1)
        if any(one.isascii() for one in chr(code).lower())
    }

    assert found == {"\u212a", "\u0130"}


TEXTS = st.text(st.sampled_from('kKiIab "\\/\n\u212a\u0130é☃\U0001f600\x7f\t'), max_size=12)


@given(TEXTS, TEXTS.filter(bool), st.booleans(), st.booleans())
def test_the_sieve_lets_every_match_through(content, query, ascii_only, by_sender):
    """Whatever way JSON writes a text in, a line that matches passes; so does its block."""
    wanted = Wanted(query.lower(), content=True, sender=by_sender, limit=1)
    entry = said("user", 0, content)
    line = json.dumps(entry, ensure_ascii=ascii_only).encode()
    by_number = "".join(f"\\u{ord(one):04x}" if ord(one) < 0x10000 else one for one in content)
    written = line.replace(json.dumps(content, ensure_ascii=ascii_only).encode(), f'"{by_number}"'.encode())

    if match(0, entry, wanted) is not None:
        assert Sieve(wanted).passes(line)
        assert Sieve(wanted).passes(b"{}\n" + written + b"\n{}\n")


async def test_a_search_ends_when_its_client_hangs_up(tmp_path):
    """The work is cancelled, and the next search of another client goes on."""
    lay(tmp_path, **{f"s{number}": [said("user", 0, "needle")] for number in range(5)})
    async with talks("async", tmp_path) as room:
        await room.ask("list")
        never, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        real = room.service._store.search

        async def slow(*args):
            begun.set()
            try:
                await never.wait()
            finally:
                ended.set()
            return await real(*args)

        room.backend.search = slow
        client = Peer()
        search = asyncio.create_task(room.ask("search", client, query="needle"))
        await begun.wait()
        client.hang_up()
        found = await search
        room.backend.search = real

        assert (found["code"], ended.is_set()) == ("cancelled", True)
        assert len(hits(await room.ask("search", Peer(), query="needle"))) == 5
        again = Peer()
        await room.ask("search", again, query="needle")
        await room.ask("search", again, query="needle")
        assert len(again._calls) == 1


async def test_a_cancelled_search_leaves_nothing_running(tmp_path):
    """Cancelled from within, as by a stop: the same error goes on, and its parts have ended."""
    lay(tmp_path, **{f"s{number}": [said("user", 0, "needle")] * 2000 for number in range(20)})
    async with talks("async", tmp_path) as room:
        await room.ask("list")
        search = asyncio.create_task(room.ask("search", query="nowhere"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        assert len(asyncio.all_tasks()) < 10
        assert len(hits(await room.ask("search", query="needle", limit=3))) == 3


async def test_a_client_that_closes_its_connection_ends_its_search(tmp_path, monkeypatch):
    """On a real socket: a close is noticed while the request runs, a half-close waits for the reply."""
    real, begun, ended, release = (AsyncConversations.search, *(asyncio.Event() for _ in range(3)))

    async def slow(side, *args):
        begun.set()
        try:
            await release.wait()
        finally:
            ended.set()
        return await real(side, *args)

    monkeypatch.setattr(AsyncConversations, "search", slow)
    async with daemon(tmp_path, conversation="async") as bench:
        client = await bench.client()
        client.send("conversation:search", {"query": "needle"})
        await begun.wait()
        client.hang_up()
        await asyncio.wait_for(ended.wait(), 5)
        begun.clear()
        half = await bench.client()
        half.send("conversation:search", {"query": "needle"})
        half._writer.write_eof()
        await begun.wait()
        await asyncio.sleep(0.3)
        release.set()
        reply = await half.line()

    assert reply["data"]["query"] == "needle"


async def test_large_conversations_are_parts_of_their_own(tmp_path, monkeypatch):
    """What is searched side by side comes in the order of the ids all the same."""
    monkeypatch.setattr(aio, "PART", 100)
    monkeypatch.setattr(aio, "SESSIONS", 3)
    lay(tmp_path, **{f"s{number:02}": [said("user", 0, "needle")] * (number % 5) for number in range(40)})
    async with talks("async", tmp_path) as room:
        await room.ask("list")
        found = await room.ask("search", query="needle", limit=7)

    expected = [(f"s{number:02}", number % 5) for number in range(40) if number % 5][:7]
    assert sorted(hits(found)) == expected
