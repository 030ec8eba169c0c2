"""All that the agent service knows of where identities are kept."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class IdentityStore(Protocol):
    """One file that holds all identities: agent id → identity."""

    async def load(self) -> dict[str, Any]:
        """Every identity, in the order of the file; a missing file has none.

        A file that cannot be understood is set aside beside its place, with the time, and has none. Raises
        `IoFailed` when it cannot be read.
        """

    async def save(self, identities: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Replace the file by `identities`, of which the `changed` ids are new, other or gone since the last.

        When it returns the file holds them (`fsync`: on the disk). Saves take effect in the order of the
        calls, whose view is taken before the first wait. When one fails the file is as it was, and every save
        that was called before and has not returned fails too. Raises `IoFailed`, `OutcomeUnknown`,
        `ComponentBusy`, `ComponentClosed`, `Unserialisable`. A cancelled caller still waits for the outcome
        and gets it with its `CancelledTooLate`.
        """
