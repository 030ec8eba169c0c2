"""Completions: the queue and the token usage log.

Files: `var/logs/daemon/tool_usage.jsonl`, one JSON object a line, appended, lines of other kinds in it left
alone; `var/logs/responses/<session>.jsonl`, each answer of a session as a `ksi`/`response` line. Events:
`completion:async`, `cancel`, `status`, `session_status`, `retry_status`, `provider_status`, `record_usage`,
`token_usage`; frames `completion:progress`, `result`, `error`, `cancelled`.
"""

from ksi_daemon.area import Area
from ksi_daemon.completion.aio import AsyncCompletionLog
from ksi_daemon.completion.contract import CompletionLog
from ksi_daemon.completion.exercise import EXERCISE
from ksi_daemon.completion.service import Completions
from ksi_daemon.completion.sync import SyncCompletionLog

AREA = Area(
    name="completion",
    title="completion queue and token usage log",
    kind="append",
    week=1,
    contract=CompletionLog,
    sync=SyncCompletionLog,
    aio=AsyncCompletionLog,
    service=Completions,
    exercise=EXERCISE,
    overlap=frozenset({"completion:record_usage"}),
    reads=frozenset({"load"}),
)
