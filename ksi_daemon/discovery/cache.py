"""What was found, kept until the tree changes. No I/O: the sides look at the tree, and say what they saw."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ksi_daemon.discovery.tree import Look

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ksi_daemon.discovery.core import Example, Found, Query

MOST_SEARCHES: Final = 64
MOST_BYTES: Final = 4 * 1024 * 1024
SHARE: Final = 20
"""The pause between two looks is at least so many times as long as a look takes."""

_NOTHING: Final = Look(b"", b"", 0.0)


class Cache:
    """One side's. What was found in an earlier tree, by its epoch, is not kept.

    Examples hold while no Python file changes, searches while no file does: logs may grow in the tree.
    """

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s = fresh_s
        self._pause = fresh_s
        self._looked: float | None = None
        self._seen = _NOTHING
        self._examples: dict[str, tuple[Example, ...]] = {}
        self._searches: OrderedDict[Query, Found] = OrderedDict()
        self._size = 0
        self.mined_epoch = 0
        self.searched_epoch = 0

    def due(self, now: float) -> bool:
        """Whether the last look was too long ago, or there was none."""
        return self._looked is None or now - self._looked >= self._pause

    def looked(self, found: Look, now: float) -> None:
        """Take note of a look that began at `now`; forget what it shows to be of another tree."""
        if not found.python or found.python != self._seen.python:
            self._forget_examples()
        if not found.files or found.files != self._seen.files:
            self._forget_searches()
        self._seen, self._looked = found, now
        self._pause = max(self._fresh_s, SHARE * found.took_s)

    def clear(self) -> None:
        """Forget everything; the next request looks at the tree."""
        self._seen, self._looked = _NOTHING, None
        self._forget_examples()
        self._forget_searches()

    def examples(self, events: Iterable[str]) -> dict[str, tuple[Example, ...]]:
        """Of those events of which they are known."""
        known = self._examples
        return {event: known[event] for event in events if event in known}

    def keep_examples(self, found: Mapping[str, tuple[Example, ...]], epoch: int) -> None:
        """Keep what was mined, if the tree is still that of `epoch`."""
        if epoch == self.mined_epoch:
            self._examples.update(found)

    def search(self, query: Query) -> Found | None:
        """What such a search found, if that is known."""
        if query in self._searches:
            self._searches.move_to_end(query)
        return self._searches.get(query)

    def keep_search(self, query: Query, found: Found, epoch: int) -> None:
        """Keep what a search found, if it is whole; the one that was not used for longest gives way."""
        if epoch != self.searched_epoch or not found.whole or query in self._searches:
            return
        self._searches[query] = found
        self._size += found.size
        while len(self._searches) > MOST_SEARCHES or self._size > MOST_BYTES:
            _, gone = self._searches.popitem(last=False)
            self._size -= gone.size

    def _forget_examples(self) -> None:
        self.mined_epoch += 1
        self._examples.clear()

    def _forget_searches(self) -> None:
        self.searched_epoch += 1
        self._searches.clear()
        self._size = 0
