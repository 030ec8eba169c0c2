"""Agent communication: turns of agents, each one run of the `claude` command.

Program: the one that KSI_CLAUDE_BIN names, else `claude` in an absolute entry of PATH. Prompts and messages
are passed on as they are: a leading `/` runs a slash command there, `@path` attaches a file. Directories:
`var/sandbox/agents/` and `var/sandbox/sessions/`, where sessions begin and stay;
`var/state/claude_sessions/`, where that is remembered; `var/tmp/`, for what goes in and comes out. Events:
`claude_cli:turn`, `claude_cli:inject`, `claude_cli:status`.
"""

from ksi_daemon.area import Area
from ksi_daemon.claude_cli.aio import AsyncClaudeCli
from ksi_daemon.claude_cli.contract import ClaudeCli
from ksi_daemon.claude_cli.exercise import EXERCISE
from ksi_daemon.claude_cli.service import ClaudeTurns
from ksi_daemon.claude_cli.sync import SyncClaudeCli

AREA = Area(
    name="claude_cli",
    title="agent communication through the claude command",
    kind="process",
    week=2,
    contract=ClaudeCli,
    sync=SyncClaudeCli,
    aio=AsyncClaudeCli,
    service=ClaudeTurns,
    exercise=EXERCISE,
)
