"""Conversations as they were: everything is read and parsed on the loop's thread, line by line."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.conversation import bus, exporting
from ksi_daemon.conversation.contract import Progress
from ksi_daemon.conversation.core import BUS, Found, Tally, Which, decode, exports_dir, summary
from ksi_daemon.conversation.logfile import is_absent, lines, listed, log_of, only_folder, open_log
from ksi_daemon.conversation.matching import MOST, match
from ksi_daemon.conversation.messages import bus_message, message
from ksi_daemon.conversation.paging import arranged, encoded, stamp
from ksi_daemon.errors import IoFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from ksi_daemon.conversation.contract import Told
    from ksi_daemon.conversation.core import Exported, Order, Page, Summary, Wanted
    from ksi_daemon.conversation.messages import Message
    from ksi_daemon.site import Site


class SyncConversations:
    """The control."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder = os.fspath(site.settings.response_log_dir)
        self._exports = exports_dir(site.settings)

    def open(self) -> None:
        """Remove what a crash has left of an export."""
        exporting.sweep(self._exports)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def refresh(self, told: Told | None) -> tuple[Summary, ...]:
        """Read all of every log."""
        try:
            sessions = sorted(chain.from_iterable(listed(self._folder)))
        except OSError as error:
            raise self._failed("list", self._folder, error) from error
        found = [one for session in sessions if (one := self._summary(session)) is not None]
        if told is not None:
            told(Progress(len(sessions), len(sessions), len(sessions)))
        return tuple(found)

    def search(self, among: Sequence[Summary], wanted: Wanted) -> tuple[Found, ...]:
        """Decode every line of one log after the other."""
        found: list[Found] = []
        try:
            if among:
                only_folder(self._folder)
        except OSError as error:
            raise self._failed("search", self._folder, error) from error
        for one in among:
            if len(found) >= wanted.limit:
                break
            matches = self._matches(one.session, wanted)
            if matches:
                found.append(Found(one.session, len(matches), orjson.dumps(matches)))
        return tuple(found)

    def read(self, which: Which) -> Page | None:
        """Decode every line, then keep the page."""
        try:
            messages = self._messages(which)
        except OSError as error:
            raise self._failed("read", log_of(self._folder, which.session), error) from error
        if messages is None:
            return None
        page = messages[which.offset : which.offset + which.limit]
        return encoded(len(messages), page, which.most)

    def export(self, order: Order) -> Exported | None:
        """Decode every line, and write."""
        try:
            messages = self._messages(Which(order.session, 0, exporting.MOST, None, 0))
            if messages is None:
                return None
            return exporting.write(self._exports, order, messages[: exporting.MOST])
        except OSError as error:
            raise self._failed("export", log_of(self._folder, order.session), error) from error

    def active(self, lines: int, since: float) -> bytes | None:
        """Decode the end of the bus's log."""
        try:
            return bus.active(self._folder, lines, since)
        except OSError as error:
            raise self._failed("read", log_of(self._folder, BUS), error) from error

    def _summary(self, session: str) -> Summary | None:
        """None for a log that is gone, or cannot be read."""
        tally = Tally()
        try:
            with self._open(session) as file:
                found = os.fstat(file.fileno())
                _count(tally, file)
        except OSError:
            return None
        return summary(session, found.st_size, found.st_mtime_ns, tally.counts())

    def _matches(self, session: str, wanted: Wanted) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with suppress(OSError), self._open(session) as file:
            for number, value in _values(file):
                one = match(number, value, wanted)
                if one is not None:
                    found.append(one)
                if len(found) == MOST:
                    return found
            return found
        return []

    def _messages(self, which: Which) -> list[Message] | None:
        """All of a log in order; None without a log. Raises `OSError`."""
        try:
            with self._open(which.session) as file:
                if which.session == BUS:
                    said = (bus_message(value, which.conversation) for _, value in _values(file))
                    return sorted((one for one in said if one is not None), key=stamp)
                return arranged(one for _, value in _values(file) if (one := message(value)) is not None)
        except OSError as error:
            if is_absent(error):
                return None
            raise

    def _open(self, session: str) -> BinaryIO:
        return open(log_of(self._folder, session), "rb", opener=open_log)

    def _failed(self, what: str, path: object, error: OSError) -> IoFailed:
        return IoFailed(self._site.component, f"{what} {path}", error)


def _count(tally: Tally, file: BinaryIO) -> None:
    """Count each line by `json.loads`, as the original did; what that does not bear is looked at twice."""
    for line in lines(file):
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError):
            tally.add_line(line)
        else:
            if type(value) is dict:
                tally.add(value)
            else:
                tally.skipped += 1


def _values(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a log, each with the number of its line."""
    loads = json.loads
    for number, line in enumerate(lines(file)):
        try:
            value = loads(line.decode())
        except (ValueError, RecursionError):
            value = _odd(line)
        if type(value) is dict:
            yield number, value


def _odd(line: bytes) -> dict[str, Any] | None:
    """What a line says that `json.loads` does not bear, if anything."""
    with suppress(ValueError):
        return decode(line)
    return None
