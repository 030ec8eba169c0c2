"""What can go wrong with a turn: one class per cause, each with its code and whether trying again helps."""

from __future__ import annotations

from typing import Any

from ksi_daemon.errors import IoFailed, KsiError

LONGEST = 4000
"""Characters of what the command printed that an error repeats."""


PASSING = frozenset({429, *range(500, 600)})
"""The API's states that may be over when it is asked again."""


class TurnFailed(KsiError):
    """A turn without an answer. Nothing of it is tried again unless `retryable` says so."""

    def fields(self) -> dict[str, Any]:
        """`code` and `retryable`."""
        return {"code": self.code, "retryable": self.retryable}


class Unusable(KsiError):
    """A parameter of the right type with a value that cannot be used."""

    code = "invalid_parameter"

    def __init__(self, name: str, wanted: str) -> None:
        super().__init__(f"{name} must be {wanted}")


class ProgramMissing(TurnFailed):
    """There is no command to run; the text is the original daemon's."""

    code = "program_missing"

    def __init__(self, place: str) -> None:
        super().__init__(f"Claude CLI not found at {place}")


class StartFailed(IoFailed):
    """The command could not be started; after EAGAIN, ENOMEM and their like it may work later."""

    code = "start_failed"


class TurnTimedOut(TurnFailed):
    """The command was not over at its deadline. It may have sent the prompt, so it is not tried again."""

    code = "turn_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the claude command did not end within {seconds:g} s and was killed")


class OutputTooLarge(TurnFailed):
    """The command printed more than it may."""

    code = "output_too_large"

    def __init__(self, limit: int) -> None:
        text = f"the claude command printed more than {limit} bytes; raise KSI_CLAUDE_MAX_OUTPUT_BYTES"
        super().__init__(text)


class Terminated(TurnFailed):
    """A signal ended the command. Never tried again: versions 2.x would send the message twice."""

    code = "terminated"

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(f"the claude command was ended by a signal (exit code {exit_code})")

    def fields(self) -> dict[str, Any]:
        """Also `exit_code`, negative for the signal itself."""
        return {**super().fields(), "exit_code": self.exit_code}


class UnknownSession(TurnFailed):
    """The command has no such session in its directory; the text is its own."""

    code = "unknown_session"

    def __init__(self, text: str) -> None:
        super().__init__(_cut(text))


class ApiError(TurnFailed):
    """The command reports an error in place of an answer; the text is its own."""

    code = "api_error"

    def __init__(self, text: str, status: int | None) -> None:
        self.status = status
        super().__init__(_cut(text) or "the claude command reports an error and says nothing about it")

    def fields(self) -> dict[str, Any]:
        """Also `api_status`, where the text names it; 429 and 5xx may pass."""
        known = {} if self.status is None else {"api_status": self.status}
        return {"code": self.code, "retryable": self.status in PASSING, **known}


class EmptyAnswer(TurnFailed):
    """Exit code 0 and nothing printed: what several versions do when they are interrupted while waiting."""

    code = "empty_answer"

    def __init__(self) -> None:
        super().__init__("the claude command ended with exit code 0 and printed nothing")


class BadOutput(TurnFailed):
    """Exit code 0, and what was printed is no answer."""

    code = "bad_output"

    def __init__(self, why: str) -> None:
        super().__init__(f"the claude command printed no usable answer: {why}")


class CliFailed(TurnFailed):
    """Any other exit code; the text is what the command printed to stderr, else to stdout."""

    code = "cli_failed"

    def __init__(self, exit_code: int, text: str) -> None:
        self.exit_code = exit_code
        super().__init__(_cut(text) or f"the claude command ended with exit code {exit_code}")

    def fields(self) -> dict[str, Any]:
        """Also `exit_code`."""
        return {**super().fields(), "exit_code": self.exit_code}


class RateLimited(TurnFailed):
    """A session got as many injections as it may; later it may get more."""

    code = "rate_limited"
    retryable = True

    def __init__(self, most: int, seconds: float) -> None:
        super().__init__(f"a session takes {most} injections in {seconds:g} s; send it again later")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
