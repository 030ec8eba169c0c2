"""The original's clients and files, on this daemon: nothing of theirs has to be changed."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import elsewhere
from tests.daemon import PATIENCE, running
from tests.dropin import CommandLine, EventClient, control_health, control_stop, minimal
from tests.line_client import daemon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unmeasured
STAGES = ("sync", "async")
APPENDIX = """
agent: spawn terminate restart register unregister list list_constructs create_identity update_identity
remove_identity list_identities get_identity route_task get_capabilities send_message broadcast
update_composition discover_peers negotiate_roles terminated
checkpoint: collect restore
completion: cancelled error progress result async status session_status provider_status token_usage
cancel retry_status failed
composition: compose profile prompt validate evaluate save update discover list get reload rebuild_index
index_file select create fork merge diff track_decision
config: get set validate reload backup rollback
conversation: list search get export stats active acquire_lock release_lock fork_detected lock_status
correlation: trace chain tree stats cleanup current
dev: checkpoint restore
evaluation: prompt list_suites compare list refresh_index judge_prompt judge_compare iterate_prompt
prompt_patterns bootstrap_judges_v2 autonomous_improvement_cycle list_improvement_cycles
event: emit
event_log: query stats clear
injection: status inject queue batch list clear process_result execute
mcp: status clear_sessions
message: subscribe unsubscribe publish subscriptions connect disconnect
message_bus: stats
module: list events inspect
monitor: get_events get_stats clear_log subscribe unsubscribe query get_session_events
get_correlation_chain
observation: ready restored subscribe unsubscribe list query_history replay analyze_patterns query
analyze
observe: begin end
orchestration: start message status terminate request_termination list_patterns load_pattern get_instance
permission: get_profile set_agent validate_spawn get_agent remove_agent list_profiles
router: register_transformer unregister_transformer list_transformers
runtime: config:set config:get config:query config:reset
sandbox: create get remove list stats
shutdown: acknowledge
state: entity:create entity:update entity:delete entity:get entity:query entity:bulk_create
relationship:create relationship:delete relationship:query graph:traverse aggregate:count
system: error_propagation context shutdown health startup discover help ready shutdown_complete
tournament: evaluation_response create register start_phase
transformer: load_pattern unload_pattern reload_pattern list_by_pattern get_usage
transport: create message
"""
FRAMES_ONLY = {f"completion:{kind}" for kind in ("cancelled", "error", "progress", "result")} | {
    "system:shutdown_complete"
}
"""Events that the daemon tells and nobody asks."""


def all_names() -> set[str]:
    """Every event name of the original, from the contract's appendix A."""
    found, namespace = set(), ""
    for word in APPENDIX.split():
        if word.endswith(":"):
            namespace = word
        else:
            found.add(namespace + word)
    return found


@pytest.fixture(params=STAGES)
def served(tmp_path: Path, request: pytest.FixtureRequest):
    """A daemon with everything at one side, and a command line in its directory."""
    with running(tmp_path) as found:
        flags = (tmp_path / "flags.yaml").read_text()
        (tmp_path / "flags.yaml").write_text(flags.replace(": sync\n", f": {request.param}\n"))
        found.ask("migration:reload")
        yield found


def published(agent: str, number: int) -> dict[str, Any]:
    """One message."""
    return {"agent_id": agent, "event_type": "NOTE", "message": {"n": number}}


# the command line


def test_the_command_line_finds_the_daemon_and_its_events(served) -> None:
    """Health within its check, discovery within its limit, each event with a summary."""
    found = CommandLine(served.root).run("system:discover", {"namespace": "message"})

    events = found["data"]["events"]
    assert found["event"] == "system:discover"
    assert "message:publish" in events
    assert all(event["summary"] for event in events.values())


def test_the_command_line_helps(served) -> None:
    """Everything that it prints of a parameter is there."""
    found = CommandLine(served.root).run("system:help", {"event": "message:publish"})["data"]

    assert found["parameters"]["agent_id"]["required"] is True
    assert {"type", "required", "description"} <= found["parameters"]["message"].keys()
    examples = found["examples"]
    assert all({"data", "description"} <= one.keys() or "command" in one for one in examples)


def test_the_command_line_sends_flags_as_text(served) -> None:
    """Values are text unless they look like JSON; the stray `health` harms nothing and is not kept."""
    line = CommandLine(served.root)
    text = line.send("message:publish", "--agent-id", "a", "--event-type", "NOTE", "--message", '{"n": 1}')
    as_json = line.send("message:publish", given=json.dumps(published("a", 2)))

    assert (text["data"]["status"], as_json["data"]["status"]) == ("published", "published")
    assert [record["n"] for record in served.bus()] == [1, 2]
    assert all("health" not in record for record in served.bus())


def test_the_command_line_gets_what_it_prints_of_an_error(served) -> None:
    """An unknown event is a reply with similar names; a missing parameter is one with a text."""
    line = CommandLine(served.root)

    unknown = line.send("message:publisch")["data"]
    missing = line.send("message:publish")["data"]
    assert unknown["error"] == "Unknown event: message:publisch"
    assert "message:publish" in unknown["details"]["similar"]
    assert missing["error"] == "agent_id required"


def test_the_command_line_lists_conversations(served) -> None:
    """Those that the daemon itself has written, with what it prints of each."""
    folder = served.root / "var/logs/responses"
    folder.mkdir(parents=True, exist_ok=True)
    line = {"type": "user", "timestamp": "2025-07-12T17:00:00Z", "content": "hello"}
    (folder / "talk.jsonl").write_text(json.dumps(line) + "\n")

    found = CommandLine(served.root).run("conversation:list", {"limit": 10})["data"]
    assert found["total"] == 1
    (talk,) = found["conversations"]
    assert (talk["session_id"], talk["last_timestamp"], talk["message_count"]) == (
        "talk",
        "2025-07-12T17:00:00Z",
        1,
    )


def test_the_command_line_asks_for_a_state_in_vain(served) -> None:
    """As with the original, that is an unknown event; here it says whose it was."""
    found = CommandLine(served.root).run("state:get", {"key": "k", "namespace": "n"})["data"]

    assert found["code"] == "unknown_event"
    assert "does not provide" in found["details"]["help"]


# the libraries


@pytest.mark.parametrize("stage", STAGES)
async def test_the_asyncio_library_works(tmp_path: Path, stage: str) -> None:
    """No line over its 64 KiB; frames go to the handlers of their own name."""
    async with daemon(tmp_path, messaging=stage, completion=stage) as bench, EventClient() as client:
        await client.connect(bench.root / "var/run/daemon.sock")
        assert (await client.send("message:publish", published("a", 1)))["status"] == "published"
        queued = await client.send("completion:async", {"prompt": "hello", "request_id": "r-1"})
        assert queued["status"] == "queued"
        deadline = time.monotonic() + PATIENCE
        while "completion:error" not in client.seen and "completion:result" not in client.seen:
            await client.send("system:health", {})
            assert time.monotonic() < deadline


def test_the_small_library_works(served) -> None:
    """A reply in one connection, read in pieces of 4,096 bytes."""
    assert minimal(served.socket_path, "system:health", {})["status"] == "healthy"
    assert minimal(served.socket_path, "message:publish", published("a", 1))["status"] == "published"
    assert minimal(served.socket_path, "system:discover", {})["total"] > 50


def test_the_control_script_works(served) -> None:
    """Health in one read; both shutdown frames, and the PID file gone with the process."""
    assert control_health(served.socket_path)
    assert control_stop(served.socket_path) == "full sequence"
    assert served.process.wait(PATIENCE) == 0
    assert not (served.root / "var/run/ksi_daemon.pid").exists()


def test_the_socket_and_pid_file_are_where_they_look(served) -> None:
    """Below the directory in which the command line runs."""
    assert (served.root / "var/run/ksi_daemon.pid").read_text() == f"{served.pid}\n"
    assert os.path.exists(served.root / "var/run/daemon.sock")


# events that are not here


def test_every_event_of_the_original_is_answered_or_named_as_not_provided(served) -> None:
    """No name of the original's is merely unknown."""
    registered = set(served.ask("module:events")["events"])
    missing = all_names() - registered - FRAMES_ONLY

    assert missing <= elsewhere.NOT_PROVIDED
    assert not elsewhere.NOT_PROVIDED & registered
    for name in sorted(missing)[::7]:
        found = served.ask(name)
        assert found["error"] == f"Unknown event: {name}"
        assert found["details"]["help"] == elsewhere.hint(name)


def test_any_other_name_has_no_such_hint(served) -> None:
    """It is unknown, and that is all."""
    assert "help" not in served.ask("nothing:known")["details"]
