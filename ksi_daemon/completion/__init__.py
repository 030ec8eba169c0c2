"""Completions: for now the token usage log. The queue itself comes with week 2.

File: `var/logs/daemon/tool_usage.jsonl`, one JSON object a line, appended; lines of other kinds in it are
left alone. Events: `completion:record_usage`, `completion:token_usage`.
"""

from ksi_daemon.area import Area
from ksi_daemon.completion.aio import AsyncUsageLog
from ksi_daemon.completion.contract import UsageLog
from ksi_daemon.completion.exercise import EXERCISE
from ksi_daemon.completion.service import TokenUsage
from ksi_daemon.completion.sync import SyncUsageLog

AREA = Area(
    name="completion",
    title="completion queue and token usage log",
    kind="append",
    week=1,
    contract=UsageLog,
    sync=SyncUsageLog,
    aio=AsyncUsageLog,
    service=TokenUsage,
    exercise=EXERCISE,
    overlap=frozenset({"completion:record_usage"}),
    reads=frozenset({"load"}),
)
