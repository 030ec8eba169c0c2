"""How a room reaches the other rooms and every client: by event name, so that none knows another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.router import Data, Event

    Listener = Callable[[Data], None]


class Hub:
    """One for all rooms of a daemon. Without arguments it reaches nobody, which is enough to try one room."""

    def __init__(
        self, router: Router | None = None, broadcast: Callable[[bytes], None] | None = None
    ) -> None:
        self._router = router if router is not None else Router()
        self._broadcast = broadcast
        self._listeners: dict[str, list[Listener]] = {}

    def events(self) -> list[Event]:
        """Every event that is answered, of all rooms and of the daemon itself, in registration order."""
        return self._router.events()

    async def ask(self, event: str, data: Data) -> Any:
        """What the handlers of an event answer, as a client would see it in `data`.

        An error is an answer too: an object with `error` and `code`. It raises nothing but `CancelledError`.
        """
        results = await self._router.emit(event, data)
        return results[0] if len(results) == 1 else results

    async def emit(self, event: str, data: Data) -> None:
        """Run the handlers of an event, if there are any; what they answer and how they fail is theirs."""
        if self._router.answers(event):
            await self._router.emit(event, data)

    def tell(self, event: str, data: Data) -> None:
        """Send a frame to every client, then call every listener, in the order in which they came.

        The frame is the original's (the KSI contract, 1.6): `timestamp` is the data's own or empty, and
        `correlation_id` is there only if the data has one. Raises `Unserialisable`.
        """
        frame = {"event": event, "data": data, "timestamp": data.get("timestamp", "")}
        if "correlation_id" in data:
            frame["correlation_id"] = data["correlation_id"]
        if self._broadcast is not None:
            self._broadcast(wire.encode(frame))
        for call in self._listeners.get(event, ()):
            call(data)

    def listen(self, event: str, call: Listener) -> None:
        """Have `call` called with the data of every such `tell`; it must neither raise nor wait."""
        self._listeners.setdefault(event, []).append(call)
