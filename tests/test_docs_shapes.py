"""The `--json` shapes in commands.md are those that the commands print."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import control, settings
from ksi_migrate import (
    bench_figures,
    bench_report,
    bench_socket,
    bench_switch,
    demo,
    doctor,
    enable,
    flags,
    log,
    parity,
    plan,
    retire,
    roadmap,
    rollback,
    status,
    step,
    success,
)
from ksi_migrate.checks import LOOKS
from ksi_migrate.demo_agents import Agents
from ksi_migrate.demo_count import Count, Counted
from ksi_migrate.demo_files import FileWork
from ksi_migrate.demo_frame import Figures
from ksi_migrate.demo_script import Step
from ksi_migrate.exits import Exit
from ksi_migrate.paritycheck.contrast import Mismatch
from ksi_migrate.paritycheck.faults import Fault
from ksi_migrate.paritycheck.trial import Outcome
from ksi_migrate.progress import QUIET
from tests.line_client import flags as flags_text
from tests.test_docs import page, section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def documented(command: str) -> Any:
    """The example document of a command."""
    text = section(page("commands.md"), f"### JSON of {command}")
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def differences(shown: Any, real: Any, place: str = "") -> Iterator[str]:
    """Where two values differ in their keys; null and an empty list agree with everything."""
    if isinstance(shown, dict) and isinstance(real, dict):
        yield from (f"{place}.{key} in one only" for key in shown.keys() ^ real.keys())
        for key in shown.keys() & real.keys():
            yield from differences(shown[key], real[key], f"{place}.{key}")
    elif isinstance(shown, list) and isinstance(real, list):
        if shown and real:
            yield from differences(shown[0], real[0], f"{place}[0]")
    elif None not in (shown, real) and isinstance(shown, dict | list) != isinstance(real, dict | list):
        yield f"{place} is {type(shown).__name__} here and {type(real).__name__} there"


def test_a_wrong_shape_would_be_found() -> None:
    """The comparison sees a key too many, one too few, and another kind of value, at any depth."""
    shown = {"a": [{"b": 1, "c": None}], "d": {}}

    assert list(differences(shown, {"a": [{"b": 2, "c": {"e": 1}}], "d": {}})) == []
    assert list(differences(shown, {"a": [{"b": 2}], "d": {}})) == [".a[0].c in one only"]
    assert list(differences(shown, {"a": [{"b": 2, "c": 1}], "d": 5})) == [".d is dict here and int there"]


class PassedParity:
    """What a parity run reports that found nothing."""

    exit_code = Exit.DONE

    def document(self) -> dict[str, Any]:
        """One component, no mismatch."""
        return {
            "components": [
                {
                    "name": "messaging",
                    "ok": True,
                    "cases": 12,
                    "mismatches": [],
                    "inconclusive": [],
                    "one_sided": [],
                    "left_out": [],
                }
            ]
        }


def reports(found: settings.Settings) -> dict[str, Callable[[], Any]]:
    """The commands whose documents are cheap to make, each on a root without a daemon, in this order."""
    means = step.Means(lambda _names: PassedParity(), lambda _question: True, QUIET)
    return {
        "enable": lambda: enable.run(found, ("messaging",), step.Order(), means),
        "log": lambda: log.run(found),
        "status": lambda: status.run(found),
        "plan": lambda: plan.run(found),
        "doctor": lambda: doctor.run(found, LOOKS),
        "flags validate": lambda: flags.validate(found.flags_path),
        "retire": lambda: retire.run((), found.migrate_dir, hold_days=14),
        "roadmap": lambda: roadmap.run(found.migrate_dir, start="2025-07-14"),
        "report": lambda: success.run(found.migrate_dir),
        "rollback": lambda: rollback.run(found, ("messaging",), deadline=0.1),
    }


def test_documents_have_the_shapes_shown(tmp_path: Path) -> None:
    """What a command prints with --json has exactly the keys of its example, at every depth."""
    (tmp_path / "flags.yaml").write_text(flags_text())
    made = reports(settings.load(tmp_path))

    wrong = {
        name: [*differences(documented(name), json.loads(json.dumps(make().document())))]
        for name, make in made.items()
    }
    components = documented("flags validate")["components"]
    wrong["flags validate"] = [
        line for line in wrong["flags validate"] if not line.startswith(".components.") or not components
    ]

    assert {name: lines for name, lines in wrong.items() if lines} == {}


@pytest.mark.parametrize(
    ("kind", "place", "besides"),
    [
        (bench_figures.Side, ("components", 0, "cases", 0, "sync"), {}),
        (bench_figures.Spread, ("components", 0, "cases", 0, "sync", "spread"), {}),
        (bench_figures.Case, ("components", 0, "cases", 0), {"candidate": "async"}),
        (bench_figures.Growth, ("components", 0, "cases", 0, "growth"), {}),
        (bench_figures.Ratio, ("components", 0, "cases", 0, "ratio"), {}),
        (bench_switch.SwitchCost, ("components", 0, "switch_cost"), {}),
        (bench_report.ComponentFigures, ("components", 0), {}),
        (bench_report.Machine, ("machine",), {}),
        (bench_socket.SocketCase, ("socket", "cases", 0), {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bench_has_the_shape_shown(kind: type, place: tuple[str | int, ...], besides: dict[str, str]) -> None:
    """Each object in bench's example has the fields of the dataclass that it is made from."""
    shown: Any = documented("bench")
    for key in place:
        shown = shown[key]

    assert sorted(shown) == sorted(besides.get(one.name, one.name) for one in dataclasses.fields(kind))


def test_parity_has_the_shape_shown() -> None:
    """The document of a parity run that found a mismatch and planted a fault has the keys of its example."""
    mismatch = Mismatch("refused", "reply 3", "a", "b")
    component = parity.Component("messaging", (Outcome("refused", (mismatch,)),))
    fault = Fault("messaging", "append", "drop", ("every way to publish",))

    found = parity.Report((component,), 1, (fault,)).document()

    assert list(differences(documented("parity"), json.loads(json.dumps(found)))) == []


def test_demo_has_the_shape_shown() -> None:
    """The document of a demo has the keys of its example."""
    figures = Figures({"messaging": "sync"}, "os", 1.0, 1.0, None, None, None)
    counted = Counted("messaging", Path("log"), Count(), ())
    agents = {"before": Agents(5, 1.0, 5.2, "sync", None, None)}
    steps = (Step("start", ok=True, seconds=1.0, detail=""),)
    stages = {"conversation": "sync", "config": "sync"}
    files = {"before": FileWork(300, 60_000, 10, 1.2, stages, None, None)}
    report = demo.Report(steps, {"before": figures}, agents, files, (counted,), (), None)

    found = report.document()

    assert list(differences(documented("demo"), json.loads(json.dumps(found)))) == []


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("start", control.Started),
        ("stop", control.Stopped),
        ("restart", control.Restarted),
        ("status", control.Status),
    ],
)
def test_ksi_daemon_has_the_shapes_shown(command: str, kind: type) -> None:
    """What `ksi-daemon` prints with --json has the fields of its report."""
    shown = documented("ksi-daemon")[command]

    assert list(shown) == [one.name for one in dataclasses.fields(kind)]
