"""Messages without repetitions, in the order of their stamps, and a page of them. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.conversation.core import Page
from ksi_daemon.conversation.failures import ReplyTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ksi_daemon.conversation.core import Which
    from ksi_daemon.conversation.messages import Message

LONG = 64
"""Characters from which on a content is remembered by its digest."""


class OutOfOrder(Exception):
    """A stamp is earlier than the one before, so that the page needs all of the log."""


def key(message: Message) -> tuple[Any, ...]:
    """What two messages of the same stamp must have in common to be one."""
    content = message["content"]
    if type(content) is not str:
        content = json.dumps(content)
    if len(content) > LONG:
        content = hashlib.sha1(content.encode(), usedforsecurity=False).digest()
    return (message["sender"], content)


def stamp(message: Message) -> str:
    """What a message is ordered by: the raw text, as in the original; none comes first."""
    text: str | None = message["timestamp"]
    return text or ""


def arranged(messages: Iterable[Message]) -> list[Message]:
    """All of them: repetitions left out, then ordered."""
    seen: dict[tuple[Any, ...], Message] = {}
    for message in messages:
        content = message["content"]
        if type(content) is not str:
            content = json.dumps(content)
        seen.setdefault((message["timestamp"] or "", message["sender"], content), message)
    return sorted(seen.values(), key=stamp)


class Window:
    """A page of messages that come in the order of their stamps; holds no more than the page."""

    def __init__(self, which: Which, *, repetitions: bool = False) -> None:
        self._which = which
        self._repetitions = repetitions
        self._last = ""
        self._same: set[tuple[Any, ...]] = set()
        self._size = 0
        self.total = 0
        self.messages: list[Message] = []

    def add(self, message: Message) -> None:
        """Take the next one. Raises `OutOfOrder`, `ReplyTooLarge`."""
        at = stamp(message)
        if at < self._last:
            raise OutOfOrder
        if at != self._last:
            self._same.clear()
            self._last = at
        if not self._repetitions:
            known = key(message)
            if known in self._same:
                return
            self._same.add(known)
        self.put(message)

    def put(self, message: Message) -> None:
        """Take one that is known to be the next, and no repetition. Raises `ReplyTooLarge`."""
        if self._which.offset <= self.total < self._which.offset + self._which.limit:
            content = message["content"]
            self._size += len(content) if type(content) is str else 0
            if self._size > self._which.most:
                raise ReplyTooLarge(self._which.most)
            self.messages.append(message)
        self.total += 1

    def page(self) -> Page:
        """What was taken."""
        return encoded(self.total, self.messages, self._which.most)


def encoded(total: int, messages: list[Message], most: int) -> Page:
    """A page as a reply has it. Raises `ReplyTooLarge`."""
    data = orjson.dumps(messages)
    if len(data) > most:
        raise ReplyTooLarge(most)
    return Page(total, data)
