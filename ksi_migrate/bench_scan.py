"""The original's calls over conversations: every file opened as text, every line parsed, on each refresh."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Row = dict[str, Any]

FRESH_S: Final = 60
MOST_MATCHES: Final = 10
PREVIEW: Final = 200


class Scan:
    """What the original does in one blocking run (contract 3.3), on a cache of its own."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._cache: dict[str, Row] = {}
        self._filled_at: float | None = None

    def listing(self, now: float, limit: int) -> Row:
        """`conversation:list`: refreshed first when the cache is too old."""
        if self._filled_at is None or now - self._filled_at > FRESH_S:
            self._refresh(now)
        rows = sorted(self._cache.values(), key=lambda row: row["last_timestamp"] or "", reverse=True)
        return {"conversations": rows[:limit], "total": len(rows), "offset": 0, "limit": limit}

    def search(self, query: str, limit: int = 50) -> Row:
        """`conversation:search` in content and sender, over the cache as it is."""
        query = query.lower()
        results: list[Row] = []
        for session, row in self._cache.items():
            matches = list(_matches(self._folder / f"{session}.jsonl", query))
            if matches:
                one = {"session_id": session, "conversation_metadata": row, "matches": matches}
                results.append({**one, "match_count": len(matches)})
            if len(results) >= limit:
                break
        results.sort(key=lambda one: one["match_count"], reverse=True)
        return {"query": query, "results": results, "total_conversations": len(results)}

    def _refresh(self, now: float) -> None:
        self._cache.clear()
        for path in self._folder.glob("*.jsonl"):
            self._cache[path.stem] = self._read(path)
        self._filled_at = now

    def _read(self, path: Path) -> Row:
        found = path.stat()
        stamps: list[str] = []
        participants: set[str] = set()
        with open(path, encoding="utf-8") as file:
            for line in file:
                _count(line, stamps, participants)
        return {
            "session_id": path.stem,
            "file_path": str(path.relative_to(self._root)),
            "size_bytes": found.st_size,
            "modified_timestamp": datetime.fromtimestamp(found.st_mtime, UTC).isoformat(),
            "message_count": len(stamps),
            "first_timestamp": stamps[0] if stamps else None,
            "last_timestamp": stamps[-1] if stamps else None,
            "participants": list(participants),
            "has_claude": "Claude" in participants,
            "has_user": "You" in participants,
        }


def _count(line: str, stamps: list[str], participants: set[str]) -> None:
    try:
        entry = json.loads(line.strip())
        stamp = entry.get("timestamp")
        if not stamp:
            return
        datetime.fromisoformat(stamp.replace("Z", "+00:00"))  # noqa: FURB162 - as the original calls it
    except (ValueError, TypeError, AttributeError):
        return
    stamps.append(stamp)
    kind = entry.get("type")
    if kind in {"user", "human"}:
        participants.add("You")
    elif kind == "claude":
        participants.add("Claude")
    elif kind == "DIRECT_MESSAGE":
        participants.add(entry.get("from"))


def _matches(path: Path, query: str) -> Iterator[Row]:
    found = 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file):
            try:
                entry = json.loads(line.strip())
            except ValueError:
                continue
            content = entry.get("content") or entry.get("result") or ""
            sender = "You" if entry.get("type") in {"user", "human"} else "Claude"
            if query in content.lower() or query in sender.lower():
                yield {
                    "line_num": number,
                    "timestamp": entry.get("timestamp"),
                    "type": entry.get("type"),
                    "content_preview": content[:PREVIEW],
                    "sender": sender,
                }
                found += 1
                if found == MOST_MATCHES:
                    return
