"""Parity over a copy of a user's own tree: conversations, configuration, backups, and the logs of week 1."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import replace

import pytest

from ksi_daemon.config import AREA as CONFIG
from ksi_daemon.config.aio import AsyncConfigFiles
from ksi_daemon.conversation import AREA as CONVERSATION
from ksi_daemon.conversation.aio import AsyncConversations
from ksi_migrate import parity
from ksi_migrate.exits import Exit
from ksi_migrate.paritycheck import checks
from ksi_migrate.paritycheck.steps import over_data
from ksi_migrate.paritycheck.trial import Outcome

THEIRS = "7c1d2a5e-theirs"
SPOKEN = "0b9f77d4-spoken"
USER = {"type": "user", "timestamp": "2025-07-01T09:00:00Z", "content": "Größe? 💡"}
CLAUDE = {"type": "claude", "timestamp": "2025-07-01T11:00:05+02:00", "result": "It depends."}
DIRECT = {
    "type": "DIRECT_MESSAGE",
    "from": "a",
    "to": "b",
    "timestamp": "2025-07-01T09:01:00",
    "content": "hi",
}
ANSWER = {
    "ksi": {
        "provider": "claude-cli",
        "request_id": "r-1",
        "timestamp": "2025-07-02T10:00:00Z",
        "duration_ms": 12,
    },
    "response": {"type": "result", "result": "done", "session_id": SPOKEN, "usage": {"input_tokens": 3}},
}
RESULT = {
    "id": "1",
    "type": "COMPLETION_RESULT",
    "from": "c",
    "client_id": "c",
    "timestamp": "2025-07-02T10:00:00Z",
    "result": {"response": "done", "session_id": SPOKEN, "model": "m"},
}
USAGE = {
    "timestamp": "2025-07-02T10:00:00Z",
    "model": "claude-cli/sonnet",
    "usage": {"input_tokens": 3},
    "agent_id": "a",
}
SETTINGS = 'daemon:\n  log_level: DEBUG\n  x:\n    y:\n    - 1\n    - b: "\\xE9"\nsince: 2024-02-29\n'


def lines(*records):
    """A log of these; bytes stand as they are."""
    return b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in records)


@pytest.fixture
def root(tmp_path):
    """What a daemon of a user's may have left behind, whole and damaged."""
    root = tmp_path / "srv"
    meta = {
        "original_path": f"{root}/ksi_daemon.yaml",
        "backup_name": "ksi_daemon.yaml_20250701_090000",
        "backup_path": "var/tmp/backups/config/ksi_daemon.yaml_20250701_090000",
        "timestamp": "2025-07-01T09:00:00",
        "size": 4,
    }
    responses, backups = "var/logs/responses", "var/tmp/backups/config"
    files = {
        f"{responses}/{THEIRS}.jsonl": lines(USER, CLAUDE, b"[1]\n", b"\xff\n", b"{half", b"\n", DIRECT),
        f"{responses}/{SPOKEN}.jsonl": lines(ANSWER, ANSWER, b'{"ksi": 1}\n{"torn": '),
        f"{responses}/empty.jsonl": b"",
        f"{responses}/notes.txt": b"not a log",
        f"{responses}/message_bus.jsonl": lines(RESULT, {**DIRECT, "id": "2"}, b'{"torn'),
        "var/logs/daemon/tool_usage.jsonl": lines(USAGE, b"damage\n", USAGE),
        "var/state/exports/conversation_old_2025-07-01_09-00-00.md": b"# Conversation Export: old\n",
        "var/lib/compositions/base.yaml": b"name: base\ntype: profile\ncomponents: []\n",
        "var/lib/compositions/broken.yaml": b"name: [\n",
        "var/lib/compositions/fragments/hello.md": b"Hello.\n",
        "var/lib/schemas/profile.yaml": b"type: object\nrequired: [name]\n",
        "var/lib/capabilities/ksi_capabilities.yaml": b"read: {events: [a]}\n",
        "ksi_daemon.yaml": SETTINGS.encode(),
        "flags.yaml": b"mine\n",
        f"{backups}/ksi_daemon.yaml_20250701_090000": b"old: true\n",
        f"{backups}/ksi_daemon.yaml_20250701_090000.meta": json.dumps(meta, indent=2).encode(),
        "var/db/identities.json": b'{"a": {"agent_id": "a"}}',
        "var/migrate/journal.jsonl": b"{}\n",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (1751400000, 1751400000))
    return root


@pytest.fixture(autouse=True)
def only_over_data(monkeypatch):
    """The check over the given data, and no other: those have tests of their own."""
    only = {name: check for name, check in checks.CHECKS.items() if check is over_data}
    assert len(only) == 1
    monkeypatch.setattr(parity, "CHECKS", only)
    monkeypatch.setattr(checks, "CHECKS", only)


def everything(root):
    """Every file below the root: bytes and times."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_both_sides_do_the_same_on_a_users_tree(root):
    """Rooms of weeks 1 and 3 run all their cases over a copy of it; the tree itself stays as it is."""
    before = everything(root)

    report = parity.run(["conversation", "config", "messaging", "completion"], data=root)

    assert report.exit_code is Exit.DONE, report.document()
    names = ["conversation", "config", "messaging", "completion"]
    assert [(one.name, [outcome.case for outcome in one.outcomes]) for one in report.components] == [
        (name, ["every case on the given data"]) for name in names
    ]
    assert everything(root) == before


def test_the_users_files_may_take_longer(root, monkeypatch):
    """A check counts as hanging much later where it has much to do."""

    async def slow(_trial):
        await asyncio.sleep(0.1)
        yield Outcome("slow")

    monkeypatch.setattr(checks, "LIMIT", 0.02)
    monkeypatch.setattr(checks, "CHECKS", {"slow": slow})
    monkeypatch.setattr(parity, "CHECKS", {"slow": slow})

    assert parity.check(CONVERSATION, data=root).ok
    assert not parity.check(CONVERSATION).ok


class Skips(AsyncConversations):
    """A side that overlooks the user's own conversation."""

    async def refresh(self, told):
        """All but one."""
        return tuple(one for one in await super().refresh(told) if one.session != THEIRS)


class Misreads(AsyncConfigFiles):
    """A side that takes the user's dates for other ones."""

    async def get(self, target, key):
        """A day later."""
        found = await super().get(target, key)
        return found._replace(value=found.value.replace(b"2024-02-29", b"2024-03-01"))


def test_a_conversation_of_the_users_is_listed(root):
    """A side that overlooks it is found out by the cases over the data, and by no others."""
    found = parity.check(replace(CONVERSATION, aio=Skips), data=root)

    assert found.mismatches
    assert parity.check(replace(CONVERSATION, aio=Skips)).ok


def test_configuration_beside_var_is_read(root):
    """A side that misreads it is found out with the root, and not with its `var/` alone."""
    found = parity.check(replace(CONFIG, aio=Misreads), data=root)

    assert found.mismatches
    assert parity.check(replace(CONFIG, aio=Misreads), data=root / "var").ok
