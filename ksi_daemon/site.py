"""What a side and a service are given: the component's name, the settings, its durability, and the hub."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ksi_daemon.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.settings import Settings

Durability = Literal["os", "fsync"]
"""`os`: handed to the kernel, as the original did. `fsync`: on the disk before the reply."""


@dataclass(slots=True)
class Site:
    """One component's place; both of its sides share one, so a changed durability reaches either."""

    component: str
    settings: Settings
    durability: Durability = "os"
    clock: Callable[[], float] = time.time
    """Seconds since the epoch; parity and tests give one that they control."""

    hub: Hub = field(default_factory=Hub)
    """The way to the other rooms and to the clients."""

    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    """A new request or agent id, of UUID form; parity gives ids that both sides share."""
