"""What is known of sessions: which id goes on for which, and the directory in which each began."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.claude_cli.contract import ClaudeCli

MOST = 10_000
"""Sessions kept in memory, of chains and of directories; the one used longest ago is forgotten."""

log = structlog.get_logger("ksi.claude_cli")


class Chains:
    """Versions up to 1.0.117 answer each resumed turn with a new session id; all of them are one session.

    Ids are compared without regard to case. Memory only: after a restart an id stands for itself.
    """

    def __init__(self) -> None:
        self._chains: dict[str, list[str]] = {}  # id → first id and newest id, shared by all ids of a chain

    def key(self, session: str) -> str:
        """What all ids of the session's chain have in common."""
        return self._use(session)[0]

    def newest(self, session: str) -> str:
        """The id under which the session goes on."""
        return self._use(session)[1]

    def follow(self, session: str, answered: str) -> None:
        """Note that a turn in `session` was answered under the id `answered`."""
        chain = self._use(session)
        if session.lower() != answered.lower():
            chain[1] = answered
            for one in (session, answered):
                _put(self._chains, one.lower(), chain)

    def _use(self, session: str) -> list[str]:
        found = self._chains.pop(session.lower(), None)
        if found is None:
            return [session.lower(), session]
        self._chains[session.lower()] = found
        return found

    def memory(self) -> dict[str, str]:
        """Each id that another one goes on for, with that one."""
        return {session: newest for session, (_, newest) in sorted(self._chains.items()) if session != newest}


class Directories:
    """Where each session began. Memory goes first; the disk is asked for what is not in it."""

    def __init__(self, claude: ClaudeCli, sandbox: Path) -> None:
        self._claude = claude
        self._sandbox = str(sandbox)
        self._known: dict[str, tuple[str, bool]] = {}  # session → directory, and whether that is on the disk

    async def find(self, session: str) -> str:
        """The absolute path of the session's directory; empty when it is not known. Raises `IoFailed`."""
        name = session.lower()
        known = self._known.get(name)
        if known is None:
            known = (await self._claude.recall(name), True)
        where = self._absolute(known[0])
        if where:
            _put(self._known, name, known)
        return where

    async def keep(self, session: str, cwd: str) -> None:
        """Remember the directory, on the disk too; when that fails, until the next restart only."""
        name, short = session.lower(), self._short(cwd)
        if self._known.get(name) == (short, True):
            return
        _put(self._known, name, (short, False))
        try:
            await self._claude.remember(name, short)
        except KsiError as error:
            log.warning("directory of a session not remembered", session=name, error=str(error))
        else:
            _put(self._known, name, (short, True))

    def inside(self, cwd: str) -> bool:
        """Whether a path is one of the sandbox's directories, which are made when they are missing."""
        return cwd.startswith(os.path.join(self._sandbox, ""))

    def memory(self) -> dict[str, str]:
        """Session → directory, below the sandbox or absolute."""
        return {name: directory for name, (directory, _) in sorted(self._known.items())}

    def _short(self, cwd: str) -> str:
        return cwd.removeprefix(os.path.join(self._sandbox, ""))

    def _absolute(self, found: str) -> str:
        """Empty for what no daemon wrote: a relative path that leads out of the sandbox."""
        if os.path.isabs(found):
            return os.path.normpath(found)
        path = os.path.normpath(os.path.join(self._sandbox, found))
        return path if found and self.inside(path) else ""


def _put(known: dict[str, Any], name: str, value: object) -> None:
    known.pop(name, None)
    if len(known) >= MOST:
        del known[next(iter(known))]
    known[name] = value
