"""The completion room with a provider that tests command: what every test of the queue gets.

A prompt says what the provider does with it; nothing in it looks at a clock.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ksi_daemon.completion import AREA
from ksi_daemon.hub import Hub
from ksi_daemon.router import Event, Router
from tests.rooms import room

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rooms import Room

SONNET = "claude-cli/sonnet"
USAGE = {"input_tokens": 10, "output_tokens": 3}
BUSY = {"error": "API Error: 529 Overloaded", "code": "api_error", "retryable": True}


def session(number: int) -> str:
    """A session's id."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def log_of(root: Path, number: int) -> Path:
    """A session's log."""
    return root / f"var/logs/responses/{session(number)}.jsonl"


def answer(text: object = "hi", number: int | None = 1, **response: Any) -> dict[str, Any]:
    """A reply to `claude_cli:turn`."""
    said = {"type": "result", "result": text, "usage": USAGE, **response}
    of = session(number) if number is not None else None
    return {"status": "completed", "session_id": of, "response": said, "duration_ms": 7}


class Provider:
    """Stands in for `claude_cli:turn`: answers a prompt with its reply, or holds it until `let_go`.

    `replies[prompt]` is a list used up one by one, then its last goes on; a prompt without one is answered in
    the session that was asked in, else in session 1.
    """

    def __init__(self) -> None:
        self.replies: dict[str, list[Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.running: list[str] = []
        self.most = 0
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self._held: dict[str, asyncio.Event] = {}

    def hold(self, *prompts: str) -> None:
        """Answer these only when they are let go."""
        self._held.update((prompt, asyncio.Event()) for prompt in prompts)

    def let_go(self, *prompts: str) -> None:
        """Answer these."""
        for prompt in prompts:
            self._held[prompt].set()

    async def turn(self, data: dict[str, Any], _client: object) -> Any:
        """One turn."""
        prompt = data["prompt"]
        self.asked.append(data)
        self.running.append(prompt)
        self.most = max(self.most, len(self.running))
        try:
            if prompt in self._held:
                await self._held[prompt].wait()
        except asyncio.CancelledError:
            self.cancelled.append(prompt)
            raise
        finally:
            self.running.remove(prompt)
        self.ended.append(prompt)
        replies = self.replies.get(prompt)
        if replies is None:
            of = data.get("session_id", session(1))
            return {**answer(prompt, None), "session_id": of}
        return replies.pop(0) if len(replies) > 1 else replies[0]


class Completions:
    """The room, its provider, the frames that clients got, and the events that answers emitted."""

    def __init__(self, made: Room) -> None:
        self.room = made
        self.provider = Provider()
        self.frames: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []
        self._router = Router()
        self._router.add(made.service.events())
        self._router.add(
            (
                Event("claude_cli:turn", self.provider.turn, "a turn"),
                Event("notes:add", self._note, "a note"),
            )
        )
        made.site.hub = Hub(self._router, lambda line: self.frames.append(json.loads(line)))

    async def ask(self, prompt: str, **data: Any) -> dict[str, Any]:
        """The reply to `completion:async`; the request is named as its prompt unless told otherwise."""
        return await self.send("completion:async", **{"prompt": prompt, "request_id": prompt, **data})

    async def send(self, event: str, **data: Any) -> Any:
        """The reply to an event."""
        (reply,) = await self._router.emit(event, data)
        return reply

    async def quiet(self) -> None:
        """Wait until no request is left, or only such as are held."""
        while tasks := [
            task
            for task in self.room.service._turns._tasks
            if (job := self.job(task)) is None or not self._is_held(job)
        ]:
            await asyncio.wait(tasks, timeout=0.005)

    def job(self, task: asyncio.Task[None]) -> Any:
        """The request of a task."""
        return next((job for job in self.room.service._queue.taken() if job.task is task), None)

    def _is_held(self, job: Any) -> bool:
        held = self.provider._held.get(job.request.prompt)
        begun = not job.over and job.request.prompt in self.provider.running
        return begun and held is not None and not held.is_set()

    def told(self, *kinds: str) -> list[tuple[str, str]]:
        """Kind and request of each frame, in order; only of these kinds if there are any."""
        found = [(frame["event"].split(":")[1], frame["data"]["request_id"]) for frame in self.frames]
        return [one for one in found if not kinds or one[0] in kinds]

    def frame(self, kind: str, request: str) -> dict[str, Any]:
        """The data of the only such frame."""
        (found,) = (
            frame["data"]
            for frame in self.frames
            if frame["event"] == f"completion:{kind}" and frame["data"]["request_id"] == request
        )
        return found

    def change(self, **settings: Any) -> None:
        """Other settings from now on."""
        self.room.site.settings = self.room.site.settings.model_copy(update=settings)

    async def _note(self, data: dict[str, Any], _client: object) -> dict[str, str]:
        self.notes.append(data)
        return {"status": "noted"}


@asynccontextmanager
async def completions(side, root):
    """The room on a side, with its provider; delays between attempts are short."""
    async with room(AREA, side, root) as made:
        with_provider = Completions(made)
        with_provider.change(claude_retry_backoff=0.001)
        yield with_provider


def lines(path: Path) -> list[dict[str, Any]]:
    """A log's records; [] without a log."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
