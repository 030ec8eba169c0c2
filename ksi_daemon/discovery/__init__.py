"""Discovery: what events there are and how they are sent, and a search of the source tree.

Program: the `rg` that KSI_DISCOVERY_RG names, else the one beside the interpreter or in an absolute entry of
PATH. Reads the source tree (KSI_DISCOVERY_TREE, the root without `var/`), and writes nothing. Events:
`system:discover`, `system:help`, `module:list`, `module:events`, `module:inspect`, `discovery:search`.
"""

from ksi_daemon.area import Area
from ksi_daemon.discovery.aio import AsyncCodeSearch
from ksi_daemon.discovery.contract import CodeSearch
from ksi_daemon.discovery.exercise import EXERCISE
from ksi_daemon.discovery.service import Discovery
from ksi_daemon.discovery.sync import SyncCodeSearch

AREA = Area(
    name="discovery",
    title="events, help, code search",
    kind="read",
    week=4,
    contract=CodeSearch,
    sync=SyncCodeSearch,
    aio=AsyncCodeSearch,
    service=Discovery,
    exercise=EXERCISE,
)
