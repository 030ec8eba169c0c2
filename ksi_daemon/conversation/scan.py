"""The jobs of a refresh: the keeper looks what has changed, all read, the keeper takes in what they found.

The keeper is one worker, whose process keeps the index. Others never see it: what they need to know of a log
travels with their part of the work, which is told while the keeper still looks.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

from ksi_daemon.conversation import counted
from ksi_daemon.conversation.counted import Kept
from ksi_daemon.conversation.index import Index
from ksi_daemon.conversation.logfile import Seen, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksi_daemon.worker import Turn

FIRST = 1024 * 1024
"""Bytes to read up to which the keeper does it itself, at once; from there on others help."""

PART = 4 * 1024 * 1024
"""Bytes to read in each part of the work after the first; none has more than `FILES` logs."""

FILES = 800
"""Few enough for an even end, enough that workers seldom wait for the next part."""

CHECKED = 10
"""Small logs that are read between two looks whether anybody still waits; large ones look themselves."""

ROWS = 100
"""Rows in one word to the daemon, which takes a word in on its loop."""

_Todo = list[tuple[str, Kept | None]]
_Found = list[tuple[str, Kept | None]]
_indexes: dict[str, Index] = {}


class Part(NamedTuple):
    """A part of the work: how many logs, and which, as bytes that only workers look into."""

    files: int
    todo: bytes


class Read(NamedTuple):
    """What came of a part: how many logs, how many bytes were read, which are gone or could not be read.

    `found` is for the keeper.
    """

    files: int
    size: int
    missing: tuple[str, ...]
    failed: int
    found: bytes


class Plan(NamedTuple):
    """What the keeper saw: how many logs, and which are gone since the last time; `rest` it has read itself.

    `base` names the index that it compared with. `whole`: it has told the rows of all unchanged logs, too.
    """

    base: str
    total: int
    gone: tuple[str, ...]
    whole: bool
    rest: Read


class _Rows:
    """Tells summaries, a hundred at a time."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._some: list[tuple[Any, ...]] = []

    def add(self, session: str, kept: Kept) -> None:
        """Tell it, sooner or later."""
        self._some.append(tuple(counted.summary_of(session, kept)))
        if len(self._some) == ROWS:
            self.flush()

    def flush(self) -> None:
        """Tell what is left."""
        if self._some:
            self._turn.tell(self._some)
        self._some = []


def refresh(turn: Turn, folder: str, path: str, told: str) -> Plan:
    """Compare every log with the index; tell parts of what is to be read as they come, and read the rest.

    `told` is the version of the index whose rows the daemon has; if that is another one, all are told.
    """
    index = _index(folder, path)
    whole, rows = told != index.version, _Rows(turn)
    todo, size, limit = _Todo(), 0, FIRST
    present, known = set[str](), index.settled
    for some in listed(folder):
        turn.check()
        present.update(some)
        other = {session: found for session, found in some.items() if known.get(session) != found}
        for session, found in other.items():
            kept = index.kept.get(session)
            size += counted.left_to_read(kept, Seen._make(found))
            todo.append((session, kept))
            if size > limit or len(todo) == FILES:
                turn.tell(Part(len(todo), pickle.dumps(todo, pickle.HIGHEST_PROTOCOL)))
                todo, size, limit = [], 0, PART
        if whole:
            for session in some.keys() - other.keys():
                rows.add(session, index.kept[session])
    rows.flush()
    gone = tuple(index.kept.keys() - present)
    return Plan(index.version, len(present), gone, whole, _read(turn, folder, todo))


def read(turn: Turn, folder: str, todo: bytes) -> Read:
    """Count the logs of one part, and tell their rows."""
    return _read(turn, folder, pickle.loads(todo))  # noqa: S301 - from our own process


def _read(turn: Turn, folder: str, todo: _Todo) -> Read:
    found, rows, failed, size = _Found(), _Rows(turn), 0, 0
    for number, (session, kept) in enumerate(todo):
        if number % CHECKED == 0:
            turn.check()
        try:
            result = counted.count(folder, session, kept, turn.check)
        except OSError:
            failed += 1
            result = None
        if result is None:
            found.append((session, None))
            continue
        now = result[0].kept()
        found.append((session, now))
        rows.add(session, now)
        size += result[1]
    rows.flush()
    missing = tuple(session for session, kept in found if kept is None)
    return Read(len(found), size, missing, failed, pickle.dumps(found, pickle.HIGHEST_PROTOCOL))


def settle(_turn: Turn, folder: str, path: str, base: str, gone: Sequence[str], part: bytes) -> str:
    """Take in what was found in one part; the version of the index then.

    Nothing, when the index is not the one of the plan any more, because another process has taken over.
    """
    index = _index(folder, path)
    if index.version != base:
        return ""
    index.change(pickle.loads(part), gone)  # noqa: S301 - from our own process
    return index.version


def keep(_turn: Turn, folder: str, path: str) -> bool:
    """Save the index for the next process; whether there was something to save. Raises `OSError`."""
    return _index(folder, path).save()


def _index(folder: str, path: str) -> Index:
    """This process's index of a directory, taken up from its file when it is asked for first."""
    if folder not in _indexes:
        index = Index(folder, path)
        index.load()
        _indexes[folder] = index
    return _indexes[folder]
