"""Files of the original are read here, and those of this daemon by whoever reads the original's."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon import Running

pytestmark = pytest.mark.unmeasured
STAGES = ("sync", "async")


def stamp(ago: float = 0.0) -> str:
    """The original's UTC stamp, so many seconds ago."""
    return (datetime.now(UTC) - timedelta(seconds=ago)).isoformat().replace("+00:00", "Z")


def lines(*records: dict[str, Any]) -> str:
    """A log as the original writes it: ASCII, with a space after each colon and comma."""
    return "".join(json.dumps(record) + "\n" for record in records)


def usage(agent: str, tokens: int) -> dict[str, Any]:
    """A usage record with the original's keys in their order."""
    return {
        "event": "token_usage",
        "timestamp": stamp(60),
        "request_id": "r-1",
        "session_id": None,
        "agent_id": agent,
        "model": "claude-cli/sonnet",
        "provider": "claude-cli",
        "input_tokens": tokens,
        "output_tokens": 20,
        "total_tokens": tokens + 20,
        "cache_creation_tokens": 0,
        "cache_read_tokens": 0,
        "has_mcp": False,
        "estimated_cost": 0.0016,
    }


def planted(root: Path, name: str, text: str) -> Path:
    """A file of the original's below the root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=STAGES)
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """`start()`: a daemon with everything at one side, on what was planted."""
    started = []

    def begin() -> Running:
        context = running(tmp_path)
        daemon = context.__enter__()
        started.append(context)
        flags = (tmp_path / "flags.yaml").read_text()
        (tmp_path / "flags.yaml").write_text(flags.replace(": sync\n", f": {request.param}\n"))
        daemon.ask("migration:reload")
        return daemon

    yield begin
    for context in started:
        context.__exit__(None, None, None)


def test_usage_of_the_original_is_counted(tmp_path: Path, start: Any) -> None:
    """What it recorded within a day is in the totals; lines of other kinds are passed over."""
    other = {"event": "tool_use", "timestamp": stamp(), "tool": "Read"}
    planted(
        tmp_path, "var/logs/daemon/tool_usage.jsonl", lines(usage("coder", 100), other, usage("coder", 50))
    )

    found = start().ask("completion:token_usage", agent_id="coder")
    assert (found["usage"]["input_tokens"], found["usage"]["request_count"]) == (150, 2)


def test_usage_of_ours_has_its_keys_in_its_order(start: Any) -> None:
    """A line of ours is the original's record as JSON."""
    daemon = start()
    daemon.ask(
        "completion:record_usage",
        request_id="r-1",
        agent_id="a",
        model="claude-cli/sonnet",
        usage={"input_tokens": 1},
    )
    (line,) = (daemon.root / "var/logs/daemon/tool_usage.jsonl").read_text().splitlines()

    assert list(json.loads(line)) == list(usage("a", 1))


def test_messages_of_the_original_stay_and_ours_follow(tmp_path: Path, start: Any) -> None:
    """Its lines are not touched; ours have the same keys in the same order after them."""
    old = {"id": "1752340000.1", "type": "NOTE", "from": "a", "timestamp": stamp(), "text": "gr\u00fc\u00df"}
    path = planted(tmp_path, "var/logs/responses/message_bus.jsonl", lines(old))
    start().ask("message:publish", agent_id="a", event_type="NOTE", message={"text": "gr\u00fc\u00df"})

    first, second = path.read_text(encoding="utf-8").splitlines()
    assert first == json.dumps(old)
    assert list(json.loads(second)) == list(old)
    assert json.loads(second)["text"] == "gr\u00fc\u00df"


def test_identities_are_byte_for_byte_its_own(tmp_path: Path, start: Any) -> None:
    """Read as the original wrote them, and written as it would."""
    old = {"coder": {"agent_id": "coder", "created_at": stamp(9), "updated_at": stamp(9), "name": "Z\u00f6e"}}
    path = planted(tmp_path, "var/db/identities.json", json.dumps(old, indent=2))
    daemon = start()
    daemon.ask("agent:update_identity", agent_id="coder", updates={"role": "dev"})

    found = json.loads(path.read_text())
    assert path.read_text() == json.dumps(found, indent=2)
    assert found["coder"] == old["coder"] | {"updated_at": found["coder"]["updated_at"], "role": "dev"}


def test_conversations_of_the_original_are_listed_and_shown(tmp_path: Path, start: Any) -> None:
    """Both line formats that it knows, and the completion results on its bus."""
    user = {"type": "user", "timestamp": "2025-07-12T17:00:00Z", "content": "hello"}
    claude = {"type": "claude", "timestamp": "2025-07-12T17:00:01Z", "result": "hi"}
    planted(tmp_path, "var/logs/responses/talk.jsonl", lines(user, claude))
    answer = {
        "ksi": {
            "provider": "claude-cli",
            "request_id": "r",
            "timestamp": "2025-07-12T17:00:02Z",
            "duration_ms": 5,
        },
        "response": {"type": "result", "result": "answer", "session_id": "own"},
    }
    planted(tmp_path, "var/logs/responses/own.jsonl", lines(answer))
    daemon = start()

    listed = daemon.ask("conversation:list")
    assert {one["session_id"]: one["message_count"] for one in listed["conversations"]} == {
        "talk": 2,
        "own": 1,
    }
    shown = daemon.ask("conversation:get", session_id="talk")["messages"]
    assert [(one["sender"], one["content"]) for one in shown] == [("You", "hello"), ("Claude", "hi")]


def test_exports_have_its_layout(tmp_path: Path, start: Any) -> None:
    """Markdown with its lines, JSON with its keys, indented by two, without a last newline."""
    user = {"type": "user", "timestamp": "2025-07-12T17:00:00Z", "content": "gr\u00fc\u00df"}
    planted(tmp_path, "var/logs/responses/talk.jsonl", lines(user))
    daemon = start()

    as_text = daemon.ask("conversation:export", session_id="talk")
    as_json = daemon.ask("conversation:export", session_id="talk", format="json")
    text = (tmp_path / as_text["export_path"]).read_text(encoding="utf-8")
    assert text.startswith("# Conversation Export: talk\n*Exported on ")
    assert "\n*Total messages: 1*\n---\n### " in text
    document = (tmp_path / as_json["export_path"]).read_text(encoding="utf-8")
    found = json.loads(document)
    assert document == json.dumps(found, indent=2, ensure_ascii=False)
    assert list(found) == ["session_id", "exported_at", "exported_at_iso", "total_messages", "messages"]


def test_a_backup_of_the_original_can_be_rolled_back_to(tmp_path: Path, start: Any) -> None:
    """By its name, with the `.meta` that it wrote."""
    path = planted(tmp_path, "ksi_daemon.yaml", "daemon:\n  log_level: DEBUG\n")
    name = "ksi_daemon.yaml_20250712_170000"
    copy = planted(tmp_path, f"var/tmp/backups/config/{name}", "daemon:\n  log_level: INFO\n")
    meta = {
        "original_path": str(path),
        "backup_name": name,
        "backup_path": f"var/tmp/backups/config/{name}",
        "timestamp": "2025-07-12T17:00:00",
        "size": copy.stat().st_size,
    }
    planted(tmp_path, f"var/tmp/backups/config/{name}.meta", json.dumps(meta, indent=2))

    found = start().ask("config:rollback", config_type="daemon", backup_name=name)
    assert found["status"] == "rolled_back"
    assert path.read_text() == "daemon:\n  log_level: INFO\n"


def test_configuration_is_byte_for_byte_its_own(tmp_path: Path, start: Any) -> None:
    """YAML in blocks, keys in their order, ASCII; the backup's `.meta` has its keys."""
    path = planted(tmp_path, "ksi_daemon.yaml", "daemon:\n  log_level: DEBUG\n")
    daemon = start()
    found = daemon.ask("config:set", key="daemon.x.y", value=[1, {"b": "\u00e9"}], config_type="daemon")

    assert path.read_text() == 'daemon:\n  log_level: DEBUG\n  x:\n    y:\n    - 1\n    - b: "\\xE9"\n'
    meta = json.loads((tmp_path / f"var/tmp/backups/config/{found['backup']}.meta").read_text())
    assert {"original_path", "backup_name", "backup_path", "timestamp", "size"} <= meta.keys()
    assert time.strptime(meta["timestamp"][:19], "%Y-%m-%dT%H:%M:%S")
