"""The queue: one line per conversation, first come, first served, and a limit to what runs at once. No I/O.

The heads of the lines take turns: a conversation whose request has ended stands behind the others again. A
conversation stays closed while its request runs, waits to be tried again, or is being cancelled.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ksi_daemon.errors import KsiError, NotFound

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Iterable

    from ksi_daemon.completion.requests import Request

REMEMBERED = 1_000
"""Requests that are over and still known by name, the newest."""

Over = Literal["completed", "failed", "cancelled"]


class QueueFull(KsiError):
    """As many requests are waiting or running as may."""

    code = "queue_full"
    retryable: ClassVar[bool] = True

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} requests are waiting or running; send it again later,"
            " or raise KSI_COMPLETION_QUEUE_LIMIT"
        )

    def fields(self) -> dict[str, Any]:
        """`code`, and that trying again makes sense."""
        return {"code": self.code, "retryable": True}


class AlreadyQueued(KsiError):
    """A request of that name is waiting or running."""

    code = "already_exists"

    def __init__(self, request_id: str, status: str) -> None:
        super().__init__(f"Request {request_id} is already {status}")


class AlreadyOver(KsiError):
    """A request that is over cannot be cancelled; the text is the original daemon's."""

    code = "already_over"

    def __init__(self, request_id: str, status: str) -> None:
        super().__init__(f"Request {request_id} already {status}")


class Job:
    """A request on its way.

    `status` goes from `queued` to `running`, by way of `retrying` back to `queued` perhaps, to `recording`
    when the answer is there, and ends as `completed`, `failed` or `cancelled`. `since` is when it last began
    to run, `session` the one it runs in, `retry` what is told of a retry under way, `result` its answer as
    soon as that is there, `slot` whether it counts as running.
    """

    __slots__ = ("attempt", "request", "result", "retry", "session", "since", "slot", "status", "task")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.status = "queued"
        self.attempt = 0
        self.since = 0.0
        self.session = request.session_id
        self.retry: dict[str, Any] = {}
        self.result: dict[str, Any] | None = None
        self.slot = False
        self.task: Task[None] | None = None

    @property
    def over(self) -> bool:
        """Whether its client was told an end."""
        return self.status in ("completed", "failed", "cancelled")


class Queue:
    """At most `limit` requests that are not over, of which at most `parallel` run."""

    def __init__(self, limit: int, parallel: int) -> None:
        self.limit = limit
        self.parallel = parallel
        self.counts: Counter[str] = Counter()
        self._jobs: dict[str, Job] = {}
        self._lines: dict[str, OrderedDict[str, Job]] = {}
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._taken: dict[str, Job] = {}
        self._running = 0
        self._over: OrderedDict[str, str] = OrderedDict()

    def add(self, request: Request) -> Job:
        """Put a request at the end of its conversation's line. Raises `AlreadyQueued`, `QueueFull`."""
        known = self._jobs.get(request.request_id)
        if known is not None:
            raise AlreadyQueued(request.request_id, known.status)
        if len(self._jobs) >= self.limit:
            raise QueueFull(self.limit)
        job = self._jobs[request.request_id] = Job(request)
        self._line_up(job)
        return job

    def next(self) -> Job | None:
        """The request whose turn it is, running from now on; None when none may."""
        if not self._ready or self._running >= self.parallel:
            return None
        key, _ = self._ready.popitem(last=False)
        line = self._lines[key]
        _, job = line.popitem(last=False)
        if not line:
            del self._lines[key]
        self._taken[key] = job
        self._running += 1
        job.slot, job.status = True, "running"
        job.attempt += 1
        return job

    def rest(self, job: Job) -> None:
        """Let others run while a request waits to be tried again; its conversation stays closed."""
        job.status = "retrying"
        self._free(job)

    def again(self, job: Job) -> None:
        """Put a request that has rested at the head of its line."""
        job.status = "queued"
        del self._taken[job.request.conversation]
        self._line_up(job, last=False)

    def end(self, job: Job, status: Over) -> None:
        """Note that a request is over; a waiting one leaves its line, others keep it closed until `leave`."""
        if job.status == "queued":
            self._leave_line(job)
        job.status = status
        del self._jobs[job.request.request_id]
        self.counts[status] += 1
        self._over[job.request.request_id] = status
        self._over.move_to_end(job.request.request_id)
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    def leave(self, job: Job) -> None:
        """Open the conversation of a request that does nothing any more; harmless if it waits again."""
        key = job.request.conversation
        if self._taken.get(key) is job:
            del self._taken[key]
            self._free(job)
            if key in self._lines:
                self._ready[key] = None

    def find(self, request_id: str) -> Job:
        """The request that may be cancelled. Raises `NotFound`, `AlreadyOver`."""
        job = self._jobs.get(request_id)
        if job is None:
            if request_id in self._over:
                raise AlreadyOver(request_id, self._over[request_id])
            raise NotFound(f"Unknown request_id: {request_id}")
        if job.status == "recording":
            raise AlreadyOver(request_id, "completed")
        return job

    def jobs(self) -> list[Job]:
        """All requests that are not over, in the order in which they came."""
        return list(self._jobs.values())

    def taken(self) -> Iterable[Job]:
        """The requests that keep their conversations closed, in the order in which they began."""
        return self._taken.values()

    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    def depths(self) -> dict[str, int]:
        """How many wait in each conversation; those where none does are left out."""
        return {key: len(line) for key, line in self._lines.items()}

    def line(self, key: str) -> tuple[list[str], bool]:
        """The names of those that wait in one conversation, and whether it is closed."""
        return list(self._lines.get(key, ())), key in self._taken

    def over(self) -> dict[str, str]:
        """The requests that are over and how each ended, the oldest first."""
        return dict(self._over)

    def _line_up(self, job: Job, *, last: bool = True) -> None:
        key, name = job.request.conversation, job.request.request_id
        line = self._lines.setdefault(key, OrderedDict())
        line[name] = job
        line.move_to_end(name, last=last)
        if key not in self._taken:
            self._ready.setdefault(key)

    def _leave_line(self, job: Job) -> None:
        key = job.request.conversation
        line = self._lines[key]
        del line[job.request.request_id]
        if not line:
            del self._lines[key]
            self._ready.pop(key, None)

    def _free(self, job: Job) -> None:
        if job.slot:
            job.slot = False
            self._running -= 1
