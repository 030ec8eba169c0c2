"""The seven components, in roadmap order. A new one is one line here."""

from ksi_daemon.agent import AREA as AGENT
from ksi_daemon.area import Area, Planned
from ksi_daemon.claude_cli import AREA as CLAUDE_CLI
from ksi_daemon.completion import AREA as COMPLETION
from ksi_daemon.config import AREA as CONFIG
from ksi_daemon.conversation import AREA as CONVERSATION
from ksi_daemon.discovery import AREA as DISCOVERY
from ksi_daemon.messaging import AREA as MESSAGING

AREAS: tuple[Area | Planned, ...] = (
    MESSAGING,
    COMPLETION,
    CLAUDE_CLI,
    AGENT,
    CONVERSATION,
    CONFIG,
    DISCOVERY,
)

BUILT: tuple[Area, ...] = tuple(area for area in AREAS if isinstance(area, Area))


def two_sided() -> tuple[Area, ...]:
    """Those between whose sides can be chosen: built, and not retired."""
    return tuple(area for area in BUILT if not area.retired)
