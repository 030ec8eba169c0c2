"""A stand-in for the Messages API on the loopback: what the real `claude` command talks to in tests."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.standin_words import directives, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USAGE = {
    "input_tokens": 11,
    "output_tokens": 7,
    "cache_read_input_tokens": 3,
    "cache_creation_input_tokens": 2,
}
"""What every answer says that it cost."""

PIECE = 4096
"""Characters in one event of a streamed answer."""

PATIENCE = 60.0
"""Seconds for which an answer is held back at the most."""

KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
KINDS |= {429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}


@dataclass(frozen=True)
class Says:
    """An answer in words."""

    text: str

    def content(self) -> list[dict[str, Any]]:
        """The answer's content blocks."""
        return [{"type": "text", "text": self.text}]


@dataclass(frozen=True)
class Uses:
    """An answer that has the client run a tool."""

    tool: str
    values: dict[str, Any]

    def content(self) -> list[dict[str, Any]]:
        """The answer's content blocks."""
        return [{"type": "tool_use", "id": "toolu_0001", "name": self.tool, "input": self.values}]


@dataclass(frozen=True)
class Fails:
    """An answer that is an error."""

    status: int
    message: str

    def body(self) -> dict[str, Any]:
        """The error as the API words it."""
        return {"type": "error", "error": {"type": KINDS[self.status], "message": self.message}}


@dataclass(frozen=True)
class Counts:
    """The number of tokens of a message."""

    tokens: int = 42


Answer = Says | Uses | Fails | Counts


@dataclass
class Request:
    """One request as it came, and when (monotonic seconds) it came and was answered."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    came: float = field(default_factory=time.monotonic)
    answered: float = 0.0

    @property
    def texts(self) -> list[str]:
        """All text of its messages, in order, without what the client adds in `<system-reminder>`."""
        return [text for message in self.body["messages"] for text in _texts(message["content"])]

    @property
    def is_turn(self) -> bool:
        """Whether it is the agent's own: the client's small talk on the side brings no tools."""
        return self.path == "/v1/messages" and bool(self.body.get("tools"))


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _texts(content: Any) -> list[str]:
    found = [block["text"] for block in _blocks(content) if block["type"] == "text"]
    return [text for text in found if not text.lstrip().startswith("<")]


def by_words(request: Request) -> Answer:
    """What the stand-in for the command answers to the same prompt: see `tests/standin_words.py`."""
    if any(block["type"] == "tool_result" for block in _blocks(request.body["messages"][-1]["content"])):
        return Says("the tool is done")
    prompt = request.texts[-1]
    for word, value in directives(prompt):
        if word == "fail":
            status, _, message = value.partition(" ")
            return Fails(int(status), message)
        if word in {"tool", "turns"}:
            return Uses("Bash", {"command": f"sleep {float(value or 0)}"})
        if word == "big":
            return Says("x" * int(value))
    return Says(f"you said {plain(prompt)}")


class MessagesApi:
    """The API, its requests so far, and what it answers: `answer(request)`, only for an agent's own turns."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], Answer] = by_words
        self.requests: list[Request] = []
        self._changed = threading.Condition()
        self._wanted = 0
        self._closed = False
        self._server = Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="messages-api")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def turns(self) -> list[Request]:
        """The requests that are an agent's own."""
        return [request for request in self.requests if request.is_turn]

    def open(self) -> None:
        """Serve."""
        self._thread.start()

    def close(self) -> None:
        """Let go what is held, and end every thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def hold(self, count: int) -> None:
        """Hold every answer back until so many more turns have come; nothing with 0."""
        with self._changed:
            self._wanted = len(self.turns) + count if count else 0
            self._changed.notify_all()

    def release(self) -> None:
        """Hold nothing back any more."""
        self.hold(0)

    def wait_for(self, count: int, timeout: float = PATIENCE) -> None:
        """Until so many turns have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.turns) >= count, timeout), self.requests

    def take(self, request: Request) -> Answer:
        """Note a request and say what is answered, when it may be."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            if request.is_turn:
                self._changed.wait_for(lambda: self._closed or len(self.turns) >= self._wanted, PATIENCE)
        try:
            return self._answer_of(request)
        finally:
            request.answered = time.monotonic()

    def _answer_of(self, request: Request) -> Answer:
        if request.path == "/v1/messages/count_tokens":
            return Counts()
        if request.path != "/v1/messages":
            return Fails(404, f"there is no {request.path}")
        return self.answer(request) if request.is_turn else Says("ok")


class Handler(BaseHTTPRequestHandler):
    """One connection, which ends with its answer."""

    timeout = PATIENCE
    server: Server

    def do_POST(self) -> None:
        """Answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self.path.partition("?")[0], body, dict(self.headers))
        try:
            self._answer(self.server.api.take(request), body)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed meanwhile
            self.close_connection = True

    def _answer(self, answer: Answer, body: dict[str, Any]) -> None:
        if isinstance(answer, Fails):
            self._send(answer.status, answer.body())
        elif isinstance(answer, Counts):
            self._send(200, {"input_tokens": answer.tokens})
        elif body.get("stream"):
            self._stream(_events(_message(answer, body["model"])))
        else:
            self._send(200, _message(answer, body["model"]))

    def _send(self, status: int, value: dict[str, Any]) -> None:
        self._head(status, "application/json")
        self.wfile.write(json.dumps(value).encode())

    def _stream(self, events: Iterator[dict[str, Any]]) -> None:
        self._head(200, "text/event-stream")
        for event in events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the standard library's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A thread for each connection, all of which have ended when it is closed."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, api: MessagesApi) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api


def _message(answer: Says | Uses, model: str) -> dict[str, Any]:
    return {
        "id": "msg_0001",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": answer.content(),
        "stop_reason": "tool_use" if isinstance(answer, Uses) else "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
    }


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message as the API streams it."""
    begun = {**message, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 0}}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": USAGE["output_tokens"]}}
    yield {"type": "message_stop"}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "tool_use":
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        return
    for start in range(0, len(block["text"]), PIECE):
        yield {"type": "text_delta", "text": block["text"][start : start + PIECE]}


@contextmanager
def serving() -> Iterator[MessagesApi]:
    """An API for the time of a test."""
    api = MessagesApi()
    api.open()
    try:
        yield api
    finally:
        api.close()
