"""Both sides against a plain reference: whatever stands in the logs, they count and find the same."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksi_daemon.conversation import bus, finding, pages, quicklines, scan
from ksi_daemon.conversation.core import Summary, Tally, Wanted, Which
from ksi_daemon.settings import Settings
from ksi_daemon.site import Site
from ksi_daemon.worker import Turn
from tests.rooms import SIDES
from tests.talks import folder_of

MOST = 1 << 30

STAMPS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            "2025-07-12T10:00:00Z",
            "2025-07-12T10:00:00.123456Z",
            "2025-07-12T12:00:00+02:00",
            "2025-07-12T10:00:00",
            "2025-07-12",
            "20250712T100000",
            "2025-07-12\u2603" + "10:00",
            "2025-07-12\ud800" + "10:00",
            "24:00",
            "soon",
            "",
            None,
            0,
            1e300,
            10**30,
            [],
            {"a": 1},
            True,
        ]
    ),
    st.datetimes().map(datetime.isoformat),
)
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["needle", "NEEDLE \u212a", "a needle " * 40, "\ud800", '"\\/\n']
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**25, -(10**25), float("inf"), float("nan"), 1e308, -0.0])
    | st.floats()
    | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KINDS = st.sampled_from(
    ["user", "human", "claude", "DIRECT_MESSAGE", "COMPLETION_RESULT", "x", None, 5, ["user"]]
)
ENTRIES = st.one_of(
    st.fixed_dictionaries(
        {"timestamp": STAMPS, "type": KINDS},
        optional={
            "content": TEXTS | VALUES,
            "result": TEXTS | VALUES,
            "from": TEXTS | VALUES,
            "to": VALUES,
            "more": VALUES,
        },
    ),
    st.fixed_dictionaries(
        {"ksi": st.fixed_dictionaries({}, optional={"timestamp": STAMPS}) | VALUES},
        optional={"response": st.fixed_dictionaries({}, optional={"result": TEXTS | VALUES}) | VALUES},
    ),
    VALUES,
)
BREAKS = st.sampled_from(
    [b"", b" ", b"{", b"}", b'{"timestamp":', b"{} {}", b"\xff", b"\xef\xbb\xbf{}", b"null", b"\r"]
)
DAMAGE = st.tuples(
    st.integers(0, 60), st.sampled_from([b"", b"\x00", b"\xc3", b'"', b"\\", b"}{", b"\r", b"9" * 20])
)


@st.composite
def written(draw):
    """The bytes of one line: an entry in one of JSON's spellings, sometimes damaged, or something else."""
    if draw(st.integers(0, 7)) == 0:
        return draw(BREAKS)
    ascii_only, spaces = draw(st.booleans()), draw(st.booleans())
    separators = (", ", ": ") if spaces else (",", ":")
    text = json.dumps(draw(ENTRIES), ensure_ascii=ascii_only, separators=separators)
    line = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        at, bytes_ = draw(DAMAGE)
        line = line[:at] + bytes_ + line[at + 1 :]
    return line.replace(b"\n", b" ")


@st.composite
def logs(draw):
    """One log: lines, perhaps without a newline at the end."""
    found = draw(st.lists(written(), max_size=12)) * draw(st.sampled_from([1, 1, 1, 8]))
    return b"".join(line + b"\n" for line in found) + draw(
        st.sampled_from([b"", b"", b'{"timestamp": "2025-'])
    )


# the reference: as plain as can be, and of its own


def values_of(data):
    """Every line that is an object, with its number; the numbers of damaged ones."""
    good, damaged = [], 0
    for number, line in enumerate(data.split(b"\n")):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            damaged += 1
            continue
        if not text.strip():
            continue
        try:
            value = json.loads(text.strip())
        except json.JSONDecodeError:
            damaged += 1
            continue
        if isinstance(value, dict):
            good.append((number, value))
        else:
            damaged += 1
    return good, damaged


def unified(value):
    """Kind, stamp, content and result, of either format."""
    if isinstance(value.get("ksi"), dict) and value.get("timestamp") is None:
        response = value.get("response")
        result = response.get("result") if isinstance(response, dict) else response
        return "claude", value["ksi"].get("timestamp"), None, result
    return value.get("type"), value.get("timestamp"), value.get("content"), value.get("result")


def is_time(stamp):
    """Whether it is a text that says a time."""
    if not isinstance(stamp, str) or not stamp:
        return False
    try:
        datetime.fromisoformat(stamp)
    except ValueError:
        return False
    return True


def tidy(text):
    """Without lone surrogates."""
    return "".join("\ufffd" if "\ud800" <= one <= "\udfff" else one for one in text)


def expected_summary(session, data, found):
    """What a listing must know of a log."""
    good, damaged = values_of(data)
    counted = [
        (kind, stamp, value) for _, value in good for kind, stamp, *_ in [unified(value)] if is_time(stamp)
    ]
    people = set()
    for kind, _, value in counted:
        if kind == "claude":
            people.add("Claude")
        elif kind in ("user", "human"):
            people.add("You")
        elif kind == "DIRECT_MESSAGE" and isinstance(value.get("from"), str) and value["from"]:
            people.add(tidy(value["from"]))
    return Summary(
        session,
        len(data),
        found.st_mtime_ns,
        len(counted),
        tidy(counted[0][1]) if counted else None,
        tidy(counted[-1][1]) if counted else None,
        tuple(sorted(people)),
        any(kind == "claude" for kind, *_ in counted),
        any(kind in ("user", "human") for kind, *_ in counted),
        damaged,
    )


def expected_hits(data, query, *, content, sender):
    """The numbers of the lines that match, ten at most."""
    hits = []
    for number, value in values_of(data)[0]:
        kind, _, said, result = unified(value)
        texts = [text for text in (said, result) if isinstance(text, str)]
        who = "you" if kind in ("user", "human") else "claude"
        if (content and any(query in text.lower() for text in texts)) or (sender and query in who):
            hits.append(number)
    return hits[:10]


LABELS = {"user": "user", "human": "user", "claude": "claude", "DIRECT_MESSAGE": "message"}


def expected_messages(data):
    """Stamp, sender, label and text of the messages, in the order of the reply; `...` for what is no text."""
    seen, messages = set(), []
    for _, value in values_of(data)[0]:
        kind, stamp, said, result = unified(value)
        if kind not in ("user", "human", "claude", "DIRECT_MESSAGE"):
            continue
        stamp = tidy(stamp) if isinstance(stamp, str) else ""
        who = {"user": "You", "human": "You", "claude": "Claude"}.get(kind)
        if who is None:
            who = value.get("from") if isinstance(value.get("from"), str) and value["from"] else "Unknown"
        content = (result or said) if kind == "claude" else said
        content = "" if content is None else content
        key = (stamp, tidy(who), content if isinstance(content, str) else (repr(content),))
        if key not in seen:
            seen.add(key)
            text = tidy(content) if isinstance(content, str) else ...
            messages.append((stamp, tidy(who), LABELS[kind], text))
    return sorted(messages, key=lambda one: one[0])


# both sides


class Sync:
    """The control."""

    def __init__(self, root):
        module = importlib.import_module("ksi_daemon.conversation.sync")
        self._side = module.SyncConversations(Site("conversation", Settings(root=root)))

    def refresh(self):
        """Every summary."""
        return list(self._side.refresh(None))

    def search(self, rows, wanted):
        """What matches."""
        return list(self._side.search(rows, wanted))

    def read(self, which):
        """A page."""
        return self._side.read(which)


class Jobs:
    """The candidate's jobs, in this process."""

    def __init__(self, root):
        self._folder = str(folder_of(root))
        self._index = str(root / "index")

    def refresh(self):
        """Every summary."""
        turn = Turn()
        scan._indexes.clear()
        plan = scan.refresh(turn, self._folder, self._index, "")
        assert plan.rest.files == plan.total
        return [Summary._make(row) for word in turn.told for row in word]

    def search(self, rows, wanted):
        """What matches."""
        return finding.find(Turn(), self._folder, [row.session for row in rows], wanted)

    def read(self, which):
        """A page."""
        return pages.page(Turn(), self._folder, which)


MADE: dict[str, Any] = {"sync": Sync, "async": Jobs}


@pytest.mark.parametrize("side", SIDES)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    data=logs(), query=st.sampled_from(["needle", "k", "i", "a", "you", '"', "\\", " ", "é", "\ufffd", "0"])
)
def test_a_side_agrees_with_the_reference(side, data, query):
    """Summaries, matches with their lines, and messages with their order, senders, kinds and texts."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        path = folder_of(root) / "one.jsonl"
        path.write_bytes(data)
        made = MADE[side](root)
        rows = made.refresh()
        assert rows == [expected_summary("one", data, path.stat())]
        for content, sender in ((True, False), (True, True), (False, True)):
            found = made.search(rows, Wanted(query, content, sender, 5))
            lines = [one["line_num"] for hit in found for one in json.loads(hit.matches)]
            assert lines == expected_hits(data, query, content=content, sender=sender)
        page = made.read(Which("one", 0, 1000, None, MOST))
        shown = [
            (one["timestamp"] or "", one["sender"], one["type"], one["content"])
            for one in json.loads(page.messages)
        ]
        expected = expected_messages(data)
        assert page.total == len(expected)
        for one, other in zip(shown, expected, strict=True):
            assert one[:3] == other[:3]
            assert other[3] in (..., one[3])


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(data=logs(), bus_log=logs(), offset=st.integers(0, 3), limit=st.integers(0, 4))
def test_both_sides_answer_with_the_same_bytes(data, bus_log, offset, limit):
    """Pages of a log and of the bus, matches, and how many there are."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = folder_of(root)
        (folder / "one.jsonl").write_bytes(data)
        (folder / "message_bus.jsonl").write_bytes(bus_log.replace(b'"x"', b'"COMPLETION_RESULT"'))
        sync, jobs = MADE[SIDES[0]](root), Jobs(root)
        rows = sync.refresh()
        assert jobs.refresh() == rows
        for which in (
            Which("one", offset, limit, None, MOST),
            Which("message_bus", offset, limit, None, MOST),
            Which("message_bus", 0, 10, "needle", MOST),
        ):
            assert jobs.read(which) == sync.read(which)
        for query in ("needle", "a", "é"):
            wanted = Wanted(query, content=True, sender=True, limit=5)
            assert jobs.search(rows, wanted) == sync.search(rows, wanted)
        assert bus.active(str(folder), 5, 0.0) is not None


@settings(max_examples=300)
@given(st.lists(written(), max_size=70), st.data())
def test_many_lines_at_once_count_as_each_alone(found, data):
    """The quick decoder, in blocks of any size, is the careful one."""
    alone, together = Tally(), Tally()
    for line in found:
        alone.add_line(line)
    while found:
        cut = data.draw(st.integers(1, len(found)))
        quicklines.count(together, b"".join(line + b"\n" for line in found[:cut]))
        found = found[cut:]

    assert together.counts() == alone.counts()


@pytest.mark.parametrize(
    "block",
    [
        b'{"a":\n1}\n{}{}\n',
        b'{"a":\n}\n{} null null {}\n',
        b"{}\nnull null {}\n\n",
        b"{} 0 0 {}\n\n\n",
        b'{"timestamp":\nnull null "2025-07-12"}\n',
        b'{"timestamp": "2025-07-12"}{"timestamp": "2025-07-12"}\n\n',
    ],
)
def test_lines_that_play_with_their_ends(block):
    """However values are spread over lines: each line alone says what it is."""
    alone, together = Tally(), Tally()
    for line in block.split(b"\n")[:-1]:
        alone.add_line(line)
    quicklines.count(together, block)

    assert together.counts() == alone.counts()


@pytest.mark.parametrize("digits", [19, 20, 309, 4300, 4301, 20_000])
def test_numbers_of_any_length_count(digits):
    """They are JSON, and cost nothing but their line's reading."""
    line = b'{"timestamp": "2025-07-12", "n": ' + b"7" * digits + b"}"
    tally = Tally()
    quicklines.count(tally, line + b"\n")
    alone = Tally()
    alone.add_line(line)

    assert tally.counts() == alone.counts()
    assert (tally.count, tally.skipped) == (1, 0)


def test_an_unreadable_directory_entry_is_no_conversation(tmp_path):
    """A file that goes between listing and looking is not there."""
    folder = folder_of(tmp_path)
    (folder / "a.jsonl").write_bytes(b"")
    os.symlink("nowhere", folder / "b.jsonl")

    assert [row.session for row in Jobs(tmp_path).refresh()] == ["a"]
