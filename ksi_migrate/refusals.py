"""Why an upward step is refused (exit 4): one class a cause, each with its stable code."""

from __future__ import annotations

from ksi_migrate.exits import Refused


class NotBuilt(Refused):
    """The component has no async side in this release."""

    code = "not_built"


class Retired(Refused):
    """The component has no sync side any more: there is nothing to go back to, to compare or to measure."""

    code = "retired"


class Reserved(Refused):
    """`shadow` and `canary` are words of the flags from the start, and nothing more yet."""

    code = "stage_reserved"


class FlagsUnusable(Refused):
    """flags.yaml or the ceilings are refused as a whole, so nothing can be edited in them."""

    code = "flags_invalid"


class OtherFlags(Refused):
    """The running daemon reads another file than the one that would be edited."""

    code = "other_flags"


class EarlierPhaseOpen(Refused):
    """A component of an earlier week is not at async."""

    code = "earlier_phase_open"


class ParityFailed(Refused):
    """The two sides do not do the same."""

    code = "parity_failed"


class Declined(Refused):
    """The operator was asked and said no."""

    code = "declined"


class NotWritable(Refused):
    """The operating system did not let flags.yaml or the ceilings be written."""

    code = "not_writable"


class FlipRefused(Refused):
    """The daemon tried and stayed on its old side."""

    code = "flip_refused"


class Overtaken(Refused):
    """Somebody else sent the component down, or edited flags.yaml, while `enable` waited; theirs stands."""

    code = "overtaken"
