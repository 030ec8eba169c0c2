"""What the journal says of one component: since when it is at async without a rollback. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ksi_daemon.flags import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Stay:
    """At async since `at` (UTC, as the journal has it), with the generation that the daemon gave it."""

    at: str
    generation: int | None

    def since(self) -> datetime | None:
        """The time; None for one that cannot be read."""
        try:
            found = datetime.fromisoformat(self.at)
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)


def stay_of(entries: Iterable[Mapping[str, Any]], component: str) -> Stay | None:
    """The stay that lasts to the journal's end; None when the component is not at async, or was asked back.

    A rollback ends it at once, also one that no daemon has acted on yet; an `enable` that comes before any
    flip begins it anew. The order is that of the lines, since clocks go back.
    """
    stage, stay = Stage.SYNC.value, None
    for entry in entries:
        action, to = entry.get("action"), entry.get("to")
        if entry.get("component") != component:
            continue
        if action == "flip":
            stage = str(to)
            stay = _begun(entry) if to == Stage.ASYNC else None
        elif action == "rollback":
            stay = None
        elif action == "enable" and stay is None and to == stage == Stage.ASYNC:
            stay = _begun(entry)
    return stay


def rollbacks(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every flip that went down and was asked for by a rollback: that it came into force is what counts."""
    asked: set[object] = set()
    found = []
    for entry in entries:
        name = entry.get("component")
        if entry.get("action") == "rollback":
            asked.add(name)
        elif entry.get("action") == "enable":
            asked.discard(name)
        elif entry.get("action") == "flip" and entry.get("to") == Stage.SYNC and name in asked:
            asked.remove(name)
            found.append(entry)
    return found


def _begun(entry: Mapping[str, Any]) -> Stay:
    generation = entry.get("generation")
    return Stay(str(entry.get("at")), generation if isinstance(generation, int) else None)
