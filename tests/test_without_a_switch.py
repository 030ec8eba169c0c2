"""With everything at sync nobody can tell from outside that there is a switch."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon.registry import BUILT
from tests import bare_daemon
from tests.daemon import Wire, running, write_flags
from tests.everybody import can_be_sent
from tests.standin import place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EACH = 4
"""Requests of each event, out of those with which parity tries it."""

OWN = re.compile(rb"var/(run|migrate|cache)/|var/tmp/(?!backups/)|stderr\.log|bin/")
"""Files that are the process's own: its number, its locks, its journal."""

MASKS = (
    (re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), b"<id>"),
    (re.compile(rb"\bagent_[0-9a-f]{8}\b"), b"<agent>"),
    (
        re.compile(rb"20\d\d-?\d\d-?\d\d[T_ ]?\d\d[:-]?\d\d[:-]?\d\d([.,_]\d+)?(Z|\+00:00)?(-\d+)?"),
        b"<stamp>",
    ),
    (re.compile(rb"\b1[789]\d{8}(\.\d+)?\b"), b"<time>"),
    (re.compile(rb'("(?:timestamp|duration_ms|duration_api_ms|age_s|uptime)": ?)[\d.e-]+'), rb"\1<seconds>"),
)
"""What differs from one run to the next, whatever runs."""

MEASURED = ("conversation:list", "conversation:stats")
SIZE = re.compile(rb'("(?:size_bytes|total_size_bytes)": ?)\d+')
"""The size of a log, which these events tell: it holds durations, in decimal digits."""


def requests() -> list[tuple[str, str, Any]]:
    """(Client, event, data) of some requests of each event of every room."""
    found: dict[str, list[tuple[str, str, Any]]] = {}
    for step in (step for area in BUILT for case in area.exercise.cases for step in case.steps):
        if can_be_sent(step):
            found.setdefault(step.event, []).append((step.client, step.event, step.data))
    return [one for some in found.values() for one in some[:EACH]]


def masked(content: bytes, root: Path) -> str:
    """The content without what is of its time, or of its place."""
    content = content.replace(str(root).encode(), b"<root>")
    for pattern, word in MASKS:
        content = pattern.sub(word, content)
    return content.decode(errors="backslashreplace")


def seen(
    root: Path, program: Sequence[str] = ()
) -> tuple[list[str], dict[str, list[str]], list[tuple[str, str]]]:
    """The replies in order, the frames that nobody asked for by client, and the files, of one daemon."""
    root.mkdir()
    write_flags(root)
    claude = place(root / "bin/claude")
    wires: dict[str, Wire] = {}
    replies: list[str] = []
    frames: dict[str, list[str]] = {}
    with running(root, program=program, KSI_CLAUDE_BIN=str(claude)) as daemon:
        for number, (client, event, data) in enumerate(requests()):
            wire = wires[client] = wires.get(client) or daemon.wire()
            wire.send({"event": event, "data": data, "correlation_id": f"n{number}"})
            while (frame := wire.frame()) is not None and frame.get("correlation_id") != f"n{number}":
                frames.setdefault(client, []).append(masked(json.dumps(frame).encode(), root))
            assert frame is not None, daemon.log()
            reply = json.dumps(frame).encode()
            reply = SIZE.sub(rb"\1<bytes>", reply) if event in MEASURED else reply
            replies.append(f"{event}: {masked(reply, root)}")
        assert daemon.stop() == 0, daemon.log()
    for client, wire in wires.items():
        frames.setdefault(client, []).extend(masked(json.dumps(one).encode(), root) for one in wire.rest())
        wire.close()
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    named = [(os.fsencode(path.relative_to(root)), path.read_bytes()) for path in paths]
    files = sorted(
        (masked(name, root), masked(content, root)) for name, content in named if not OWN.match(name)
    )
    return replies, frames, files


@pytest.mark.unmeasured
@pytest.mark.timeout(240)
def test_at_sync_the_daemon_equals_one_without_a_switch(tmp_path: Path) -> None:
    """The same requests of every event: equal replies, equal frames, equal files."""
    ours = seen(tmp_path / "ours")
    bare = seen(tmp_path / "bare", program=[sys.executable, bare_daemon.__file__])

    assert ours[0] == bare[0]
    assert ours[1] == bare[1]
    assert ours[2] == bare[2]
    assert {reply.partition(":")[0] for reply in ours[0]} > {
        "message",
        "completion",
        "agent",
        "config",
        "module",
    }
    assert len(ours[2]) > 8
