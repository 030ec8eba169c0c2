"""What a room declares about itself: the one record that registry, parity, bench and status read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ksi_daemon.exercise import Exercise
    from ksi_daemon.router import Event
    from ksi_daemon.site import Site

Kind = Literal["append", "replace", "read", "process"]


class Service(Protocol):
    """A room's event handlers, and all that it keeps in memory."""

    def events(self) -> Sequence[Event]:
        """The events that the room answers, in registration order."""

    async def start(self) -> None:
        """Bring memory up from disk; called before the first request is taken."""

    async def stop(self) -> None:
        """End what the service itself has running; called after the last reply."""

    def memory(self) -> dict[str, Any]:
        """What the service holds, as plain JSON values in a fixed order; parity compares it."""


@dataclass(frozen=True, slots=True)
class Area:
    """One component: its name is its folder, its flag and its word on the command line."""

    name: str
    title: str
    kind: Kind
    week: int
    contract: type
    sync: Callable[[Site], Any] | None
    """None once the component is retired: nothing is chosen any more, it is at `async` for good."""

    aio: Callable[[Site], Any]
    service: Callable[[Any, Site], Service]
    exercise: Exercise
    overlap: frozenset[str] = frozenset()
    """Events that a connection may take up while an earlier one's write is under way: their whole effect in
    memory happens in one step, after their own write, in the order of the writes."""

    reads: frozenset[str] = frozenset()
    """Contract methods that only read: a flip does not wait for them, they end where they began."""

    @property
    def built(self) -> bool:
        """Whether it has an async side, so that it can leave `sync`."""
        return True

    @property
    def retired(self) -> bool:
        """Whether its sync side was deleted, so that it cannot go back."""
        return self.sync is None

    @property
    def lowest(self) -> Literal["sync", "async"]:
        """The stage to which it can go back."""
        return "async" if self.retired else "sync"

    def control(self, site: Site) -> Any:
        """Its sync side. Raises `TypeError` for a retired component, which no caller may ask for it."""
        if self.sync is None:
            raise TypeError(f"{self.name} is retired")
        return self.sync(site)


@dataclass(frozen=True, slots=True)
class Planned:
    """A component of the roadmap that is not built yet: it has a name and a week, and stays at `sync`."""

    name: str
    title: str
    kind: Kind
    week: int

    @property
    def built(self) -> bool:
        """Never: enabling it is refused."""
        return False

    @property
    def retired(self) -> bool:
        """Never."""
        return False

    @property
    def lowest(self) -> Literal["sync"]:
        """The only stage that it can have."""
        return "sync"
