"""The analysis's four weeks as it lists them, and what proves each box; what nothing here can prove says so.

This table is all that `ksi-migrate roadmap` knows of the analysis; a new proof is a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ksi_migrate.measured import SOCKET
from ksi_migrate.proofs import Agreed, Benched, InForce, Installed, Measured, WentBack

if TYPE_CHECKING:
    from ksi_migrate.proofs import Proof

ROADMAP: Final = "roadmap"
TESTING: Final = "testing"
DEPLOYMENT: Final = "deployment"
LARGE: Final = "first refresh, *"
MANY: Final = "100 callers"


@dataclass(frozen=True, slots=True)
class Item:
    """One box: the analysis's words, the part of it that lists it, and all that has to be proven.

    Without any proof it is never ticked, and `why` says why nothing can tick it.
    """

    text: str
    part: str
    proofs: tuple[Proof, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Week:
    """A week of the roadmap; number 0 is what goes along with all four."""

    number: int
    title: str
    items: tuple[Item, ...]


def _converted(text: str, component: str) -> Item:
    return Item(text, ROADMAP, (InForce(component), Agreed((component,))))


WEEKS: Final = (
    Week(
        1,
        "Foundation and High-Frequency Operations",
        (
            Item("Add aiofiles dependency", ROADMAP, (Installed("aiofiles"),)),
            Item("Set up async testing infrastructure", ROADMAP, (Agreed(("messaging", "completion")),)),
            _converted("Convert message bus logging to async", "messaging"),
            _converted("Convert token usage logging to async", "completion"),
            Item(
                "Performance testing and validation",
                ROADMAP,
                (Benched("messaging", MANY), Benched("completion", MANY), Benched(SOCKET)),
            ),
            Item("Test high-frequency message scenarios", TESTING, (Benched(SOCKET),)),
            Item("Test API call logging performance", TESTING, (Benched("completion", MANY),)),
        ),
    ),
    Week(
        2,
        "Agent Communication",
        (
            _converted("Convert Claude CLI subprocess calls to async", "claude_cli"),
            _converted("Convert agent identity management to async", "agent"),
            Item(
                "Update agent spawning flows",
                ROADMAP,
                (InForce("agent"), InForce("claude_cli"), Agreed(("claude_cli", "agent"))),
            ),
            Item("Test multi-agent concurrent scenarios", ROADMAP, (Benched("claude_cli", "5 agents, *"),)),
            Item("Test identity persistence", TESTING, (Agreed(("agent",)), Measured(("agent",)))),
        ),
    ),
    Week(
        3,
        "Heavy I/O Operations",
        (
            _converted("Convert conversation cache refresh to async", "conversation"),
            _converted("Convert configuration file operations to async", "config"),
            Item("Test large file processing scenarios", ROADMAP, (Benched("conversation", LARGE),)),
            Item("Performance validation", ROADMAP, (Benched("conversation", LARGE), Benched("config"))),
            Item("Test with large conversation histories", TESTING, (Benched("conversation", LARGE),)),
            Item("Test configuration persistence", TESTING, (Agreed(("config",)),)),
        ),
    ),
    Week(
        4,
        "Discovery System and Finalization",
        (
            _converted("Convert discovery subprocess operations to async", "discovery"),
            Item("Complete integration testing", ROADMAP, (Agreed(), Benched(SOCKET))),
            Item("Performance benchmarking", ROADMAP, (Measured(),)),
            Item("Documentation updates", ROADMAP, why="no tool can tell whether documents are right"),
            Item("Test concurrent discovery operations", TESTING, (Measured(("discovery",)),)),
        ),
    ),
    Week(
        0,
        "Along with all four",
        (
            Item("Ability to revert individual components", DEPLOYMENT, (WentBack(),)),
            Item("Performance benchmarks to validate improvements", DEPLOYMENT, (Measured(),)),
            Item("Memory usage profiling", TESTING, (Measured(),)),
            Item("Git branch for each phase", DEPLOYMENT, why="branches are not in the root's evidence"),
            Item(
                "Unit tests for each async function", TESTING, why="a test run; ksi-migrate report takes it"
            ),
            Item("Multi-platform testing", TESTING, why="evidence is of one machine"),
            Item("Code review checklist includes async patterns", DEPLOYMENT, why="what people do"),
            Item("Monitor event loop blocking", DEPLOYMENT, why="monitoring lies outside this root"),
            Item("Alert on performance regressions", DEPLOYMENT, why="alerts lie outside this root"),
        ),
    ),
)
