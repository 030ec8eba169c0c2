"""The identity store as it was: everything is encoded and written for each change, on the loop's thread."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ksi_daemon.agent import core
from ksi_daemon.agent.store import Store
from ksi_daemon.site import Site


class SyncIdentities:
    """The control. The new content takes the old one's place by rename, so a failure leaves the old one."""

    def __init__(self, site: Site) -> None:
        self._store = Store(site)

    def open(self) -> None:
        """Remove what a crash has left; nothing is kept open."""
        self._store.open()

    def close(self) -> None:
        """Nothing is open between two calls."""

    def load(self) -> dict[str, Any]:
        """Read and decode the whole file."""
        return self._store.read(core.decode)

    def save(self, identities: Mapping[str, Any], changed: Sequence[str]) -> None:  # noqa: ARG002 - all is written
        """Encode and write all of them."""
        everything = core.whole(identities)

        def write(fd: int) -> None:
            with open(fd, "w", encoding="utf-8", closefd=False) as file:
                json.dump(everything, file, indent=2)

        try:
            self._store.replace(write)
        except core.ENCODING_FAILS as error:
            raise core.unserialisable(error) from error
