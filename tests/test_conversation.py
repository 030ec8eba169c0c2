"""Conversations on both sides: what counts, how it is listed, paged and filtered, and what is read."""

from __future__ import annotations

import os

import pytest

from ksi_daemon.conversation import core, logfile
from tests.rooms import SIDES
from tests.talks import answer, lay, lines, said, talks


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room with two conversations and an empty one."""
    folder = lay(
        tmp_path,
        first=[
            said("user", 0, "Hello"),
            said("claude", 1, None, result="Hi"),
            answer(2, "by this daemon"),
            {"type": "DIRECT_MESSAGE", "timestamp": "2025-07-12T10:00:03Z", "from": "a", "to": "b"},
        ],
        second=[said("human", 30, "later")],
        empty=b"",
        message_bus=[said("COMPLETION_RESULT", 0)],
    )
    for path in folder.iterdir():
        os.utime(path, (1752340000, 1752340000))
    async with talks(request.param, tmp_path) as made:
        yield made


def row_of(found, session):
    """One conversation of a listing."""
    return next(row for row in found["conversations"] if row["session_id"] == session)


async def test_a_listing_has_the_contracts_shape(room):
    """Metadata as the original's, of both line formats; the newest last stamp comes first."""
    found = await room.ask("list")

    assert list(found) == ["conversations", "total", "offset", "limit"]
    assert (found["total"], found["offset"], found["limit"]) == (3, 0, 100)
    assert [row["session_id"] for row in found["conversations"]] == ["second", "first", "empty"]
    assert row_of(found, "first") == {
        "session_id": "first",
        "file_path": "var/logs/responses/first.jsonl",
        "size_bytes": (room.root / "var/logs/responses/first.jsonl").stat().st_size,
        "modified_timestamp": "2025-07-12T17:06:40+00:00",
        "message_count": 4,
        "first_timestamp": "2025-07-12T10:00:00Z",
        "last_timestamp": "2025-07-12T10:00:03Z",
        "participants": ["Claude", "You", "a"],
        "has_claude": True,
        "has_user": True,
    }
    empty = row_of(found, "empty")
    assert (empty["message_count"], empty["first_timestamp"], empty["participants"]) == (0, None, [])


async def test_the_daemons_own_lines_are_read(room):
    """A line of `ksi` and `response` counts, has a stamp, and is a message of Claude's."""
    lay(room.root, own=[answer(5, "one"), answer(6, "two")])
    row = row_of(await room.ask("list"), "own")
    got = await room.ask("get", session_id="own")

    assert (row["message_count"], row["first_timestamp"], row["has_claude"]) == (
        2,
        "2025-07-12T10:00:05Z",
        True,
    )
    assert got["messages"][0] == {
        "timestamp": "2025-07-12T10:00:05Z",
        "sender": "Claude",
        "content": "one",
        "type": "claude",
    }


async def test_the_visible_list_is_a_minute_old_at_most(room):
    """Inside a minute a listing shows what it showed; after more than one it looks again."""
    await room.ask("list")
    lay(room.root, third=[said("user", 40, "new")])
    soon = await room.sessions()
    room.later(59)
    still = await room.sessions()
    room.later(2)
    then = await room.sessions()

    assert (soon, still) == (["second", "first", "empty"], ["second", "first", "empty"])
    assert then == ["third", "second", "first", "empty"]


async def test_a_clock_that_was_set_back_makes_the_list_stale(room):
    """What was filled in the future is not good for years."""
    await room.ask("list")
    lay(room.root, third=[said("user", 40, "new")])
    room.later(-3600)

    assert "third" in await room.sessions()


async def test_a_search_never_refreshes(room):
    """Before a listing or the statistics nothing is found."""
    before = await room.ask("search", query="hello")
    await room.ask("stats")
    after = await room.ask("search", query="hello")

    assert (before["results"], before["total_conversations"]) == ([], 0)
    assert [one["session_id"] for one in after["results"]] == ["first"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"sort_by": "first_timestamp"}, ["second", "first", "empty"]),
        ({"sort_by": "message_count"}, ["first", "second", "empty"]),
        ({"sort_by": "message_count", "reverse": False}, ["empty", "second", "first"]),
        ({"sort_by": "anything"}, ["second", "first", "empty"]),
        ({"reverse": False}, ["empty", "first", "second"]),
        ({"limit": 1}, ["second"]),
        ({"limit": 1, "offset": 1}, ["first"]),
        ({"limit": 0}, []),
        ({"offset": 5}, []),
        ({"start_date": "2025-07-12T10:00:10Z"}, ["second"]),
        ({"end_date": "2025-07-12T10:00:10Z"}, ["first"]),
        ({"start_date": "2025-07-12T10:00:03Z", "end_date": "2025-07-12T10:00:30Z"}, ["second", "first"]),
        ({"start_date": "one day"}, []),
    ],
)
async def test_lists_are_sorted_paged_and_filtered(room, data, expected):
    """By text, stably, no stamp as empty text; filters drop what has no last stamp, both ends count."""
    assert await room.sessions(**data) == expected


async def test_equal_conversations_are_in_the_order_of_their_ids(room):
    """The order of ties is that of the ids, whichever way is asked for."""
    lay(room.root, **{name: [said("user", 30, "x")] for name in ("zeta", "alpha", "mid")})

    assert await room.sessions(limit=4) == ["alpha", "mid", "second", "zeta"]
    assert await room.sessions(reverse=False, offset=2) == ["alpha", "mid", "second", "zeta"]


async def test_times_with_and_without_a_zone_do_not_compare(room):
    """As in the original the request fails, with the same text."""
    found = await room.ask("list", start_date="2025-07-12")

    text = "Failed to list conversations: can't compare offset-naive and offset-aware datetimes"
    assert (found["error"], found["code"]) == (text, "invalid_parameter")


@pytest.mark.parametrize(
    ("line", "messages", "skipped"),
    [
        (b'{"type": "user", "timestamp": "2025-07-12T10:00:00+02:00"}', 1, 0),
        (b'{"type": "user", "timestamp": "2025-07-12"}', 1, 0),
        (b'{"type": "system", "timestamp": "20250712T100000"}', 1, 0),
        (b'{"timestamp": "2025-07-12T10:00:00Z"}', 1, 0),
        (b'{"timestamp": "2025-07-12T10:00:00Z", "type": ["odd"]}', 1, 0),
        (b'{"timestamp": "no", "timestamp": "2025-07-12T10:00:00Z"}', 1, 0),
        (b'{"timesta\\u006dp": "2025-07-12T10:00:00Z"}', 1, 0),
        (b'{"timestamp": "2025-07-12T10:00:00Z", "n": NaN}', 1, 0),
        (b'{"timestamp": "2025-07-12T10:00:00Z", "n": ' + b"9" * 5000 + b"}", 1, 0),
        (b'{"timestamp": "2025-07-12T10:00:00Z", "n": ' + b"[" * 900 + b"]" * 900 + b"}", 1, 0),
        (b'{"timestamp": "2025-07-12T10:00:00Z", "c": "\\ud800"}', 1, 0),
        (b' {"timestamp": "2025-07-12T10:00:00Z"} \r', 1, 0),
        (b'{"ksi": {"timestamp": "2025-07-12T10:00:00Z"}}', 1, 0),
        (b'{"ksi": {"timestamp": "2025-07-12T10:00:00Z"}, "timestamp": "no"}', 0, 0),
        (b'{"ksi": "no object"}', 0, 0),
        (b'{"type": "user"}', 0, 0),
        (b'{"timestamp": null}', 0, 0),
        (b'{"timestamp": ""}', 0, 0),
        (b'{"timestamp": "tomorrow"}', 0, 0),
        (b'{"timestamp": 1752340000}', 0, 0),
        (b"", 0, 0),
        (b"  ", 0, 0),
        (b"[1]", 0, 1),
        (b"null", 0, 1),
        (b'"2025-07-12T10:00:00Z"', 0, 1),
        (b'{"timestamp": "2025-07-12T10:00:00Z"', 0, 1),
        (b'{"timestamp": "2025-07-12T10:00:00Z"} {}', 0, 1),
        (b'{"timestamp": "2025-07-12T10:00:00Z"}\r{"timestamp": "2025-07-12T10:00:00Z"}', 0, 1),
        (b'{"timestamp": "2025-07-12T10:00:00Z", "c": "\xff"}', 0, 1),
        (b'{"timestamp": "2025-07-12T10:00:00Z", "n": ' + b"[" * 2000 + b"]" * 2000 + b"}", 0, 1),
        (b"\x00" * 100, 0, 1),
    ],
)
@pytest.mark.parametrize("side", SIDES)
async def test_what_counts(side, tmp_path, line, messages, skipped):
    """An object with a stamp that is one; damage costs only its line, and is counted."""
    good = said("user", 0, "good")
    lay(tmp_path, one=lines(good, line, good))
    async with talks(side, tmp_path) as room:
        row = (await room.ask("list"))["conversations"][0]
        stats = await room.ask("stats")

    assert (row["message_count"] - 2, stats["skipped_lines"]) == (messages, skipped)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("tail", "messages"),
    [(b'{"timestamp": "2025-07-12T10:00:09Z"}', 2), (b'{"timestamp": "2025-07-12T10:0', 1)],
)
async def test_a_last_line_without_an_end(side, tmp_path, tail, messages):
    """It counts if it is whole all the same; half of one is damage until it is finished."""
    folder = lay(tmp_path, one=lines(said("user", 0, "x")) + tail)
    async with talks(side, tmp_path) as room:
        before = (await room.ask("list"))["conversations"][0]["message_count"]
        with (folder / "one.jsonl").open("ab") as file:
            file.write(b"\n" if messages == 2 else b'0:09Z"}\n')
        room.later()
        after = (await room.ask("list"))["conversations"][0]

    assert (before, after["message_count"]) == (messages, 2)
    assert after["last_timestamp"] == "2025-07-12T10:00:09Z"


async def test_only_regular_files_with_names_that_can_be_told_are_conversations(room):
    """No link, FIFO or directory, no other ending, no bytes that are no text."""
    folder = room.root / "var/logs/responses"
    outside = room.root / "outside.jsonl"
    outside.write_bytes(lines(said("user", 0, "secret")))
    (folder / "link.jsonl").symlink_to(outside)
    os.mkfifo(folder / "fifo.jsonl")
    (folder / "directory.jsonl").mkdir()
    (folder / "other.json").write_bytes(b"")
    (folder / ".jsonl").write_bytes(b"")
    with open(os.fsencode(folder) + b"/\xff.jsonl", "wb"):
        pass
    found = await room.sessions()
    got = [await room.ask("get", session_id=name) for name in ("link", "fifo", "directory")]

    assert found == ["second", "first", "empty"]
    assert [one["code"] for one in got] == ["not_found"] * 3


@pytest.mark.parametrize(
    "session", ["../outside", "a/b", ".", "..", "nul\0", "x" * 250, "/etc/passwd", "\ud800", "ghost"]
)
async def test_an_id_is_one_name_in_the_directory(room, session):
    """Whatever leads elsewhere is no conversation, for reading and for exporting."""
    (room.root / "var/logs/outside.jsonl").write_bytes(lines(said("user", 0, "secret")))
    with_text = session.encode(errors="surrogatepass").decode(errors="replace")
    for event in ("get", "export"):
        found = await room.ask(event, session_id=with_text)
        assert (found["error"], found["code"]) == (f"Conversation not found: {with_text}", "not_found")


async def test_messages_are_read(room):
    """By kind, with the raw stamp, sorted by its text, repetitions once; other kinds are no messages."""
    lay(
        room.root,
        talk=[
            said("claude", "2025-07-12T09:00:00+02:00", "content", result="result"),
            said("user", 0, "Hello"),
            said("user", 0, "Hello"),
            said("system", 1, "ignored"),
            said("DIRECT_MESSAGE", "2025-07-12T08", "psst", **{"from": "a", "to": "b"}),
            said("DIRECT_MESSAGE", None, None),
            said("claude", 0, ["a", {"list": 1}]),
        ],
    )
    got = await room.ask("get", session_id="talk")

    assert list(got) == ["session_id", "messages", "total", "offset", "limit"]
    assert (got["session_id"], got["total"], got["offset"], got["limit"]) == ("talk", 5, 0, 1000)
    assert got["messages"] == [
        {"timestamp": None, "sender": "Unknown", "content": "", "type": "message", "to": None},
        {"timestamp": "2025-07-12T08", "sender": "a", "content": "psst", "type": "message", "to": "b"},
        {
            "timestamp": "2025-07-12T09:00:00+02:00",
            "sender": "Claude",
            "content": "result",
            "type": "claude",
        },
        {"timestamp": "2025-07-12T10:00:00Z", "sender": "You", "content": "Hello", "type": "user"},
        {
            "timestamp": "2025-07-12T10:00:00Z",
            "sender": "Claude",
            "content": ["a", {"list": 1}],
            "type": "claude",
        },
    ]


async def test_messages_are_paged(room):
    """The total is that of all; the page may lie beyond the end."""
    lay(room.root, talk=[said("user", number, f"m{number}") for number in range(10)])
    page = await room.ask("get", session_id="talk", limit=2, offset=3)
    beyond = await room.ask("get", session_id="talk", offset=10)

    assert ([one["content"] for one in page["messages"]], page["total"]) == (["m3", "m4"], 10)
    assert (beyond["messages"], beyond["total"]) == ([], 10)


async def test_values_that_no_wire_carries_are_shown_all_the_same(room):
    """Long integers keep their digits, a lone surrogate becomes U+FFFD, what is no number becomes null."""
    lay(
        room.root,
        talk=[
            b'{"type": "user", "timestamp": "2025-07-12T10:00:00Z", "content": 1234567890123456789012345678}',
            b'{"type": "user", "timestamp": "2025-07-12T10:00:01Z", "content": "a\\ud800b"}',
            b'{"type": "user", "timestamp": "2025-07-12T10:00:02Z", "content": NaN}',
            b'{"type": "user", "timestamp": "2025-07-12T10:00:03Z", "content": [1e999, "\\udfff"]}',
        ],
    )
    got = await room.ask("get", session_id="talk")

    contents = [one["content"] for one in got["messages"]]
    assert contents == ["1234567890123456789012345678", "a\ufffdb", None, '[Infinity, "\\udfff"]']


async def test_the_bus_can_be_read(room):
    """Only completions, of one conversation if that is asked for; a record without an object costs itself."""
    lay(
        room.root,
        message_bus=[
            {
                "type": "COMPLETION_RESULT",
                "timestamp": "2025-07-12T10:00:00Z",
                "client_id": "coder",
                "result": {"session_id": "s1", "response": "done", "model": "sonnet"},
            },
            said("NOTE", 1),
            said("COMPLETION_RESULT", 2, result="no object"),
            [1],
            said("COMPLETION_RESULT", 3, result={"session_id": "s2", "response": "too"}),
        ],
    )
    every = await room.ask("get", session_id="message_bus")
    one = await room.ask("get", session_id="message_bus", conversation_id="s2")

    assert (every["session_id"], every["filtered_session_id"], every["total"]) == ("message_bus", None, 2)
    assert every["messages"][0] == {
        "timestamp": "2025-07-12T10:00:00Z",
        "sender": "coder",
        "content": "done",
        "session_id": "s1",
        "model": "sonnet",
        "type": "completion_result",
    }
    assert (one["filtered_session_id"], one["total"]) == ("s2", 1)
    assert (one["messages"][0]["sender"], one["messages"][0]["model"]) == ("Unknown", "unknown")
    (room.root / "var/logs/responses/message_bus.jsonl").unlink()
    gone = await room.ask("get", session_id="message_bus")
    assert (gone["error"], gone["code"]) == ("Message bus log not found", "not_found")


async def test_statistics(room):
    """Sums over all conversations, stamps by their text; the age in whole seconds."""
    first = await room.ask("stats")
    room.later(10)
    later = await room.ask("stats")

    assert list(first) == [
        "total_conversations",
        "total_messages",
        "total_size_bytes",
        "total_size_mb",
        "earliest_timestamp",
        "latest_timestamp",
        "exports_dir",
        "cache_age_seconds",
        "skipped_lines",
    ]
    assert (first["total_conversations"], first["total_messages"], first["total_size_mb"]) == (3, 5, 0.0)
    assert (first["earliest_timestamp"], first["latest_timestamp"]) == (
        "2025-07-12T10:00:00Z",
        "2025-07-12T10:00:30Z",
    )
    assert (first["exports_dir"], first["cache_age_seconds"]) == ("var/state/exports", 0)
    assert later["cache_age_seconds"] == 10


@pytest.mark.parametrize(
    ("event", "data", "text"),
    [
        ("list", {"limit": "1"}, "limit must be a whole number, not str"),
        ("list", {"offset": True}, "offset must be a whole number, not bool"),
        ("list", {"limit": -1}, "limit must not be negative"),
        ("list", {"start_date": 5}, "start_date must be a string, not int"),
        ("get", {"session_id": 5}, "session_id must be a string, not int"),
        ("get", {}, "session_id required"),
        ("export", {}, "session_id required"),
        ("search", {}, "Search query required"),
        ("search", {"query": ""}, "Search query required"),
        ("search", {"query": "x" * 10_001}, "query must not be longer than 10000 characters"),
        ("search", {"query": "x", "search_in": "content"}, "search_in must be a list of strings, not str"),
        (
            "export",
            {"session_id": "first", "format": "pdf"},
            "Unsupported format: pdf. Supported formats: markdown, json",
        ),
    ],
)
async def test_parameters_are_checked(room, event, data, text):
    """Each error names its parameter and has a code."""
    found = await room.ask(event, **data)

    assert found["error"] == text
    assert found["code"] in {"invalid_parameter", "missing_parameter"}


async def test_a_reply_that_is_too_large_is_refused(room):
    """Rather than the client being dropped: a page, of few large messages or many rows."""
    room.service._most = 2000
    lay(room.root, talk=[said("user", number, "x" * 300) for number in range(10)])
    got = await room.ask("get", session_id="talk")
    few = await room.ask("get", session_id="talk", limit=2)
    lay(room.root, **{f"s{number}": b"" for number in range(20)})
    listed = await room.ask("list")
    lay(room.root, **{f"s{number}": b"" for number in range(250)})
    room.later()
    long = await room.ask("list", limit=1000)

    assert {got["code"], listed["code"], long["code"]} == {"reply_too_large"}
    assert len(few["messages"]) == 2


async def test_a_directory_that_cannot_be_listed_is_told(room):
    """The request fails with the system's word; what was visible stays, and all is well afterwards."""
    await room.ask("list")
    folder = room.root / "var/logs/responses"
    folder.rename(folder.with_name("aside"))
    folder.write_bytes(b"")
    room.later()
    failed = [
        await room.ask(event, **data)
        for event, data in (
            ("list", {}),
            ("stats", {}),
            ("search", {"query": "hello"}),
            ("get", {"session_id": "first"}),
            ("export", {"session_id": "first"}),
        )
    ]
    active = (await room.ask("active"))[0]
    folder.unlink()
    folder.with_name("aside").rename(folder)

    assert [(one["code"], one["errno"]) for one in (*failed, active)] == [("io_error", "ENOTDIR")] * 6
    assert [one["error"].partition(":")[0] for one in (*failed, active)] == [
        "Failed to list conversations",
        "Failed to get stats",
        "Search failed",
        "Failed to get conversation",
        "Export failed",
        "Failed to get active conversations",
    ]
    assert await room.sessions() == ["second", "first", "empty"]


async def test_a_long_page_of_a_listing_is_encoded_in_pieces(room):
    """More rows than are encoded in one go come in the same order."""
    lay(room.root, **{f"s{number:03}": b"" for number in range(450)})
    found = await room.sessions(limit=1000, reverse=False)

    assert found == ["empty", *(f"s{number:03}" for number in range(450)), "first", "second"]


async def test_what_is_held_is_plain(room):
    """Memory has the visible list and the locks, without the files' times."""
    await room.ask("list")
    await room.ask("acquire_lock", request_id="one", conversation_id="c")
    held = room.service.memory()

    assert [row[0] for row in held["conversations"]] == ["empty", "first", "second"]
    assert held["locks"]["c"]["holder"] == "one"
    assert held["filled"] > 1752340000


async def test_a_log_that_cannot_be_opened_is_left_out(room, monkeypatch):
    """It vanished, or the system refuses: the others are listed."""
    if room.side == "sync":
        real = os.open

        def refuse(path, *args, **options):
            if str(path).endswith("first.jsonl"):
                raise PermissionError
            return real(path, *args, **options)

        monkeypatch.setattr(os, "open", refuse)
        assert await room.sessions() == ["second", "empty"]
    else:  # of the other side's jobs see test_conversation_index
        assert await room.sessions() == ["second", "first", "empty"]


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(0, "1970-01-01T00:00:00+00:00"), (-(10**9), "1969-12-31T23:59:59+00:00"), (10**21, None)],
)
def test_times_of_files(nanoseconds, shown):
    """Before 1970, and after all years that there are."""
    assert core.utc(nanoseconds) == shown


def test_what_can_never_be_shown_has_words():
    """A value too deep for any encoder does not fail its reply."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]

    assert core.plain(deep) == "(a value that cannot be shown)"
    while deep:
        deep = deep[0]


async def test_only_a_regular_file_is_opened(tmp_path):
    """Another thing in a log's place is told as such, and closed."""
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="regular"), logfile.opened(str(tmp_path / "directory")):
        pass
