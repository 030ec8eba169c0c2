"""Every error that can reach a client: one class per cause, one stable `code` each."""

import errno as errno_names
from typing import Any, ClassVar

CODES: dict[str, str] = {
    "invalid_json": "the line is not one JSON document (UTF-8, finite numbers, integers within 64 bits)",
    "invalid_request": "the line is JSON but not a request: no object, no event name, or `data` is no object",
    "line_too_long": "the line is over KSI_MAX_LINE_BYTES; it was skipped and the connection goes on",
    "request_too_slow": "a started line was not finished within KSI_REQUEST_TIMEOUT; we hang up",
    "too_many_connections": "KSI_MAX_CONNECTIONS are open; this one is closed",
    "shutting_down": "the daemon is stopping and takes no new requests",
    "unknown_event": "no handler has that event name",
    "missing_parameter": "a required parameter is absent or empty",
    "invalid_parameter": "a parameter has a value that the event cannot take",
    "not_found": "what the request names does not exist",
    "not_connected": "the agent has no connection; send message:connect first",
    "no_recipient": "the message names nobody to deliver it to",
    "unserialisable": "the value cannot be written as JSON",
    "handler_failed": "the handler raised an unexpected exception",
    "io_error": "the operating system refused; see errno. Nothing was changed, on disk or in memory",
    "outcome_unknown": "the change may have been made: it could not be taken back, or the stop came first",
    "component_busy": "the component is changing sides or its disk is stuck, and the wait was over its limit",
    "component_closed": "the component is closed",
    "queue_full": "KSI_COMPLETION_QUEUE_LIMIT requests are waiting or running; send it again later",
    "worker_failed": "a worker process died, or its job failed in a way that is a fault of ours",
    "already_exists": "something of that name exists",
    "already_over": "the request is over and cannot be cancelled",
    "cancelled": "the request was cancelled before it was done",
    "rate_limited": "more injections than a session may get in a minute",
    "unreadable": "a stored file could not be read at start, so nothing is written over it",
    "program_missing": "the claude command, or rg, is not there; see ksi-migrate doctor",
    "start_failed": "the claude command could not be started",
    "turn_timeout": "the claude command did not end within KSI_CLAUDE_PROGRESS_TIMEOUT and was killed",
    "output_too_large": "the claude command printed more than KSI_CLAUDE_MAX_OUTPUT_BYTES and was killed",
    "terminated": "the claude command was ended by a signal",
    "unknown_session": "the claude command knows no session of that id in its directory",
    "api_error": "the model's API refused the turn; the text is the claude command's own",
    "empty_answer": "the claude command ended well and printed nothing",
    "bad_output": "the claude command printed something that is not the JSON object expected",
    "cli_failed": "the claude command ended with another exit code than 0",
    "path_refused": "a path or a name leads out of its directory, or to what no request may write",
    "config_invalid": "the configuration file's content is not what its format says",
    "config_too_large": "a configuration is over KSI_CONFIG_MAX_BYTES, too deep, or unfolds to too much",
    "reply_too_large": "the reply would be larger than KSI_MAX_UNREAD_BYTES allows; ask for less at once",
    "locks_full": "10,000 lock requests are held or waiting; release some first",
    "search_failed": "rg ended before it had searched, was killed at its deadline, or printed far too much",
    "flags_invalid": "flags.yaml was refused as a whole; the last good flags stay in force",
    "flip_refused": "the component did not change sides; the old side goes on",
    "daemon_running": "another daemon holds this root",
    "socket_unusable": "the socket path cannot be used",
    "setting_invalid": "a KSI_* setting has a value that cannot be used",
}
"""Each code a reply can carry, with its meaning; `docs/commands.md` prints the table, by test."""

_RETRYABLE_ERRNO = frozenset(
    {"EAGAIN", "EINTR", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EBUSY", "ETIMEDOUT", "ENOSPC", "EDQUOT"}
)


class KsiError(Exception):
    """An error with a stable code; `fields()` is what a reply gains from it."""

    code: ClassVar[str] = "handler_failed"
    retryable: ClassVar[bool] = False

    def fields(self) -> dict[str, Any]:
        """The keys beside the text: `code`, and for I/O errors `component`, `errno`, `retryable`."""
        return {"code": self.code}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the finished error: its class is not made anew from the message."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[KsiError], args: tuple[Any, ...], attributes: dict[str, Any]) -> KsiError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class InvalidJson(KsiError):
    """The line could not be decoded; the text after the prefix is the decoder's own."""

    code = "invalid_json"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid JSON: {reason}")


class InvalidRequest(KsiError):
    """JSON, but not a request."""

    code = "invalid_request"


class LineTooLong(KsiError):
    """A line over the limit; nothing of it was kept."""

    code = "line_too_long"

    def __init__(self, limit: int) -> None:
        super().__init__(f"line is longer than {limit} bytes; send less, or raise KSI_MAX_LINE_BYTES")


class RequestTooSlow(KsiError):
    """A client began a line and did not finish it in time."""

    code = "request_too_slow"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a request was not finished within {seconds:g} s")


class TooManyConnections(KsiError):
    """The daemon has as many clients as it may."""

    code = "too_many_connections"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} connections are open; close one, or raise KSI_MAX_CONNECTIONS")


class ShuttingDown(KsiError):
    """The request came after the stop began."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("daemon is shutting down")


class CutOff(KsiError):
    """The stop ended a request whose write had begun: it may have been done, but is not in memory."""

    code = "outcome_unknown"

    def __init__(self) -> None:
        super().__init__("the daemon stopped before this request was done; its outcome is not known")


class MissingParameter(KsiError):
    """A required parameter is absent or empty; the text is the original daemon's."""

    code = "missing_parameter"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} required")


class InvalidParameter(KsiError):
    """A parameter has a type or value that the event cannot take."""

    code = "invalid_parameter"

    def __init__(self, name: str, wanted: str, value: object) -> None:
        super().__init__(f"{name} must be {wanted}, not {type(value).__name__}")


class NotFound(KsiError):
    """What the request names does not exist."""

    code = "not_found"


class NotConnected(KsiError):
    """The agent has no connection to deliver to; the text is the original daemon's."""

    code = "not_connected"

    def __init__(self) -> None:
        super().__init__("Subscription failed - agent not connected")


class Unserialisable(KsiError):
    """A value that JSON cannot carry: a lone surrogate, an integer beyond 64 bits."""

    code = "unserialisable"


class IoFailed(KsiError):
    """The operating system refused one operation of one component, and nothing was changed."""

    code = "io_error"

    def __init__(self, component: str, action: str, cause: OSError) -> None:
        self.component = component
        self.errno = errno_names.errorcode.get(cause.errno or 0, "EIO")
        self.transient = self.errno in _RETRYABLE_ERRNO
        text = cause.strerror or str(cause)
        super().__init__(f"{component} could not {action}: {text} [{self.errno}]")

    def fields(self) -> dict[str, Any]:
        """`code`, `component`, `errno` (its name) and whether the same request may succeed later."""
        return {
            "code": self.code,
            "component": self.component,
            "errno": self.errno,
            "retryable": self.transient,
        }


class OutcomeUnknown(IoFailed):
    """The operation failed and what it had already written could not be taken back."""

    code = "outcome_unknown"

    def __init__(self, component: str, action: str, cause: OSError) -> None:
        super().__init__(component, action, cause)
        self.transient = False


class ComponentBusy(KsiError):
    """A call waited too long for its component: its gate is closed, or its disk is stuck."""

    code = "component_busy"
    retryable = True

    def __init__(self, component: str, seconds: float) -> None:
        self.component = component
        super().__init__(
            f"{component} did not answer within {seconds:g} s; try again, or see ksi-migrate status"
        )

    def fields(self) -> dict[str, Any]:
        """`code`, `component`, and that trying again makes sense."""
        return {"code": self.code, "component": self.component, "retryable": True}


class ComponentClosed(KsiError):
    """A call reached a component after its close."""

    code = "component_closed"

    def __init__(self, component: str) -> None:
        self.component = component
        super().__init__(f"{component} is closed")

    def fields(self) -> dict[str, Any]:
        """`code` and `component`."""
        return {"code": self.code, "component": self.component, "retryable": False}


class WorkerFailed(KsiError):
    """A worker process died under its job, or the job raised what nobody foresaw."""

    code = "worker_failed"
    retryable = True

    def __init__(self, component: str, reason: str) -> None:
        self.component = component
        super().__init__(f"{component}: {reason}")

    def fields(self) -> dict[str, Any]:
        """`code`, `component`, and that trying again makes sense."""
        return {"code": self.code, "component": self.component, "retryable": True}


class FlipRefused(KsiError):
    """An upward flip that was not made; the side in force stays."""

    code = "flip_refused"


class DaemonRunning(KsiError):
    """Another daemon holds the lock of this root."""

    code = "daemon_running"

    def __init__(self, root: object, pid: int | None) -> None:
        self.pid = pid
        whose = f"pid {pid}" if pid else "pid unknown"
        super().__init__(f"a daemon already runs on {root} ({whose}); stop it with ksi-daemon stop")


class SocketUnusable(KsiError):
    """The socket path is too long, taken by something else, or served by another daemon."""

    code = "socket_unusable"


class SettingInvalid(KsiError):
    """A `KSI_*` variable holds something that cannot be used."""

    code = "setting_invalid"

    def __init__(self, name: str, value: str, wanted: str) -> None:
        super().__init__(f"{name}={value!r} is not usable: give {wanted}")


def reply_fields(error: KsiError) -> dict[str, Any]:
    """An error as a handler's reply data: `error` first, then its fields."""
    return {"error": str(error), **error.fields()}
