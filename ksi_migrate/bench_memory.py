"""The most memory that a process held at once, since a moment of our choice where the system allows it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

CLEAR: Final = Path("/proc/self/clear_refs")
STATUS: Final = Path("/proc/self/status")
RESET_PEAK: Final = b"5"  # proc(5): sets the peak to what is resident now
UNIT: Final = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB here


def forget_peak(clear: Path = CLEAR) -> bool:
    """Begin a new peak; False where that is not possible, and the peak stays that of the whole process."""
    try:
        clear.write_bytes(RESET_PEAK)
    except OSError:
        return False
    return True


def peak_mib(status: Path = STATUS) -> float:
    """The peak of resident memory, in MiB."""
    found = known_peak_mib(status)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT / 1024**2 if found is None else found


def known_peak_mib(status: Path) -> float | None:
    """The peak that a process's `status` tells, in MiB; None where there is none to be read."""
    try:
        _, _, rest = status.read_text(encoding="ascii", errors="replace").partition("VmHWM:")
        return int(rest.split()[0]) / 1024
    except (OSError, IndexError):
        return None
