"""The room's service: the queue's events, and token usage beside it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ksi_daemon.completion import answers, requests
from ksi_daemon.completion.queue import Queue
from ksi_daemon.completion.turns import Turns
from ksi_daemon.completion.usage import TokenUsage
from ksi_daemon.errors import ShuttingDown
from ksi_daemon.router import Client, Data, Event, Param, text

if TYPE_CHECKING:
    from ksi_daemon.completion.contract import CompletionLog
    from ksi_daemon.completion.queue import Job
    from ksi_daemon.site import Site

_CANCEL = (Param("request_id", "str", "the request to cancel", required=True),)
_SESSION = (Param("session_id", "str", "only this session"),)


class Completions:
    """Requests are queued and answered by frames (the KSI contract, 1.6 and 3.7); usage is `self.usage`."""

    def __init__(self, log: CompletionLog, site: Site) -> None:
        self._site = site
        self._stopped = False
        self._queue = Queue(site.settings.completion_queue_limit, site.settings.claude_parallel)
        self.usage = TokenUsage(log, site)
        self._turns = Turns(self._queue, log, self.usage, site)

    def events(self) -> tuple[Event, ...]:
        """Those of the queue, then those of token usage."""
        return (
            Event(
                "completion:async",
                self.ask,
                "Ask for a completion; frames tell the rest",
                requests.PARAMS,
                ("claude_cli:turn", *requests.FRAMES),
            ),
            Event("completion:status", self.status, "Show the queue and the tokens used"),
            Event("completion:session_status", self.session_status, "Show a session's requests", _SESSION),
            Event(
                "completion:cancel",
                self.cancel,
                "Cancel a request that waits or runs",
                _CANCEL,
                ("completion:cancelled",),
            ),
            Event("completion:retry_status", self.retry_status, "Show the requests that will be tried again"),
            Event("completion:provider_status", self.provider_status, "Show how the provider answers"),
            *self.usage.events(),
        )

    async def start(self) -> None:
        """The queue begins empty; the usage of the last 24 hours is loaded."""
        await self.usage.start()

    async def stop(self) -> None:
        """Tell every request's client an end, and end what runs; at most half a second."""
        self._stopped = True
        await asyncio.gather(self._turns.stop(), self.usage.stop())

    def memory(self) -> dict[str, Any]:
        """The sums of usage, the queue's counts, how requests ended, and the agents' sessions."""
        return {
            **self.usage.memory(),
            "queue": {"queued": self._queue.waiting(), **self._ends(), "over": self._queue.over()},
            "providers": self._providers(),
            "agent_sessions": dict(self._turns.sessions),
        }

    async def ask(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Queue a request. Raises `QueueFull`, `AlreadyQueued`, `ShuttingDown`, and for wrong parameters."""
        if self._stopped:
            raise ShuttingDown
        default = self._site.settings.completion_default_model
        job = self._queue.add(requests.read(data, default, self._site.new_id))
        names, active = self._queue.line(job.request.conversation)
        self._turns.start()
        return {
            "request_id": job.request.request_id,
            "status": "queued",
            "message": "completion queued; its result comes as a completion:result frame",
            "queued": True,
            "queue_depth": len(names),
            "session_active": active,
        }

    async def cancel(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """End a request. On the sync side of claude_cli the loop stands still while one runs, so this waits.

        One whose answer has come counts as completed. Raises `MissingParameter`, `NotFound`, `AlreadyOver`.
        """
        name = text(data, "request_id")
        self._turns.cancel(self._queue.find(name))
        return {"request_id": name, "status": "cancelled"}

    async def status(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Everything at a glance; answered when the history of usage is loaded."""
        tokens = await self.usage.token_usage({}, None)
        active = [self._active(job) for job in self._queue.taken()]
        return {
            "status": "running",
            "queued": self._queue.waiting(),
            "active": len(active),
            **self._ends(),
            "queue_limit": self._queue.limit,
            "parallel": self._queue.parallel,
            "active_requests": active,
            "queues": self._queue.depths(),
            "retries": self._retries(),
            "token_usage": tokens,
        }

    async def session_status(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One session's requests, the running one first, or those of all sessions that have any."""
        session = requests.optional(data, "session_id")
        if session is not None:
            return self._session(session)
        running = [job.session for job in self._queue.taken() if job.session is not None]
        waiting = [job.session for job in self._queue.jobs() if job.session is not None]
        return {"sessions": [self._session(one) for one in dict.fromkeys((*running, *waiting))]}

    async def retry_status(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """The retries under way."""
        found = self._retries()
        return {"retries": found, "total": len(found)}

    async def provider_status(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """How many turns were answered and how many failed, each attempt counted."""
        return {"providers": self._providers()}

    def _providers(self) -> dict[str, Any]:
        return {answers.PROVIDER: dict(self._turns.provider)}

    def _ends(self) -> dict[str, int]:
        return {status: self._queue.counts[status] for status in ("completed", "failed", "cancelled")}

    def _active(self, job: Job) -> dict[str, Any]:
        return {
            "request_id": job.request.request_id,
            "session_id": job.session,
            "agent_id": job.request.agent_id,
            "status": job.status,
            "for_s": round(max(0.0, self._site.clock() - job.since), 3),
            "attempt": job.attempt,
        }

    def _session(self, session: str) -> dict[str, Any]:
        waiting, _ = self._queue.line(session)
        running = [job.request.request_id for job in self._queue.taken() if job.session == session]
        return {
            "session_id": session,
            "active": bool(running),
            "queued": len(waiting),
            "request_ids": [*running, *waiting],
        }

    def _retries(self) -> list[dict[str, Any]]:
        return [
            {"request_id": job.request.request_id, **job.retry}
            for job in self._queue.taken()
            if job.status == "retrying"
        ]
