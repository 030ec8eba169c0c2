"""Discovery as it was: `subprocess.run` for each pattern of each event, files parsed inline."""

import subprocess
import time
from collections.abc import Callable

from ksi_daemon.discovery import core, output, tree
from ksi_daemon.discovery.cache import Cache
from ksi_daemon.discovery.core import Example, Found, Match, Query
from ksi_daemon.discovery.failures import RgFlood, RgTooSlow, not_seen
from ksi_daemon.discovery.places import Places
from ksi_daemon.errors import IoFailed
from ksi_daemon.site import Site


class SyncCodeSearch:
    """The control. The loop stands still until all is found; nothing that was begun can be ended."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._settings = site.settings
        self._places = Places(site)
        self._cache = Cache(site.settings.discovery_fresh)

    def open(self) -> None:
        """Begin with nothing known; end what an earlier daemon left running."""
        self._cache.clear()
        self._places.begin()

    def close(self) -> None:
        """Nothing runs between two calls."""

    def mine(self, events: tuple[str, ...]) -> dict[str, tuple[Example, ...]]:
        """One event after the other, one run for each of its three patterns."""
        self._look()
        known = self._cache.examples(events)
        for event in core.minable(events):
            if event not in known:
                known[event] = self._mine(event)
        return {event: known.get(event, ()) for event in events}

    def search(self, query: Query, told: Callable[[Match], None] | None) -> Found:
        """One run, and then all of it at once."""
        self._look()
        found = self._cache.search(query)
        if found is None:
            found = self._search(query)
            self._cache.keep_search(query, found, self._cache.searched_epoch)
        core.tell(found.matches, told)
        return found

    def _mine(self, event: str) -> tuple[Example, ...]:
        emitting: dict[str, set[str]] = {}
        whole = True
        for pattern in core.patterns_of(event):
            largest = self._settings.discovery_max_file_bytes
            try:
                done = self._run(core.argv_of_mining(pattern, largest, self._places.left_out))
            except subprocess.TimeoutExpired:
                raise RgTooSlow(self._settings.discovery_timeout) from None
            if len(done.stdout) > core.MOST_OUTPUT:
                raise RgFlood(core.MOST_OUTPUT)
            found = output.Emitters(emitting)
            found.feed(done.stdout)
            whole = found.messages.whole(done.returncode, done.stderr) and whole
        files = [(path, (event,)) for path in core.first_files(emitting).get(event, ())]
        rows = tree.examples(self._places.tree, files, self._settings.discovery_max_file_bytes, _go_on)
        examples = core.chosen(row for _, row in rows)
        if whole:
            self._cache.keep_examples({event: examples}, self._cache.mined_epoch)
        return examples

    def _search(self, query: Query) -> Found:
        found = output.Matches(query)
        largest = self._settings.discovery_max_file_bytes
        try:
            done = self._run(core.argv_of(query, largest, self._places.left_out))
        except subprocess.TimeoutExpired as late:
            found.feed(late.stdout or b"")
            return found.cut_off("time")
        found.feed(done.stdout[: core.MOST_OUTPUT])
        if len(done.stdout) > core.MOST_OUTPUT:
            return found.cut_off("bytes")
        return found.found(done.returncode, done.stderr)

    def _run(self, argv: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
        program = self._places.program()
        try:
            return subprocess.run(
                [program, *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=self._places.tree,
                env=self._places.environment(),
                timeout=self._settings.discovery_timeout,
                check=False,
            )
        except OSError as error:
            raise IoFailed(self._site.component, f"run {program}", error) from error

    def _look(self) -> None:
        """Look at the tree again, if the last look was too long ago."""
        now = time.monotonic()
        if self._cache.due(now):
            try:
                limit = self._settings.discovery_timeout
                found = tree.look(self._places.tree, self._places.left_out, limit, _go_on)
            except OSError as error:
                raise not_seen(self._site.component, self._places.tree, error) from error
            self._cache.looked(found, now)


def _go_on() -> None:
    """Nobody can ask this side to stop."""
