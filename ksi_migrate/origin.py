"""Where a figure comes from: figures of another machine, or of another release, prove nothing here."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ksi_daemon

MACHINE_IDS: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True)
class Origin:
    """`machine` is a digest that no other machine has, and no other size of this one."""

    machine: str
    node: str
    platform: str
    cores: int
    python: str
    release: str

    def fits(self, other: Origin) -> bool:
        """Whether figures from there hold here: the same machine and the same release."""
        return (self.machine, self.release) == (other.machine, other.release)

    def differs(self, other: Origin) -> str:
        """In words why figures from `other` do not hold here."""
        if self.machine != other.machine:
            return f"measured on another machine, {other.node} ({other.machine})"
        return f"measured with release {other.release}, this is {self.release}"


def here() -> Origin:
    """This machine, this Python, this release."""
    return Origin(
        machine_id(),
        platform.node(),
        platform.platform(),
        os.cpu_count() or 1,
        platform.python_version(),
        ksi_daemon.__version__,
    )


def machine_id(files: tuple[Path, ...] = MACHINE_IDS) -> str:
    """A digest, since machine-id(5) is confidential; without that file the node's name and address stand in.

    The number of cores is in it: a virtual machine that was resized is another machine.
    """
    base = next(filter(None, map(_text, files)), None) or f"{platform.node()} {uuid.getnode()}"
    told = f"ksi-migrate {base} {platform.machine()} {os.cpu_count()}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
