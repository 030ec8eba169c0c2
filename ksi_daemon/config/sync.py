"""Configuration as it was: read, parsed, dumped and written on the loop's thread, by pure Python."""

from dataclasses import replace

from ksi_daemon.config import core, work
from ksi_daemon.config.backups import Shelf
from ksi_daemon.config.core import Checked, Found, Kept, RolledBack, Target, Written
from ksi_daemon.site import Site


class SyncConfigFiles:
    """The control. New content takes the old one's place by rename, so a failure leaves the old one."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._place = core.place(site)
        self._shelf = Shelf()

    def open(self) -> None:
        """Nothing is kept open."""

    def close(self) -> None:
        """Nothing is open between two calls."""

    def get(self, target: Target, key: str) -> Found:
        """Parse the whole file and look."""
        return work.get(self._worker(), target, key)

    def put(self, target: Target, key: str, value: bytes, backup: bool, now: float) -> Written:
        """Parse the whole file, change, dump all of it."""
        return work.put(self._worker(), target, key, value, backup, now)

    def validate(self, target: Target, schema: Target | None) -> Checked:
        """Parse the whole file, and the schema."""
        return work.validate(self._worker(), target, schema)

    def backup(self, target: Target, name: str, now: float) -> Kept:
        """Copy the file."""
        return work.backup(self._worker(), target, name, now)

    def rollback(self, target: Target, name: str, now: float) -> RolledBack:
        """Copy the backup back."""
        return work.rollback(self._worker(), target, name, now)

    def _worker(self) -> work.Worker:
        place = replace(self._place, durability=self._site.durability)
        return work.Worker(place, work.Plain(), self._shelf)
