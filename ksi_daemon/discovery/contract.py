"""All that the service of discovery knows of the source tree and of `rg`."""

from collections.abc import Callable
from typing import Protocol

from ksi_daemon.discovery.core import Example, Found, Match, Query


class CodeSearch(Protocol):
    """The source tree, searched. What was found is kept until the tree changes."""

    async def mine(self, events: tuple[str, ...]) -> dict[str, tuple[Example, ...]]:
        """Examples of each event, from the tree's Python files: at most two, by path and line.

        Raises `RgMissing`, `TreeMissing`, `TreeTooLarge`, `RgFailed`, `RgFlood`, `RgTooSlow`, `IoFailed`;
        async also `ComponentBusy`, `WorkerFailed`, `ComponentClosed`. Cancelled (async), it goes on only if
        others want it, too.
        """

    async def search(self, query: Query, told: Callable[[Match], None] | None) -> Found:
        """What `rg` finds, by path and line; `told`, if any, gets each match while it is found.

        A limit that is reached ends it, and `Found.stopped` says which. Raises as `mine`, and `BadPattern`.
        """
