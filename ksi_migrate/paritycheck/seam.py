"""The seam between a service and its side, with every call and its outcome written down."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ksi_migrate.paritycheck.sides import Backend


class Seam:
    """A side as the service gets it. What passed is told sorted: order is a matter of the bytes on disk."""

    def __init__(self, backend: Backend, methods: Iterable[str]) -> None:
        self._backend = backend
        self._calls: list[str] = []
        for name in methods:
            setattr(self, name, self._noted(name))

    def take(self) -> list[str]:
        """The calls that ended since the last question: name, arguments, outcome."""
        calls, self._calls = sorted(self._calls), []
        return calls

    def _noted(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            given = [_Feed(arg) if callable(arg) else arg for arg in args]
            # At the call, not after it: a mapping may be a view of what changes meanwhile
            told = [arg if isinstance(arg, _Feed) else repr(arg) for arg in given]
            outcome = "cancelled, or an error that the contract does not have"
            try:
                result = await getattr(self._backend, name)(*given)
                outcome = repr(result)
                return result
            except KsiError as error:
                outcome = f"{type(error).__name__} {error.code}: {error}"
                raise
            finally:
                self._calls.append(f"{name}({', '.join(map(str, told))}) → {outcome}")

        return call


class _Feed:
    """A callback that counts what it was given, and keeps its digest and the last."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._count = 0
        self._digest = hashlib.sha256()
        self._last: object = None

    def __call__(self, *items: object) -> Any:
        self._count += 1
        self._last = items
        self._digest.update(repr(items).encode())
        return self._call(*items)

    def __str__(self) -> str:
        digest = self._digest.hexdigest()[:12]
        return f"<given {self._count}, the last {self._last!r}, digest {digest}>"
