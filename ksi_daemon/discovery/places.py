"""Where discovery finds things: `rg`, the tree, and what an earlier daemon left running. Blocks."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Final

import structlog

from ksi_daemon import family
from ksi_daemon.discovery.failures import RgMissing, TreeMissing
from ksi_daemon.linefile import private_directory

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.site import Site

log = structlog.get_logger("ksi.discovery")

_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR")


class Places:
    """One component's; both of its sides have one."""

    def __init__(self, site: Site) -> None:
        settings = site.settings
        self._settings = settings
        self._numbers = 0
        self._family = f"{hashlib.sha256(os.fsencode(settings.root)).hexdigest()[:12]}-rg-"
        self.tree = str(settings.discovery_tree)
        self.left_out = _below(settings.root / "var", settings.discovery_tree)

    @property
    def scratch(self) -> Path:
        """Where the files for what `rg` prints are made."""
        return self._settings.cache_dir

    def mark(self) -> str:
        """By which the processes of one run are found; another one each time."""
        self._numbers += 1
        return f"{self._family}{os.getpid()}-{id(self)}-{self._numbers}"

    def environment(self) -> dict[str, str]:
        """What of the daemon's environment reaches `rg`: nothing that could configure it."""
        return {name: os.environ[name] for name in _KEPT if name in os.environ}

    def program(self) -> str:
        """The path of `rg`. Raises `RgMissing`, and `TreeMissing` when there is nothing to search."""
        if not os.path.isdir(self.tree):
            raise TreeMissing(self.tree)
        return find_rg(self._settings.discovery_rg, str(self._settings.root))

    def begin(self) -> None:
        """Make the directory for output; end what an earlier daemon of this root left running.

        Only the first call in a process does the second. A failure is no reason not to begin.
        """
        try:
            private_directory(self.scratch)
        except OSError as error:
            log.warning("no directory for output", path=str(self.scratch), error=str(error))
        family.sweep_once(self._family)


def find_rg(configured: str | None, root: str) -> str:
    """The configured program, else `rg` beside the interpreter, else in the first absolute entry of PATH.

    A relative entry is passed over, so that no `./rg` in a working directory ever runs. Raises `RgMissing`.
    """
    if configured:
        candidates = [os.path.join(root, configured)]
    else:
        entries = [os.path.dirname(sys.executable), *os.environ.get("PATH", "").split(os.pathsep)]
        candidates = [os.path.join(entry, "rg") for entry in entries if os.path.isabs(entry)]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise RgMissing(candidates[0] if configured else "PATH, or beside the interpreter")


def _below(path: Path, tree: Path) -> str:
    """The path relative to the tree, if it lies below it; else empty."""
    return str(path.relative_to(tree)) if path != tree and path.is_relative_to(tree) else ""
