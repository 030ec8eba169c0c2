"""What can go wrong with conversations, with the original daemon's texts."""

from __future__ import annotations

from typing import Any

from ksi_daemon.errors import KsiError, NotFound


class Failed(KsiError):
    """What a request was about, before the error that came of it; code and fields are that error's."""

    def __init__(self, what: str, cause: KsiError) -> None:
        self._fields = cause.fields()
        super().__init__(f"{what}: {cause}")

    def fields(self) -> dict[str, Any]:
        """Those of the cause."""
        return self._fields


class Unusable(KsiError):
    """A parameter of the right type with a value that cannot be used."""

    code = "invalid_parameter"


class ConversationNotFound(NotFound):
    """No log of that session."""

    def __init__(self, session: str) -> None:
        super().__init__(f"Conversation not found: {session}")


class BusLogNotFound(NotFound):
    """The bus has logged nothing."""

    def __init__(self) -> None:
        super().__init__("Message bus log not found")


class ReplyTooLarge(KsiError):
    """More than a client is sent in one reply; see KSI_MAX_UNREAD_BYTES."""

    code = "reply_too_large"

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(f"the reply would be larger than {most} bytes; ask for less with limit and offset")

    def __reduce__(self) -> tuple[type[ReplyTooLarge], tuple[int]]:
        """It comes from a worker process as what it is made from."""
        return type(self), (self.most,)


class LocksFull(KsiError):
    """More lock requests than are kept."""

    code = "locks_full"
    retryable = True

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} lock requests are held or waiting; release some first")
