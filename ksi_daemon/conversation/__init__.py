"""Conversations: the sessions' logs listed, searched, read and exported; and locks on them, in memory.

Reads `var/logs/responses/*.jsonl`, of which `message_bus.jsonl` is no conversation; writes to
`var/state/exports/`. Events: `conversation:*`.
"""

from ksi_daemon.area import Area
from ksi_daemon.conversation.aio import AsyncConversations
from ksi_daemon.conversation.contract import ConversationStore
from ksi_daemon.conversation.exercise import EXERCISE
from ksi_daemon.conversation.service import ConversationService
from ksi_daemon.conversation.sync import SyncConversations

AREA = Area(
    name="conversation",
    title="conversation cache, search, export",
    kind="read",
    week=3,
    contract=ConversationStore,
    sync=SyncConversations,
    aio=AsyncConversations,
    service=ConversationService,
    exercise=EXERCISE,
)
