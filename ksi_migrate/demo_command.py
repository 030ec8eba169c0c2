"""Runs the operator's commands as an operator does: real processes, with their exit codes and documents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import orjson

from ksi_migrate.demo_scratch import SOURCE, environment
from ksi_migrate.exits import Finding

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from pathlib import Path

MIGRATE = ("-m", "ksi_migrate")
DAEMON = ("-m", "ksi_daemon")
PATIENCE_S = 180.0
END_S = 5.0


class StepFailed(Finding):
    """A step of the demo did not do what it should; the message says which, and what came instead."""

    code = "step_failed"


async def ksi_migrate(root: Path, command: str, *args: str) -> dict[str, Any]:
    """The document of `ksi-migrate COMMAND … --json`. Raises `StepFailed` unless it exits 0."""
    return await _run("ksi-migrate", MIGRATE, command, *args, "--json", "--root", str(root))


async def ksi_daemon(root: Path, command: str, *args: str) -> dict[str, Any]:
    """The document of `ksi-daemon COMMAND … --json`. Raises `StepFailed` unless it exits 0."""
    return await _run("ksi-daemon", DAEMON, command, *args, "--json", "--root", str(root))


async def _run(program: str, python: tuple[str, ...], *args: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *python,
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        cwd=SOURCE,
        start_new_session=True,
    )
    said = f"{program} {args[0]}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise StepFailed(f"{said} did not end within {PATIENCE_S:g} s") from None
    finally:
        await asyncio.shield(_end(process))
    return _document(said, process.returncode, out, err)


def _document(said: str, code: int | None, out: bytes, err: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(out)
    except orjson.JSONDecodeError:
        document = {}
    if code == 0 and isinstance(document, dict) and document.get("ok") is True:
        return document
    error = document.get("error") if isinstance(document, dict) else None
    told = error.get("message") if isinstance(error, dict) else err.decode(errors="replace").strip()[-500:]
    raise StepFailed(f"{said} ended with exit code {code}: {told or 'no message'}")


async def _end(process: Process) -> None:
    """A command that is still there is interrupted, so that it cleans up; then killed with its children."""
    if process.returncode is not None:
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S)
            return
