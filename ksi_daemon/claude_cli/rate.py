"""How often something may happen to each of many."""

from __future__ import annotations

from collections import deque

from ksi_daemon.claude_cli.failures import RateLimited


class Rate:
    """At most `most` times in any `seconds` for each key; what is older is forgotten."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._taken: dict[str, deque[float]] = {}  # the key that was taken longest ago comes first

    def take(self, key: str, now: float) -> None:
        """Count one for `key`. Raises `RateLimited`, and then it does not count."""
        self._forget(now)
        taken = self._taken.get(key, deque())
        while taken and not self._counts(taken[0], now):
            taken.popleft()
        if len(taken) >= self._most:
            raise RateLimited(self._most, self._seconds)
        taken.append(now)
        self._taken.pop(key, None)
        self._taken[key] = taken

    def _forget(self, now: float) -> None:
        while self._taken:
            key = next(iter(self._taken))
            if self._counts(self._taken[key][-1], now):
                return
            del self._taken[key]

    def _counts(self, then: float, now: float) -> bool:
        """Whether it was lately; what lies in the future was before somebody set the clock back."""
        return 0 <= now - then < self._seconds
