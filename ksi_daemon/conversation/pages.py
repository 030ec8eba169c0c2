"""The job that reads a page of a log: in one pass and little memory when its stamps are in order. Blocks."""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import orjson

from ksi_daemon.conversation.core import BUS, decode
from ksi_daemon.conversation.logfile import blocks, is_absent, log_of, opened
from ksi_daemon.conversation.messages import BUS_KIND, bus_message, message
from ksi_daemon.conversation.paging import OutOfOrder, Window, key, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ksi_daemon.conversation.core import Page, Which
    from ksi_daemon.conversation.messages import Message
    from ksi_daemon.worker import Turn

_PLAIN = (str, type(None))
_PLACE = 12
"""Bytes of a place at the end of a mark: eight for where a line begins, four for its length."""


class _Log(NamedTuple):
    """An open log up to where it ended then, and whose messages are wanted."""

    fd: int
    end: int
    which: Which
    check: Callable[[], None]

    def message(self, line: bytes) -> Message | None:
        """The line's message; None for a line that has none, or is damaged."""
        try:
            value = quick(line)
        except ValueError:
            return None
        if value is None:
            return None
        if self.which.session == BUS:
            return bus_message(value, self.which.conversation)
        return message(value)

    def messages(self) -> Iterator[tuple[int, int, Message]]:
        """Where each line with a message begins, how long it is, and the message."""
        for end, block in blocks(self.fd, 0, self.end, self.check):
            at = end - len(block)
            for line in block.split(b"\n"):
                found = self.message(line) if line else None
                if found is not None:
                    yield at, len(line), found
                at += len(line) + 1

    def again(self, mark: bytes) -> Message | None:
        """The message of a line that was read before."""
        at, size = int.from_bytes(mark[-_PLACE:-4]), int.from_bytes(mark[-4:])
        return self.message(os.pread(self.fd, size, at))


def page(turn: Turn, folder: str, which: Which) -> Page | None:
    """One page; None when there is no such log. Raises `OSError`, `ReplyTooLarge`."""
    found = window(turn, folder, which)
    return None if found is None else found.page()


def window(turn: Turn, folder: str, which: Which) -> Window | None:
    """The page, not encoded yet."""
    try:
        with opened(log_of(folder, which.session)) as fd:
            log = _Log(fd, os.fstat(fd).st_size, which, turn.check)
            try:
                return _in_order(log)
            except OutOfOrder:
                return _ordered(log)
    except OSError as error:
        if is_absent(error):
            return None
        raise


def _in_order(log: _Log) -> Window:
    found = Window(log.which, repetitions=log.which.session == BUS)
    for _, _, one in log.messages():
        found.add(one)
    return found


def _ordered(log: _Log) -> Window:
    """The same for stamps in disorder: the stamps are sorted in memory, the messages read again."""
    marks = sorted(_mark(at, size, one) for at, size, one in log.messages())
    found = Window(log.which)
    for _, same in groupby(marks, key=lambda mark: mark[:-_PLACE]):
        log.check()
        for one in _different(log, list(same)):
            found.put(one)
    return found


def _different(log: _Log, marks: list[bytes]) -> Iterator[Message]:
    """The messages of one stamp, in the order of the log, each once."""
    seen = set()
    for mark in marks:
        one = log.again(mark)
        if one is None:  # somebody has just changed the log
            continue
        known = key(one)
        if log.which.session == BUS or known not in seen:
            seen.add(known)
            yield one


def _mark(at: int, size: int, one: Message) -> bytes:
    """A stamp with its line's place: marks are ordered as their stamps, and then as their lines."""
    text = stamp(one).encode().replace(b"\0", b"\0\1")  # and so the end, two zeros, is before any other byte
    return text + b"\0\0" + at.to_bytes(8) + size.to_bytes(4)


def quick(line: bytes) -> dict[str, Any] | None:
    """As `core.decode`, faster where nothing that is shown could come out otherwise."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return decode(line)
    if type(value) is not dict:
        raise ValueError("not an object")
    return value if is_plain(value) else decode(line)


def is_plain(value: dict[str, Any]) -> bool:
    """Whether all that may be shown of an entry is text: the quick decoder rounds long integers."""
    shown = [value.get(name) for name in ("content", "to", "timestamp", "type")]
    result, ksi, response = value.get("result"), value.get("ksi"), value.get("response")
    if type(result) is dict and value.get("type") == BUS_KIND:
        shown += [result.get(name) for name in ("response", "session_id", "model")]
    else:
        shown.append(result)
    if type(ksi) is dict:
        shown += [ksi.get("timestamp"), response.get("result") if type(response) is dict else response]
    return all(type(one) in _PLAIN for one in shown)
