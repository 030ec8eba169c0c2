"""Identities in memory: what is saved, and laid over it the changes whose saves are under way.

How outcomes may come, and what is done:

- A save succeeds: the file holds what its view had, so its change and all before it enter `saved`, in order.
- A save fails: its change falls, and with it all that were begun after it, since they built on it. Those
  before it have an outcome of their own: a value that cannot be encoded costs only its own save.
- A fallen change waits at the switch's gate: its view raises the error that felled it.
- A fallen change succeeds all the same, because it was handed over before the failure was known here: the
  file holds what was refused, so whoever made it makes it again, and the next save names the fallen ids.
- A change that was never handed over is cancelled: it is withdrawn, and later ones stand.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ksi_daemon.agent import core

if TYPE_CHECKING:
    from collections.abc import Mapping


class Change:
    """New identities by id, None for one that goes; `changed` are the ids to name to the store."""

    __slots__ = ("changed", "felled_by", "under_way", "values")

    def __init__(self, values: Mapping[str, Any], stale: Mapping[str, None]) -> None:
        self.values = values
        self.changed = tuple(dict.fromkeys((*values, *stale)))
        self.under_way = True
        self.felled_by: Exception | None = None


class View(core.View):
    """All identities as they are after one change, whatever came behind it; raises what felled the change."""

    __slots__ = ("_change", "_overlay")

    def __init__(self, overlay: Overlay, change: Change) -> None:
        super().__init__(overlay.saved, change.values)
        self._overlay = overlay
        self._change = change

    def __getitem__(self, agent: str) -> Any:
        self._check()
        if agent not in self._change.values:
            return self._overlay.after(self._change)[agent]
        if (found := self._change.values[agent]) is None:
            raise KeyError(agent)
        return found

    def __repr__(self) -> str:
        return repr(self._overlay.after(self._change))

    def copy(self) -> dict[str, Any]:
        """A dict of it, in the order of the file."""
        self._check()
        return dict(self._overlay.after(self._change))

    def _check(self) -> None:
        if self._change.felled_by is not None:
            raise self._change.felled_by


class Overlay:
    """`saved` is what the file holds; `latest` is that with every change under way. Read them, no more."""

    def __init__(self, saved: dict[str, Any] | None = None) -> None:
        self.saved: dict[str, Any] = {} if saved is None else saved
        self.latest = dict(self.saved)
        self._under_way: deque[Change] = deque()
        self._stale: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def add(self, values: Mapping[str, Any]) -> Change:
        """Begin a change, on top of all others."""
        change = Change(values, self._stale)
        self._under_way.append(change)
        _apply(self.latest, change)
        return change

    def done(self, change: Change) -> bool:
        """Its save has succeeded. False when the change has fallen meanwhile and is to be made again."""
        while change.under_way:
            first = self._under_way.popleft()
            first.under_way = False
            _apply(self.saved, first)
            for agent in first.changed:
                self._stale.pop(agent, None)
        return change.felled_by is None

    def fall(self, change: Change, error: Exception) -> None:
        """Its save has failed; harmless when the change has fallen already."""
        if not change.under_way:
            return
        while change.under_way:
            last = self._under_way.pop()
            last.under_way = False
            last.felled_by = error
            self._stale.update(dict.fromkeys(last.values))
        self._lay_again()

    def withdraw(self, change: Change) -> None:
        """It was never handed to the store; harmless when the change has fallen already."""
        if change.under_way:
            change.under_way = False
            self._under_way.remove(change)
            self._lay_again()

    def after(self, change: Change) -> dict[str, Any]:
        """What is saved and each change under way up to this one."""
        if self._under_way and self._under_way[-1] is change:
            return self.latest
        found = dict(self.saved)
        if change.under_way:
            for earlier in self._under_way:
                _apply(found, earlier)
                if earlier is change:
                    break
        return found

    def _lay_again(self) -> None:
        self.latest = dict(self.saved)
        for change in self._under_way:
            _apply(self.latest, change)


def _apply(identities: dict[str, Any], change: Change) -> None:
    for agent, identity in change.values.items():
        core.apply(identities, agent, identity)
