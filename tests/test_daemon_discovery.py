"""Discovery through the socket of a real daemon: who gets what, and what is left when a client goes."""

from __future__ import annotations

import ast
import os
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.daemon import running, write_flags
from tests.discovery_trees import COUNTS, HANGS, lay, runs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unmeasured
APPENDIX = """
message:subscribe agent_id:str event_types:list[str]
message:unsubscribe agent_id:str event_types:list[str]
message:publish agent_id:str event_type:str message:dict[str, Any]
message:subscriptions agent_id:str
transport:message command:Literal['PUBLISH', 'SUBSCRIBE']
agent:create_identity agent_id:str identity:dict[str, Any]
agent:register agent_id:str profile:str capabilities:list[str]
agent:list status:str
agent:send_message agent_id:str message:dict[str, Any] wait_for_response:bool timeout:float
agent:broadcast message:dict[str, Any] exclude_agents:list[str] agent_types:list[str]
agent:terminate agent_id:str force:bool
completion:async request_id:str session_id:str model:str messages:list[dict[str, Any]] prompt:str
completion:token_usage agent_id:str model:str hours:int
completion:cancel request_id:str
system:discover detail:bool namespace:str event:str module:str
system:discover format_style:Literal['verbose', 'compact', 'ultra_compact', 'mcp']
system:help event:str format_style:Literal['verbose', 'compact', 'mcp']
module:inspect module_name:str
event:emit event:str data:dict[str, Any] delay:float condition:str
"""
"""From the contract's appendix B: names and types, where ours have the parameter too."""


@pytest.fixture(params=["sync", "async"])
def stage(request):
    """The side in force."""
    return request.param


def gone(pid_file: Path, seconds: float = 5.0) -> bool:
    """Whether the process named there ends in time."""
    pid, until = pid_file.read_text().strip(), time.monotonic() + seconds
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        time.sleep(0.01)
    return not os.path.exists(f"/proc/{pid}")


def await_file(path: Path) -> None:
    """Wait until it is there, with something in it."""
    until = time.monotonic() + 20
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < until
        time.sleep(0.01)


def search(**data):
    """A request."""
    return {"event": "discovery:search", "data": {"pattern": "needle", **data}}


def test_frames_come_before_the_reply_and_to_nobody_else(tmp_path, stage):
    """One of each match, known by the search's name."""
    write_flags(tmp_path, discovery=stage)
    lay(tmp_path, {"src/a": "needle\nneedle\n"})
    with running(tmp_path, KSI_DISCOVERY_TREE="src") as daemon, daemon.wire() as one, daemon.wire() as other:
        one.send(search(stream=True, search_id="s"))
        first, second, reply = one.frames(3)
        other.send({"event": "system:health"})

        assert [frame["event"] for frame in (first, second)] == ["discovery:match"] * 2
        assert [frame["data"]["line"] for frame in (first, second)] == [1, 2]
        assert (reply["data"]["count"], reply["data"]["search_id"]) == (2, "s")
        assert (other.frame() or {})["event"] == "system:health"


@pytest.mark.parametrize("stream", [False, True])
def test_rg_ends_when_its_client_hangs_up(tmp_path, stream):
    """Though nothing is ever written to a client that waits for its reply."""
    write_flags(tmp_path, discovery="async")
    lay(tmp_path, {}, HANGS)
    with running(tmp_path, KSI_DISCOVERY_RG="bin/rg", KSI_DISCOVERY_TIMEOUT="50") as daemon:
        with daemon.wire() as wire:
            wire.send(search(stream=stream))
            await_file(tmp_path / "bin/pid")
        assert gone(tmp_path / "bin/pid")
        assert daemon.stop() == 0


def test_a_client_that_only_has_sent_its_last_is_answered(tmp_path):
    """A half-close is no goodbye."""
    write_flags(tmp_path, discovery="async")
    lay(tmp_path, {}, HANGS)
    with (
        running(tmp_path, KSI_DISCOVERY_RG="bin/rg", KSI_DISCOVERY_TIMEOUT="0.6") as daemon,
        daemon.wire() as wire,
    ):
        wire.send(search())
        wire.socket.shutdown(socket.SHUT_WR)
        found = wire.frame()

    assert found is not None
    assert (found["data"]["count"], found["data"]["stopped"]) == (1, "time")


def test_details_end_with_their_client_too(tmp_path):
    """The mining that nobody waits for any more."""
    write_flags(tmp_path, discovery="async")
    lay(tmp_path, {}, HANGS)
    with running(tmp_path, KSI_DISCOVERY_RG="bin/rg", KSI_DISCOVERY_TIMEOUT="50") as daemon:
        with daemon.wire() as wire:
            wire.send({"event": "system:discover", "data": {"detail": True}})
            await_file(tmp_path / "bin/pid")
        assert gone(tmp_path / "bin/pid")


def test_a_killed_daemon_leaves_nothing_that_the_next_one_does_not_end(tmp_path):
    """A hanging rg outlives a kill -9 until then."""
    write_flags(tmp_path, discovery="async")
    lay(tmp_path, {}, HANGS)
    with (
        running(tmp_path, KSI_DISCOVERY_RG="bin/rg", KSI_DISCOVERY_TIMEOUT="50") as daemon,
        daemon.wire() as wire,
    ):
        wire.send(search())
        await_file(tmp_path / "bin/pid")
        daemon.kill()
    with running(tmp_path) as daemon:
        assert gone(tmp_path / "bin/pid")
        assert daemon.stop() == 0


def test_a_stop_ends_a_search_that_hangs(tmp_path):
    """In time, with a reply to it, and exit code 0 or 1: what was accepted was not all done."""
    write_flags(tmp_path, discovery="async")
    lay(tmp_path, {}, HANGS)
    with (
        running(tmp_path, KSI_DISCOVERY_RG="bin/rg", KSI_DISCOVERY_TIMEOUT="50") as daemon,
        daemon.wire() as wire,
    ):
        wire.send(search())
        await_file(tmp_path / "bin/pid")
        begun = time.monotonic()
        daemon.stop()

        assert time.monotonic() - begun < 6
        replies = [frame for frame in wire.rest() if frame["event"] == "discovery:search"]
        assert [reply.get("code") or reply["data"]["code"] for reply in replies] == ["shutting_down"]
        assert gone(tmp_path / "bin/pid")


def test_a_search_ends_on_the_side_on_which_it_began(tmp_path):
    """A flip waits for nothing, and the cache of the other side begins empty."""
    write_flags(tmp_path, discovery="async")
    lay(tmp_path, {"src/a": "needle\n"}, HANGS)
    with (
        running(
            tmp_path, KSI_DISCOVERY_RG="bin/rg", KSI_DISCOVERY_TREE="src", KSI_DISCOVERY_TIMEOUT="1.5"
        ) as daemon,
        daemon.wire() as wire,
    ):
        wire.send(search())
        await_file(tmp_path / "bin/pid")
        lay(tmp_path, {}, COUNTS)
        write_flags(tmp_path, discovery="sync")
        daemon.ask("migration:reload")
        until = time.monotonic() + 10
        while _stage(daemon) != "sync" and time.monotonic() < until:
            time.sleep(0.02)
        assert [daemon.ask("discovery:search", pattern="needle")["count"] for _ in range(2)] == [1, 1]
        found = wire.frame()

    assert found is not None
    assert found["data"]["stopped"] == "time"
    assert runs(tmp_path) == 1


def _stage(daemon) -> str:
    status = daemon.ask("migration:status")
    return next(one["effective"] for one in status["components"] if one["name"] == "discovery")


def test_every_declaration_is_sound(tmp_path):
    """Types as in the contract's appendix B; what is allowed, and the defaults, are of their types."""
    with running(tmp_path) as daemon:
        found = daemon.ask("system:discover", detail=True)["events"]
        tiny = daemon.ask("system:discover", format_style="ultra_compact", detail=True)
    for line in APPENDIX.strip().splitlines():
        event, _, rest = line.partition(" ")
        for name, kind in re.findall(r"(\w+):((?:[^ ]|(?<=,) )+)", rest):
            assert found[event]["parameters"][name]["type"] == kind, (event, name)
    frames = {
        "system:shutdown_notification",
        "system:shutdown_complete",
        "migration:changed",
        "discovery:match",
        "conversation:progress",
    }
    emitted = {
        "config:set": ["config:changed"],
        "config:reload": ["daemon:config_reload", "modules:reload", "composition:reload"],
        "config:rollback": ["config:rolled_back"],
    }
    frames.update(*emitted.values())
    frames |= {f"completion:{what}" for what in ("progress", "result", "error", "cancelled")}
    for event, shown in found.items():
        assert set(shown["triggers"]) <= frames | found.keys(), event
        for param in shown["parameters"].values():
            literal = re.fullmatch(r"Literal\[(.*)\]", param["type"])
            if literal:
                assert param["allowed_values"] == list(ast.literal_eval(f"({literal[1]},)"))
            if "allowed_values" in param and "default" in param:
                assert param["default"] in param["allowed_values"]
    assert found["completion:async"]["triggers"] != []
    assert found["conversation:refresh"]["triggers"] == ["conversation:progress"]
    assert {event: found[event]["triggers"] for event in emitted} == emitted
    assert tiny["events"].keys() == found.keys()
