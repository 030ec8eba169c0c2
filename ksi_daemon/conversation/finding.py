"""The job that searches a few conversations: it decodes only lines whose bytes look as if they matched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.conversation.core import Found
from ksi_daemon.conversation.logfile import BLOCK, blocks, log_of, only_folder, opened
from ksi_daemon.conversation.matching import MOST, Sieve, match
from ksi_daemon.conversation.pages import quick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ksi_daemon.conversation.core import Wanted
    from ksi_daemon.worker import Turn


FIRST = 16 * 1024
"""Bytes of a log that are looked at first: often there are enough matches among them."""


def find(turn: Turn, folder: str, sessions: Sequence[str], wanted: Wanted) -> list[Found]:
    """Those that match, `wanted.limit` at most, in their order. Raises `OSError` for the directory."""
    only_folder(folder)
    sieve, found = Sieve(wanted), list[Found]()
    for session in sessions:
        if len(found) >= wanted.limit:
            break
        turn.check()
        matches = _matches(log_of(folder, session), sieve, wanted, turn.check)
        if matches:
            found.append(Found(session, len(matches), orjson.dumps(matches)))
    return found


def _matches(path: str, sieve: Sieve, wanted: Wanted, check: Callable[[], None]) -> list[dict[str, Any]]:
    """The first few matches of one log; none of one that is gone or cannot be read."""
    found = list[dict[str, Any]]()
    try:
        with opened(path) as fd:
            for number, line in _candidates(fd, sieve, check):
                one = _match(number, line, wanted)
                if one is not None:
                    found.append(one)
                if len(found) == MOST:
                    break
    except OSError:
        return []
    return found


def _candidates(fd: int, sieve: Sieve, check: Callable[[], None]) -> Iterator[tuple[int, bytes]]:
    """The lines that may match, by number. Lines that were passed over are counted when one is found."""
    number = counted = at = 0
    for end, block in blocks(fd, 0, os.fstat(fd).st_size, check, FIRST):
        if sieve.passes(block):
            number += _newlines(fd, counted, at, check)
            found = block.split(b"\n")
            yield from ((number + n, line) for n, line in enumerate(found) if sieve.passes(line))
            number += len(found) - 1
            counted = end
        at = end


def _newlines(fd: int, start: int, end: int, check: Callable[[], None]) -> int:
    found = 0
    while start < end and (piece := os.pread(fd, min(BLOCK, end - start), start)):
        check()
        found += piece.count(b"\n")
        start += len(piece)
    return found


def _match(number: int, line: bytes, wanted: Wanted) -> dict[str, Any] | None:
    try:
        value = quick(line) if line else None
    except ValueError:
        return None
    return None if value is None else match(number, value, wanted)
