"""Carrying requests through: ask the provider, keep the answer, tell the client."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon import wire
from ksi_daemon.completion import answers
from ksi_daemon.completion.answers import Answer, Failure
from ksi_daemon.completion.emitting import Emitting
from ksi_daemon.errors import CutOff, InvalidParameter, KsiError, ShuttingDown, Unserialisable

if TYPE_CHECKING:
    from ksi_daemon.completion.contract import CompletionLog
    from ksi_daemon.completion.queue import Job, Queue
    from ksi_daemon.completion.usage import TokenUsage
    from ksi_daemon.site import Site

AGENTS = 10_000
"""Agents whose last session is known; beyond that the one that answered least recently is forgotten."""

LONGEST_DELAY = 600.0
"""Seconds between two attempts at most."""

STOP = 0.3
"""Seconds that answers being written have at a stop."""

AT_A_TIME = 100
"""Requests that a stop ends before others may run again: a millisecond or two."""

log = structlog.get_logger("ksi.completion")


class Turns:
    """What goes on with the requests of a queue.

    An answer takes effect in this order (the KSI contract, 3.7): its line in the session's log, the events in
    its text, the agent's session, its tokens in the usage log, its status, its frame. When a log refuses, the
    frame is an error that holds the answer, and what would have come after it does not happen.
    """

    def __init__(self, queue: Queue, sessions: CompletionLog, usage: TokenUsage, site: Site) -> None:
        self._queue = queue
        self._log = sessions
        self._usage = usage
        self._site = site
        self._emitting = Emitting(site)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self.sessions: OrderedDict[str, str] = OrderedDict()
        self.provider: dict[str, Any] = {"ok": 0, "failed": 0, "last_error": None}

    def start(self) -> None:
        """Let everybody run who may."""
        while not self._stopped and (job := self._queue.next()) is not None:
            job.since = self._site.clock()
            job.task = asyncio.create_task(self._run(job))
            self._tasks.add(job.task)
            job.task.add_done_callback(partial(self._ended, job))

    def cancel(self, job: Job) -> None:
        """End a request now; its conversation goes on when its turn is really over."""
        self._queue.end(job, "cancelled")
        if job.task is not None:
            job.task.cancel()
        self._tell("cancelled", job, {})

    async def stop(self) -> None:
        """Tell every client an end: answers may still be written within `STOP`, all else has failed."""
        self._stopped = True
        ending = self._emitting.cancel()
        for number, job in enumerate(self._queue.jobs(), 1):
            if job.status != "recording" and not job.over:
                self._fail(job, Failure.of(ShuttingDown()))
                if job.task is not None:
                    job.task.cancel()
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)
        if self._tasks or ending:
            await asyncio.wait(self._tasks | ending, timeout=STOP)
        for job in self._queue.jobs():
            self._fail(job, Failure.of(CutOff()), job.result)
        for task in self._tasks:
            task.cancel()

    def _ended(self, job: Job, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if job.task is task:  # else it runs again already
            job.task = None
            self._queue.leave(job)  # for a task that was cancelled before its first step
        self.start()

    async def _run(self, job: Job) -> None:
        try:
            await self._attempt(job)
        except Exception as error:  # the last line of a task: its client must hear of an end
            log.exception("request failed", request_id=job.request.request_id)
            if not job.over:
                failure = Failure(f"{type(error).__name__}: {error}", {"code": "handler_failed"})
                self._fail(job, failure, job.result)
        finally:
            self._queue.leave(job)

    async def _attempt(self, job: Job) -> None:
        if job.request.session_id is None and job.request.agent_id is not None:
            if job.request.new_session:
                self.sessions.pop(job.request.agent_id, None)
            job.session = self.sessions.get(job.request.agent_id)
        if job.attempt == 1:
            self._progress(job, status="calling_provider", provider=answers.PROVIDER)
        reply = await self._site.hub.ask("claude_cli:turn", job.request.turn(job.session))
        found = answers.read(reply)
        if job.over:  # cancelled, and the turn ended all the same
            return
        self._count(found)
        if isinstance(found, Answer):
            await self._record(job, found)
        elif found.retryable and job.attempt <= self._site.settings.completion_retries:
            await self._rest(job, found)
        else:
            self._forget_unknown(job, found)
            self._fail(job, found)

    def _count(self, found: Answer | Failure) -> None:
        if isinstance(found, Answer):
            self.provider["ok"] += 1
        else:
            self.provider["failed"] += 1
            self.provider["last_error"] = found.code

    async def _rest(self, job: Job, failure: Failure) -> None:
        """Wait, without a slot, before the next attempt."""
        delay = min(LONGEST_DELAY, self._site.settings.claude_retry_backoff * 2 ** (job.attempt - 1))
        job.retry = {"attempt": job.attempt, "delay_s": delay, "error": failure.error, "code": failure.code}
        self._queue.rest(job)
        self._progress(job, status="retrying", provider=answers.PROVIDER, **job.retry)
        self.start()
        await asyncio.sleep(delay)
        self._queue.again(job)

    async def _record(self, job: Job, answer: Answer) -> None:
        job.status = "recording"
        at = self._site.clock()
        job.result = answers.body(job.request, answer, at)
        try:
            if answer.session is not None:
                await self._log.append_session(answer.session, wire.encode(job.result))
            await self._emitting.emit(answer.text, job.request.agent_id)
            self._remember(job.request.agent_id, answer.session)
            await self._record_usage(job, answer, at)
            if not job.over:
                self._tell("result", job, {"result": job.result})
                self._queue.end(job, "completed")
        except KsiError as error:
            if not job.over:
                self._fail(job, Failure.of(error), job.result)

    async def _record_usage(self, job: Job, answer: Answer, at: float) -> None:
        try:
            usage = answers.usage(job.request, job.session, answer, at)
        except InvalidParameter as error:
            log.warning("usage not recorded", request_id=job.request.request_id, error=str(error))
            return
        if usage is not None:
            await self._usage.record(usage)

    def _remember(self, agent: str | None, session: str | None) -> None:
        if agent is not None and session is not None:
            self.sessions[agent] = session
            self.sessions.move_to_end(agent)
            if len(self.sessions) > AGENTS:
                self.sessions.popitem(last=False)

    def _forget_unknown(self, job: Job, failure: Failure) -> None:
        """An agent whose session the command does not know begins a new one with its next request."""
        agent = job.request.agent_id
        if (
            failure.code == "unknown_session"
            and agent is not None
            and self.sessions.get(agent) == job.session
        ):
            self.sessions.pop(agent, None)

    def _progress(self, job: Job, **more: Any) -> None:
        told = {"request_id": job.request.request_id, "session_id": job.session, **more}
        self._site.hub.tell("completion:progress", told)

    def _fail(self, job: Job, failure: Failure, result: dict[str, Any] | None = None) -> None:
        self._queue.end(job, "failed")
        told = {"error": failure.error, "session_id": job.session, **failure.fields}
        try:
            self._tell("error", job, told if result is None else {**told, "result": result})
        except Unserialisable:  # the answer itself: nothing could carry it
            self._tell("error", job, told)

    def _tell(self, what: str, job: Job, told: dict[str, Any]) -> None:
        agent = {"agent_id": job.request.agent_id} if job.request.agent_id is not None else {}
        named = {"request_id": job.request.request_id}
        self._site.hub.tell(f"completion:{what}", {**named, **told, **agent})
