"""Conversations to measure on: as many session files as wanted, and what a right answer says of them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate.bench_proof import Broken

if TYPE_CHECKING:
    from pathlib import Path

LOGS: Final = "var/logs/responses"
RARE: Final = "quagga"
"""Stands in `HOLDERS` conversations: in one line of the first, two of the second, three of the third."""

HOLDERS: Final = 3
NEVER: Final = "thylacine"
_BORN: Final = int(datetime(2025, 7, 1, tzinfo=UTC).timestamp())
_LATER: Final = 10_000_000
"""Seconds after `_BORN` from which on lines are stamped that come later."""

_TEXTS: Final = (
    "The tests pass on my machine, so let us look at what differs between the two environments first. ",
    "I read the module twice; the lock is taken in the wrong order when a second caller comes in between. ",
    "Größe und Änderungszeit der Datei stimmen überein, der Inhalt nicht: wir brauchen einen Vergleich. ",
    "Please keep the old behaviour behind a flag until everyone has moved, then remove both together. ",
)
_FRAME: Final = 80
"""Bytes of a line besides its text."""


@dataclass(slots=True)
class Sessions:
    """`count` files of `lines` lines below a root, each line of about `size` bytes; made once, by `make`.

    It keeps account of every line, so that it can say what a listing must hold without reading anything.
    """

    root: Path
    count: int
    lines: int
    size: int
    _more: dict[int, list[str]] = field(default_factory=dict)
    _appended: int = 0
    _made: bool = False

    @property
    def words(self) -> str:
        """As the names of cases have it."""
        return f"{self.count:,} sessions of {self.lines:,} lines"

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.root / LOGS

    def make(self) -> None:
        """Write all files, once."""
        if self._made:
            return
        self.folder.mkdir(parents=True)
        for session in range(self.count):
            text = "".join(self._line(session, number) for number in range(self.lines))
            self._path(session).write_text(text, encoding="utf-8")
        self._made = True

    def append(self) -> None:
        """One line more at the end of a file, another one each time."""
        session = self._appended * 7 % self.count
        stamp = _stamp(_LATER + self._appended)
        self._appended += 1
        with open(self._path(session), "a", encoding="utf-8") as file:
            file.write(_entry("user", stamp, "One more thing."))
        self._more.setdefault(session, []).append(stamp)

    def rows(self) -> list[dict[str, Any]]:
        """What a listing of everything holds, latest first."""
        found = [self._row(session) for session in range(self.count)]
        return sorted(found, key=lambda row: str(row["last_timestamp"]), reverse=True)

    def matches(self) -> list[tuple[str, list[int]]]:
        """Where the rare word stands: session and line numbers, most matches first."""
        found = ((self._holders()[holder], holder + 1) for holder in range(HOLDERS))
        return [(name_of(session), self._lines_of(count)) for session, count in reversed(list(found))]

    def _row(self, session: int) -> dict[str, Any]:
        later = self._more.get(session, [])
        first = session * self.lines
        return {
            "session_id": name_of(session),
            "size_bytes": self._path(session).stat().st_size,
            "message_count": self.lines + len(later),
            "first_timestamp": _stamp(first),
            "last_timestamp": later[-1] if later else _stamp(first + self.lines - 1),
            "participants": ["Claude", "You"],
            "has_claude": True,
            "has_user": True,
        }

    def _path(self, session: int) -> Path:
        return self.folder / f"{name_of(session)}.jsonl"

    def _holders(self) -> list[int]:
        return [self.count * (holder + 1) // (HOLDERS + 1) for holder in range(HOLDERS)]

    def _lines_of(self, count: int) -> list[int]:
        return [self.lines * (at + 1) // (HOLDERS + 1) for at in range(count)]

    def _line(self, session: int, number: int) -> str:
        kind = "claude" if number % 2 else "user"
        text = _TEXTS[(session + number) % len(_TEXTS)]
        room = max(1, self.size - _FRAME)
        text = (text * (room // len(text) + 1))[:room]
        return _entry(kind, _stamp(session * self.lines + number), self._word(session, number) + text)

    def _word(self, session: int, number: int) -> str:
        holders = self._holders()
        if session not in holders:
            return ""
        return f"A {RARE.title()}! " if number in self._lines_of(holders.index(session) + 1) else ""


def name_of(session: int) -> str:
    """The id of a session."""
    return f"session-{session:06d}"


def _stamp(second: int) -> str:
    return f"{datetime.fromtimestamp(_BORN + second, UTC):%Y-%m-%dT%H:%M:%S}Z"


def _entry(kind: str, stamp: str, text: str) -> str:
    """A line as json.dumps writes it; our texts hold nothing that must be escaped."""
    return f'{{"type": "{kind}", "timestamp": "{stamp}", "content": "{text}"}}\n'


def prove_listing(where: str, reply: dict[str, Any], sessions: Sessions) -> None:
    """Raise `Broken` unless the reply lists every conversation, in order, with the right figures."""
    wanted = sessions.rows()
    found = [_facts(row, wanted[0]) for row in reply.get("conversations", ())]
    if (len(found), reply.get("total")) != (len(wanted), len(wanted)):
        raise Broken(where, f"{len(found)} of {reply.get('total')} are listed, there are {len(wanted)}")
    for place, (one, should) in enumerate(zip(found, wanted, strict=True)):
        if one != should:
            raise Broken(where, f"row {place} of the listing is {one}, not {should}")


def prove_search(where: str, reply: dict[str, Any], wanted: list[tuple[str, list[int]]]) -> None:
    """Raise `Broken` unless the search found these lines and no other."""
    found = [(row["session_id"], [match["line_num"] for match in row["matches"]]) for row in reply["results"]]
    if found != wanted:
        raise Broken(where, f"the search found {found}, not {wanted}")


def comparable(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply without what may differ between two sides: the order of participants (contract 4)."""
    return {key: _sorted(value) for key, value in reply.items()}


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    if isinstance(value, dict):
        return {key: sorted(one) if key == "participants" else _sorted(one) for key, one in value.items()}
    return value


def _facts(row: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    found = {key: row.get(key) for key in keys}
    return {**found, "participants": sorted(found["participants"] or ())}


def floor_ms(folder: Path) -> float:
    """What the least costs that finds out whether anything changed: one stat for each file."""
    begun = time.perf_counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            entry.stat()
    return 1e3 * (time.perf_counter() - begun)
