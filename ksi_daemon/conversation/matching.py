"""Whether an entry matches a search, and how a match is shown. Pure; both sides decide here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ksi_daemon.conversation.core import HUMAN, IT, USER, YOU, clean, plain
from ksi_daemon.conversation.messages import spoken

if TYPE_CHECKING:
    from ksi_daemon.conversation.core import Wanted

MOST = 10
"""Matches of one conversation that are shown; then no more of it is looked at."""

SHOWN = 200
BEFORE = 50
AFTER = 150
"""Characters of a preview: of a whole one, and around a hit that is further in than `BEFORE`."""

_KELVIN = "\u212a".encode()
_DOTTED_I = "\u0130".encode()
_WRITTEN = re.compile(rb"\\u(?:00[0-7]|212[aA]|0130)")
"""The two letters beyond ASCII that become ASCII in lower case, k and i with a dot, and how JSON may
write these and all of ASCII by number."""


def match(number: int, value: dict[str, Any], wanted: Wanted) -> dict[str, Any] | None:
    """The match of the entry in line `number`, counted from 0; None if it is none."""
    content, result = value.get("content"), value.get("result")
    if "ksi" in value:
        _, _, content, result = spoken(value)
    hit = None
    if wanted.content:
        if type(content) is str and wanted.text in content.lower():
            hit = content
        elif type(result) is str and wanted.text in result.lower():
            hit = result
    if hit is None and not wanted.sender:
        return None
    said = spoken(value)
    sender = YOU if said.kind in (USER, HUMAN) else IT
    if hit is None:
        if wanted.text not in sender.lower():
            return None
        hit = next((text for text in (content, result) if type(text) is str), "")
    return {
        "line_num": number,
        "timestamp": plain(said.stamp),
        "type": plain(said.kind),
        "content_preview": preview(clean(hit), wanted.text),
        "sender": sender,
    }


def preview(text: str, query: str) -> str:
    """A text if it is short, else its beginning or the surroundings of the first hit."""
    if len(text) <= SHOWN:
        return text
    at = text.lower().find(query)
    if at > BEFORE:
        return f"...{text[at - BEFORE : at + AFTER]}..."
    return f"{text[:SHOWN]}..."


class Sieve:
    r"""Tells from a line's bytes that it cannot match, so that it need not be decoded.

    Sound, not complete: what passes may still not match. A query in ASCII stands in a log as it is, in upper
    or lower case, but for characters that JSON escapes, which are left out here if the query has any, and for
    those that are written as `\u....`, or become ASCII in lower case. One byte is found ten times as fast as
    two, so the first one is looked for alone where it is rare.
    """

    def __init__(self, wanted: Wanted) -> None:
        by_sender = wanted.sender and any(wanted.text in name.lower() for name in (YOU, IT))
        self._all = by_sender or not wanted.content
        self._ascii = wanted.text.isascii()
        self._needle = max(_runs(wanted.text), key=len, default="").encode() if self._ascii else b""
        self._all = self._all or (self._ascii and not self._needle)

    def passes(self, data: bytes) -> bool:
        """Whether a match is possible in a line, or in any of the lines of a block."""
        if self._all:
            return True
        if not self._ascii:
            return b"\\u" in data or not data.isascii()
        if self._needle in data.lower() or (b"\\" in data and b"\\u" in data and _WRITTEN.search(data)):
            return True
        if data.isascii():
            return False
        return (_KELVIN[:1] in data and _KELVIN in data) or (_DOTTED_I[:1] in data and _DOTTED_I in data)


def _runs(text: str) -> list[str]:
    """The parts of a query without characters that JSON may escape in another way than by number."""
    return "".join(one if one >= " " and one not in '"\\/' else "\0" for one in text).split("\0")
