"""A clock and ids that both sides see alike: time passes with requests, not with work."""

START = 1752340000.0
"""Epoch seconds at which every trial begins: 2025-07-12T17:06:40Z."""

REQUEST = 0.25
CALL = 1 / 4096
"""Seconds per question within one request; with `REQUEST` a sum that a float holds exactly."""


class Ids:
    """Ids of UUID form, counted for each request: how many an earlier one took no longer matters.

    Both sides begin the requests of one moment in the same order, so they get the same ids.
    """

    def __init__(self) -> None:
        self._request = 0
        self._calls = 0

    def next_request(self) -> None:
        """Begin a request."""
        self._request += 1
        self._calls = 0

    def __call__(self) -> str:
        """The next one; its first eight characters tell it from the others."""
        self._calls += 1
        return f"{self._request:04x}{self._calls:04x}-0000-4000-8000-000000000000"


class Clock:
    """Gives `START`, plus a quarter second per request, plus a little per question, so that ids differ."""

    def __init__(self) -> None:
        self._request = 0
        self._calls = 0

    def next_request(self) -> None:
        """Begin a request; how often an earlier one asked no longer matters."""
        self._request += 1
        self._calls = 0

    def __call__(self) -> float:
        """The time, a little later at each question."""
        self._calls += 1
        return START + self._request * REQUEST + self._calls * CALL
