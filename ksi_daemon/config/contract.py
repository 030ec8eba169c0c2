"""All that the configuration service knows of its files."""

from typing import Protocol

from ksi_daemon.config.core import Checked, Found, Kept, RolledBack, Target, Written


class ConfigFiles(Protocol):
    """Configuration files and their backups. Each call does its whole work on one file, in their order.

    All raise `PathRefused`, `NoFile`, `Failed` for what the system says, `TooLarge`, `ComponentBusy` when the
    file's lock or a worker does not come, `ComponentClosed`. Those that write raise `OutcomeUnknown` when it
    cannot be said what came of them; else an error means that nothing was changed. A cancelled caller of one
    that has begun to write waits for the outcome.
    """

    async def get(self, target: Target, key: str) -> Found:
        """The value at a dotted key, `*` for all. Raises `KeyMissing`, `NotUnderstood`."""

    async def put(self, target: Target, key: str, value: bytes, backup: bool, now: float) -> Written:
        """Set a key to a JSON value, after a backup if there is something to keep.

        `now` is the time of the request; backups are named and stamped with it. Raises `Unusable`,
        `NotUnderstood`.
        """

    async def validate(self, target: Target, schema: Target | None) -> Checked:
        """Whether a file can be loaded, and what else is wrong with it."""

    async def backup(self, target: Target, name: str, now: float) -> Kept:
        """Copy a file to the backups, under a name or one of its own when that is empty."""

    async def rollback(self, target: Target, name: str, now: float) -> RolledBack:
        """Bring a backup back, after a copy of what is there; without a name one step.

        Raises `BackupMissing`.
        """
