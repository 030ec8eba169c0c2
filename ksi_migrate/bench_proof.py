"""Whether a log holds what its callers were promised: figures for lost lines would be worth nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksi_migrate.exits import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Broken(Finding):
    """After a round the log does not hold each line once, in the order of its caller."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(
            f"{where}: {what}", "this is a fault of the daemon: run ksi-migrate parity, and report it"
        )


def check(where: str, content: bytes, written: Sequence[Sequence[bytes]]) -> None:
    """Raise `Broken` unless `content` is what each caller wrote, its own lines in its own order."""
    places = {line: (caller, at) for caller, lines in enumerate(written) for at, line in enumerate(lines)}
    following = [0] * len(written)
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if line not in places:
            raise Broken(where, f"line {number} of the log was written by nobody: {line[:80]!r}")
        caller, at = places[line]
        if at != following[caller]:
            text = f"caller {caller} has its line {at} where its line {following[caller]} belongs"
            raise Broken(where, f"line {number} of the log: {text}")
        following[caller] += 1
    missing = len(places) - sum(following)
    if missing:
        raise Broken(where, f"{missing} of {len(places)} acknowledged lines are not in the log")


def check_count(where: str, content: bytes, count: int) -> None:
    """Raise `Broken` unless `content` is `count` different whole lines; the reference encodes its own."""
    found = content.splitlines(keepends=True)
    different = len(set(found))
    if (len(found), different) != (count, count) or not content.endswith(b"\n"):
        raise Broken(where, f"{len(found)} lines are in the log, {different} of them different, not {count}")


def check_sequences(where: str, records: Iterable[tuple[str, int]], acknowledged: Mapping[str, int]) -> None:
    """Raise `Broken` unless the records are each sender's numbers from 0 on, as many as were acknowledged."""
    following = dict.fromkeys(acknowledged, 0)
    for sender, number in records:
        if number != following.get(sender):
            raise Broken(where, f"the log has number {number} of {sender}, not {following.get(sender)}")
        following[sender] += 1
    if following != dict(acknowledged):
        raise Broken(where, f"the log has {following}, but {dict(acknowledged)} were acknowledged")
