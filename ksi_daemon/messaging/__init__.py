"""The message bus: agents publish, subscribe and are written to; every message is logged first.

File: `var/logs/responses/message_bus.jsonl`, one JSON object a line, appended. Events: `message:*`,
`message_bus:stats`, `transport:message`.
"""

from ksi_daemon.area import Area
from ksi_daemon.messaging.aio import AsyncBusLog
from ksi_daemon.messaging.contract import BusLog
from ksi_daemon.messaging.exercise import EXERCISE
from ksi_daemon.messaging.service import MessageBus
from ksi_daemon.messaging.sync import SyncBusLog

AREA = Area(
    name="messaging",
    title="message bus and its log",
    kind="append",
    week=1,
    contract=BusLog,
    sync=SyncBusLog,
    aio=AsyncBusLog,
    service=MessageBus,
    exercise=EXERCISE,
    overlap=frozenset({"message:publish"}),
)
