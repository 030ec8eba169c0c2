"""What a side and a service are given: the component's name, the settings, and its durability."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
