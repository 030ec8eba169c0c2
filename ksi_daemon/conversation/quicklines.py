"""Many lines counted at once: a decoder that looks only at what is counted, and is checked where it is lax.

It takes exactly what `core.decode` takes, or gives up, and then each line is counted on its own:

- It does not mind bytes that are no UTF-8 in what it skips: the block is checked as a whole.
- It does not mind where lines end. So each newline is replaced by two nulls: these can stand between two
  objects and nowhere within one, so a value that reaches over a line's end is an error; and if objects and
  nulls come out in the order one, two, one, two, each line holds exactly one object.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ksi_daemon.conversation.core import CLAUDE, DIRECT, HUMAN, USER

if TYPE_CHECKING:
    from ksi_daemon.conversation.core import Tally

FEW = 64
"""Lines that are tried again together, when a larger block has one among them that is odd."""

_NEWLINE = b"\nnull null "
_LONGER = len(_NEWLINE) - 1


class _Ksi(msgspec.Struct, gc=False):
    timestamp: Any = None


class _Entry(msgspec.Struct, gc=False):
    timestamp: Any = None
    type: Any = None
    sender: Any = msgspec.field(default=None, name="from")
    ksi: _Ksi | None = None


_decode = msgspec.json.Decoder(_Entry | None).decode_lines
_ODD = (msgspec.MsgspecError, ValueError, TypeError, AttributeError, RecursionError)


def count(tally: Tally, block: bytes) -> None:
    """Count the lines of a block, which ends with a newline."""
    if _count_at_once(tally, block):
        return
    found = block.split(b"\n")[:-1]
    if len(found) > FEW:
        for start in range(0, len(found), FEW):
            count(tally, b"\n".join((*found[start : start + FEW], b"")))
    else:
        for line in found:
            tally.add_line(line)


def _count_at_once(tally: Tally, block: bytes) -> bool:
    """Count them if nothing about any of them is odd; if not, nothing is counted."""
    try:
        entries = _objects(block)
        stamps = [entry.timestamp for entry in entries]
        if None in stamps:
            entries, stamps = _own(entries)
        deque(map(datetime.fromisoformat, stamps), maxlen=0)
        kinds = {entry.type for entry in entries}
        direct = [entry.sender for entry in entries if entry.type == DIRECT] if DIRECT in kinds else ()
        senders = dict.fromkeys(direct)
    except _ODD:
        return False
    if stamps:
        _add(tally, stamps, kinds)
        tally.add_names(senders)
    return True


def _objects(block: bytes) -> list[_Entry]:
    """The object of each line. Raises something of `_ODD` unless each line is one and nothing else."""
    if not block.isascii():
        block.decode()
    apart = block.replace(b"\n", _NEWLINE)
    many = (len(apart) - len(block)) // _LONGER
    found = _decode(apart)
    nulls = [None] * many
    if len(found) != 3 * many or found[1::3] != nulls or found[2::3] != nulls:
        raise ValueError("not one value a line")
    return found[::3]  # a null among them has no attributes, which is odd


def _own(entries: list[_Entry]) -> tuple[list[_Entry], list[Any]]:
    """The entries with a stamp, and the stamps: those that the daemon itself wrote have it in `ksi`."""
    kept, stamps = list[_Entry](), list[Any]()
    for entry in entries:
        stamp = entry.timestamp
        if stamp is None and entry.ksi is not None:
            stamp, entry.type = entry.ksi.timestamp, CLAUDE
        if stamp is not None:
            kept.append(entry)
            stamps.append(stamp)
    return kept, stamps


def _add(tally: Tally, stamps: list[str], kinds: set[Any]) -> None:
    tally.count += len(stamps)
    tally.last = stamps[-1]
    if tally.first is None:
        tally.first = stamps[0]
    tally.claude = tally.claude or CLAUDE in kinds
    tally.user = tally.user or USER in kinds or HUMAN in kinds
