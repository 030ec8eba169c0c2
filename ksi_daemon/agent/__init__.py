"""Agents and their identities: who takes turns, who can do what, and what each is called.

File: `var/db/identities.json`, one JSON object with an indent of two, replaced whole. Events: `agent:*`,
`checkpoint:collect`, `checkpoint:restore`. Asks `completion:async`, `completion:cancel`, `message:publish`.
"""

from ksi_daemon.agent.aio import AsyncIdentities
from ksi_daemon.agent.contract import IdentityStore
from ksi_daemon.agent.exercise import EXERCISE
from ksi_daemon.agent.service import AgentService
from ksi_daemon.agent.sync import SyncIdentities
from ksi_daemon.area import Area

AREA = Area(
    name="agent",
    title="agents and their identities",
    kind="replace",
    week=2,
    contract=IdentityStore,
    sync=SyncIdentities,
    aio=AsyncIdentities,
    service=AgentService,
    exercise=EXERCISE,
)
