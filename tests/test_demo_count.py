"""The demo's final count finds every loss, double, reordering and torn line that is planted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from ksi_migrate.demo_count import Count, count_log
from ksi_migrate.demo_load import KINDS, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MESSAGES, USAGES = KINDS


def ledger(client: str = "publisher-0", sent: int = 5, acknowledged: int = 5, **more: object) -> Ledger:
    """An account of a client that got its first `acknowledged` replies."""
    account: dict = {"refused": {}, "lost": "", **more}
    return Ledger(client, "messaging", sent, frozenset(range(acknowledged)), **account)


def line(number: int, client: str = "publisher-0") -> bytes:
    """A message's line as the daemon writes it."""
    record = {
        "id": "1.5",
        "type": "DEMO",
        "from": client,
        "timestamp": "2025-07-12T20:00:00Z",
        "number": number,
    }
    return orjson.dumps(record) + b"\n"


def count(path: Path, data: bytes, *ledgers: Ledger) -> tuple[Count, tuple[str, ...]]:
    """The verdict over a log with that content."""
    path.write_bytes(data)
    counted = count_log("messaging", path, ledgers or (ledger(),), MESSAGES.identity)
    return counted.count, counted.problems


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the log lies."""
    return tmp_path / "message_bus.jsonl"


def test_a_whole_log_has_nothing_off(log):
    """Two clients' records, interleaved, each in its own order, are exactly what was promised."""
    first, second = ledger("publisher-0", 2, 2), ledger("publisher-1", 2, 2)
    data = line(0) + line(0, "publisher-1") + line(1) + line(1, "publisher-1")

    found = count(log, data, first, second)

    assert (Count(acknowledged=4, on_disk=4), ()) == found


def test_unacknowledged_records_may_be_there_once_or_not(log):
    """A record without its reply is no promise: one of the two is on disk, and nothing is off."""
    data = b"".join(map(line, range(4)))

    assert (Count(acknowledged=3, on_disk=4), ()) == count(log, data, ledger(sent=5, acknowledged=3))


FAULTS: dict[str, tuple[Callable[[list[bytes]], bytes], dict[str, int]]] = {
    "the first is lost": (lambda lines: b"".join(lines[1:]), {"on_disk": 4, "lost": 1}),
    "the last is lost": (lambda lines: b"".join(lines[:-1]), {"on_disk": 4, "lost": 1}),
    "one is doubled at once": (lambda lines: b"".join([lines[0], *lines]), {"on_disk": 6, "doubled": 1}),
    "one is doubled later": (lambda lines: b"".join([*lines, lines[1]]), {"on_disk": 6, "doubled": 1}),
    "one is there three times": (lambda lines: b"".join(lines) + lines[4] * 2, {"on_disk": 7, "doubled": 2}),
    "two are swapped": (
        lambda lines: b"".join([lines[1], lines[0], *lines[2:]]),
        {"on_disk": 5, "out_of_order": 1},
    ),
    "one comes last": (lambda lines: b"".join([*lines[1:], lines[0]]), {"on_disk": 5, "out_of_order": 1}),
    "a line is torn in the middle": (
        lambda lines: b"".join([*lines[:2], lines[2][:20] + b"\n", *lines[3:]]),
        {"on_disk": 4, "lost": 1, "torn": 1},
    ),
    "two lines run together": (
        lambda lines: b"".join([lines[0][:-1], *lines[1:]]),
        {"on_disk": 3, "lost": 2, "torn": 1},
    ),
    "the last line has no end": (
        lambda lines: b"".join(lines)[:-1],
        {"on_disk": 4, "lost": 1, "torn": 1},
    ),
    "a blank line": (lambda lines: b"\n" + b"".join(lines), {"on_disk": 5, "torn": 1}),
    "a client that nobody knows": (
        lambda lines: b"".join(lines) + line(0, "stranger"),
        {"on_disk": 6, "foreign": 1},
    ),
    "a number that was never sent": (lambda lines: b"".join(lines) + line(5), {"on_disk": 6, "foreign": 1}),
    "a record of another shape": (lambda lines: b"".join(lines) + b"[1]\n", {"on_disk": 6, "foreign": 1}),
    "a number that is none": (
        lambda lines: b"".join(lines) + line(0).replace(b'"number":0', b'"number":"0"'),
        {"on_disk": 6, "foreign": 1},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_counted_and_told(log, fault):
    """Each planted fault shows in its own figures, in no other, and as a problem in words."""
    damage, expected = FAULTS[fault]

    found, problems = count(log, damage([line(number) for number in range(5)]))

    assert Count(acknowledged=5, **expected) == found
    assert problems


def test_a_missing_log_has_lost_everything(tmp_path):
    """Without a file nothing that was acknowledged is on disk; without a promise that is no problem."""
    path = tmp_path / "none.jsonl"

    found = count_log("messaging", path, [ledger()], MESSAGES.identity)

    assert Count(acknowledged=5, lost=5) == found.count
    assert found.problems == ("publisher-0: 5 lost: 0, 1, 2 …",)
    assert count_log("messaging", path, [ledger(sent=0, acknowledged=0)], MESSAGES.identity).problems == ()


def test_refused_requests_are_told_and_must_not_be_on_disk(log):
    """An error reply says that nothing was written: the refusal is a problem, its record on disk another."""
    account = ledger(sent=3, acknowledged=2, refused={2: "component_busy: try again"})

    found, problems = count(log, line(0) + line(1) + line(2), account)

    assert Count(acknowledged=2, on_disk=3, refused=1, not_undone=1) == found
    assert problems == (
        "publisher-0: 1 refused: 2 (component_busy: try again)",
        "publisher-0: 1 not undone: 2",
    )


def test_a_lost_connection_is_a_problem(log):
    """A client that was cut off is told even if all its records are there."""
    _, problems = count(log, line(0), ledger(sent=1, acknowledged=1, lost="the daemon hung up"))

    assert problems == ("publisher-0 lost its connection: the daemon hung up",)


def test_a_torn_tail_that_was_cut_off_is_found_beside_the_log(log):
    """What the daemon cut from its log and kept is torn too."""
    log.with_name(f"{log.name}.torn-12-abc").write_bytes(b'{"id"')

    found, problems = count(log, line(0), ledger(sent=1, acknowledged=1))

    assert Count(acknowledged=1, on_disk=1, torn=1) == found
    assert problems == ("message_bus.jsonl is torn: kept message_bus.jsonl.torn-12-abc",)


def test_usage_records_are_known_by_their_request():
    """A usage record's client and number stand in its request id."""
    request = USAGES.data("recorder-0", 7)

    assert USAGES.identity(request) == ("recorder-0", 7)
