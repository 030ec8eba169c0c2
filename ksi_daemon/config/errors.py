"""What can be wrong with a request for configuration; the texts are the original's (KSI contract, 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksi_daemon.errors import IoFailed, KsiError, OutcomeUnknown
from ksi_daemon.replace import NotSynced

if TYPE_CHECKING:
    from ksi_daemon.errors import KsiError as Error


class Required(KsiError):
    """A parameter that the request needs is absent."""

    code = "missing_parameter"


class Unusable(KsiError):
    """A type, a value or a key that the event cannot take for this file."""

    code = "invalid_parameter"


class PathRefused(KsiError):
    """A path or a name that leads out of its directory, or to a file that is not a request's to write."""

    code = "path_refused"

    def __init__(self, path: object) -> None:
        super().__init__(f"File path outside allowed directory: {path}")


class NameRefused(KsiError):
    """A backup's name that is no plain file name."""

    code = "path_refused"

    def __init__(self, name: str) -> None:
        super().__init__(f"Backup name not allowed: {name}")


class NoFile(KsiError):
    """The configuration file is not there."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("Configuration file does not exist")


class KeyMissing(KsiError):
    """The key is not in the configuration."""

    code = "not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"Key not found: {key}")


class BackupMissing(KsiError):
    """The backup is not there, has no record, or is another file's."""

    code = "not_found"


class NotUnderstood(KsiError):
    """The file's content is not what its format says."""

    code = "config_invalid"


class TooLarge(KsiError):
    """The file, or what it unfolds to, is over a limit; so would be what was to be written."""

    code = "config_too_large"


class ReplyTooLarge(KsiError):
    """The value is more than a client is sent in one reply; see KSI_MAX_UNREAD_BYTES."""

    code = "reply_too_large"

    def __init__(self, most: int) -> None:
        super().__init__(f"the reply would be larger than {most} bytes; ask for one key at a time")


class Failed(IoFailed):
    """The operating system refused a step; the text begins with the original's words for the step."""

    def __init__(self, component: str, words: str, action: str, cause: OSError) -> None:
        super().__init__(component, action, cause)
        self.args = (f"{words}: {self}",)


class Unknown(OutcomeUnknown):
    """As `Failed`, but whether the change lasts cannot be said."""

    def __init__(self, component: str, words: str, action: str, cause: OSError) -> None:
        super().__init__(component, action, cause)
        self.args = (f"{words}: {self}",)


def failed(component: str, words: str, action: str, cause: OSError) -> Error:
    """The error for what the operating system said: `Unknown` when the new content stands all the same."""
    kind = Unknown if isinstance(cause, NotSynced) else Failed
    return kind(component, words, action, cause)
