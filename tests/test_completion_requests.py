"""What `completion:async` takes: every parameter, its place, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from ksi_daemon.completion import requests
from ksi_daemon.errors import KsiError

SESSION = "11111111-2222-3333-4444-555555555555"


def read(**data):
    """The request in these parameters."""
    return requests.read(data, "claude-cli/default", lambda: "new")


def refused(**data):
    """Code and text of the refusal."""
    with pytest.raises(KsiError) as caught:
        read(**data)
    return caught.value.code, str(caught.value)


def test_a_prompt_is_enough():
    """Name and model are filled in; the turn is asked for with nothing else."""
    request = read(prompt="hi")

    assert request == requests.Request("new", "hi", "claude-cli/default")
    assert request.turn(None) == {"prompt": "hi", "request_id": "new", "model": "claude-cli/default"}


def test_everything_is_mapped():
    """`extra_body.ksi` becomes the parameters of `claude_cli:turn`; unknown keys are left alone."""
    ksi = {
        "agent_id": "coder",
        "session_id": SESSION,
        "permissions": {"allowed_tools": ["Read"], "disallowed_tools": ["Bash"], "profile": "restricted"},
        "sandbox_dir": "var/sandbox/x",
        "mcp_config_path": "var/mcp.json",
        "max_turns": 3,
    }
    request = read(
        prompt="hi",
        request_id="r",
        model="claude-cli/opus",
        originator_id="me",
        stream=True,
        health=False,
        extra_body={"ksi": ksi},
    )

    assert request.originator_id == "me"
    assert request.turn(request.session_id) == {
        "prompt": "hi",
        "request_id": "r",
        "model": "claude-cli/opus",
        "session_id": SESSION,
        "agent_id": "coder",
        "allowed_tools": ["Read"],
        "disallowed_tools": ["Bash"],
        "max_turns": 3,
        "mcp_config_path": "var/mcp.json",
        "sandbox_dir": "var/sandbox/x",
    }


def test_the_outer_name_wins():
    """`session_id` and `agent_id` beside `extra_body` come before those within; null and empty are absent."""
    inner = {"ksi": {"session_id": "in", "agent_id": "in"}}

    assert (read(prompt="p", session_id="out", agent_id="out", extra_body=inner)).session_id == "out"
    request = read(prompt="p", session_id="", agent_id=None, model=None, extra_body=inner)
    assert (request.session_id, request.agent_id, request.model) == ("in", "in", "claude-cli/default")
    assert (
        read(prompt="p", extra_body=None).options == read(prompt="p", extra_body={"ksi": None}).options == {}
    )


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("last", "last"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
    ],
)
def test_the_last_message_is_sent(content, prompt):
    """Its content only, as a string or as text blocks, which are joined."""
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": content}]

    assert read(messages=messages).prompt == prompt
    assert read(messages=messages, prompt="prompt").prompt == "prompt"


def test_conversations():
    """The session, else the agent, else the request alone."""
    names = [
        read(prompt="p", request_id="r", **more).conversation
        for more in ({"session_id": "s", "agent_id": "a"}, {"agent_id": "a"}, {})
    ]

    assert names == ["s", "agent:a", "request:r"]


@pytest.mark.parametrize(
    "data", [{}, {"prompt": ""}, {"messages": []}, {"messages": None}, {"messages": [{"content": ""}]}]
)
def test_something_must_be_said(data):
    """Without a prompt and without messages."""
    assert refused(**data) == ("missing_parameter", "prompt or messages required")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"prompt": 5}, "prompt"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"content": [{"type": "image"}]}]}, "content"),
        ({"messages": [{"content": ["text"]}]}, "content"),
        ({"messages": [{"content": [{"type": "text", "text": 5}]}]}, "content"),
        ({"prompt": "p", "request_id": 5}, "request_id"),
        ({"prompt": "p", "session_id": ["s"]}, "session_id"),
        ({"prompt": "p", "agent_id": {}}, "agent_id"),
        ({"prompt": "p", "model": True}, "model"),
        ({"prompt": "p", "originator_id": 1}, "originator_id"),
        ({"prompt": "p", "extra_body": "x"}, "extra_body"),
        ({"prompt": "p", "extra_body": {"ksi": []}}, "ksi"),
        ({"prompt": "p", "extra_body": {"ksi": {"permissions": "all"}}}, "permissions"),
        ({"prompt": "p", "extra_body": {"ksi": {"permissions": {"allowed_tools": "Read"}}}}, "allowed_tools"),
        (
            {"prompt": "p", "extra_body": {"ksi": {"permissions": {"disallowed_tools": [1]}}}},
            "disallowed_tools",
        ),
        ({"prompt": "p", "extra_body": {"ksi": {"max_turns": "3"}}}, "max_turns"),
        ({"prompt": "p", "extra_body": {"ksi": {"max_turns": 0}}}, "max_turns"),
        ({"prompt": "p", "extra_body": {"ksi": {"max_turns": True}}}, "max_turns"),
        ({"prompt": "p", "extra_body": {"ksi": {"new_session": "yes"}}}, "new_session"),
        ({"prompt": "p", "extra_body": {"ksi": {"mcp_config_path": 1}}}, "mcp_config_path"),
        ({"prompt": "p", "extra_body": {"ksi": {"sandbox_dir": 1}}}, "sandbox_dir"),
    ],
)
def test_a_wrong_type_is_named(data, name):
    """The parameter, what it must be, and what it is."""
    code, text = refused(**data)

    assert code == "invalid_parameter"
    assert text.startswith(f"{name} must be ")


def test_what_no_frame_can_carry_is_refused():
    """A lone surrogate, before anything is queued."""
    assert refused(prompt="\ud800")[0] == "unserialisable"
    assert refused(prompt="p", request_id="\ud800")[0] == "unserialisable"
