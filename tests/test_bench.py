"""The whole of bench on short rounds: its document, its exit codes, its page, and what it leaves behind."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ksi_daemon import registry
from ksi_daemon.registry import BUILT
from ksi_migrate import (
    bench,
    bench_cases,
    bench_config,
    bench_conversations,
    bench_discovery,
    bench_growth,
    bench_identities,
    bench_parts,
    bench_report,
    bench_socket,
    bench_source,
    bench_stall,
    bench_switch,
    bench_turns,
    mounts,
)
from ksi_migrate.choose import WrongUsage
from ksi_migrate.exits import Exit, Inconclusive, Refused
from ksi_migrate.idle import IdleLost
from ksi_migrate.stalldisk import StallDiskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOGS = ["100 callers", "1 caller", "100 callers, fsync", "stalling disk"]
CASES = {
    "messaging": LOGS,
    "completion": LOGS,
    "claude_cli": ["1 agent, 0.02 s each", "2 agents, 0.02 s each"],
    "agent": [
        "1 update at a time, 30 stored",
        "30 updates at once, 30 stored",
        "create 40, 1 at a time",
        "create 40, 1 at a time, fsync",
        "1 update at a time, 30 stored",
    ],
    "conversation": [
        "first refresh, 8 sessions of 8 lines",
        "nothing changed, 8 sessions of 8 lines",
        "first refresh, 6 sessions of 12 lines",
        "first refresh after a restart, 6 sessions of 12 lines",
        "nothing changed, 6 sessions of 12 lines",
        "one line appended, 6 sessions of 12 lines",
        "search, a word in 3 conversations, 6 sessions of 12 lines",
        "search, a word in none, 6 sessions of 12 lines",
        "first refresh, 6 sessions of 8 lines, from 4 on",
        "nothing changed, 6 sessions of 8 lines, from 4 on",
    ],
    "config": [
        "8 sets at once, 4 files of 1 kB",
        "8 sets at once, 4 files of 1 kB, fsync",
        "get from an unchanged file of 1 kB",
    ],
    "discovery": [
        "details, examples mined, 12 files",
        "details, examples known, 12 files",
        "20 different searches at once, 12 files",
        "20 equal searches at once, 12 files",
        "through the socket, a ping beside it, 12 files",
    ],
}
WITHOUT_REFERENCE = ("fsync", "known", "socket")

SIDE = {
    "throughput_per_s",
    "latency_p50_ms",
    "latency_p99_ms",
    "loop_stall_p99_ms",
    "loop_stall_max_ms",
    "cpu_s",
    "rss_peak_mib",
}


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def step(self, text: str, done: int, total: int) -> None:
        """Remember."""
        self.steps.append((text, done, total))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of 20 ms on what counts as a disk, wherever the tests' own directory lies."""
    monkeypatch.setattr(mounts, "kind", lambda _path: "ext4")
    monkeypatch.setattr(bench_cases, "ROUND_S", 0.02)
    monkeypatch.setattr(bench_switch, "PAIRS", 4)
    monkeypatch.setattr(bench_stall, "LASTS_S", 0.1)
    monkeypatch.setattr(bench_turns, "WAITS_S", 0.02)
    monkeypatch.setattr(bench_turns, "AGENTS", (1, 2))
    monkeypatch.setattr(bench_identities, "ROUND_S", 0.02)
    monkeypatch.setattr(bench_growth, "ALL", 40)
    for name in ("FEW", "MANY", "AT_ONCE"):
        monkeypatch.setattr(bench_parts, name, 30)
    for name, size in {"MANY": (8, 8, 150), "LONG": (6, 12, 150), "GROWING": (4, 6), "ROUND_S": 0.02}.items():
        monkeypatch.setattr(bench_conversations, name, size)
    for name, count in {"FILES": 4, "SIZE": 1000, "SETS": 8, "SAMPLE": 4, "ROUND_S": 0.02}.items():
        monkeypatch.setattr(bench_config, name, count)
    monkeypatch.setattr(bench_discovery, "FILES", 12)
    monkeypatch.setattr(bench_discovery, "ROUND_S", 0.02)
    monkeypatch.setattr(bench_source, "EVENTS", 3)
    monkeypatch.setattr(bench_socket, "WARM_S", 0.05)
    monkeypatch.setattr(bench_socket, "SECONDS", 0.1)


@contextmanager
def plain_disk(scratch: Path) -> Iterator[Path]:
    """A directory in the place of the disk that stalls: the stalls themselves have tests of their own."""
    yield scratch


def test_every_built_component_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The document has the documented shape, the page is written, every round was told, nothing is left."""
    monkeypatch.setattr(bench, "unavailable", lambda: None)
    monkeypatch.setattr(bench, "stalling_disk", plain_disk)
    page, told = tmp_path / "page.html", Told()

    found = bench.run([], root=tmp_path, rounds=1, socket=True, stall=True, report=page, progress=told)
    document = json.loads(json.dumps(found.document()))

    assert [component["name"] for component in document["components"]] == [area.name for area in BUILT]
    for component in document["components"]:
        names = [case["name"] for case in component["cases"]]
        assert names == CASES[component["name"]]
        assert (component["switch_cost"] or {}).get("pairs") == (4 if "stalling disk" in names else None)
        for case in component["cases"]:
            assert set(case["sync"]) >= SIDE <= set(case["async"])
            assert (case["reference"] is None) == any(word in case["name"] for word in WITHOUT_REFERENCE)
            assert set(case["ratio"]) >= {"throughput", "loop_stall_max", "vs_reference"}
    assert [case["stage"] for case in document["socket"]["cases"]] == ["async", "sync"]
    assert document["machine"]["cores"] >= 1
    assert any("event log" in note for note in document["notes"])
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    total = told.steps[0][2]
    assert [(done, of) for _, done, of in told.steps] == [(at, total) for at in range(total)]
    assert list((tmp_path / "var/tmp").iterdir()) == []


def test_too_few_rounds_are_inconclusive(tmp_path: Path):
    """One round gives figures, exit 5 and the reason; nothing is ever a failure for being slow."""
    found = bench.run(["completion"], root=tmp_path, rounds=1)

    assert found.exit_code is Exit.INCONCLUSIVE
    assert not found.document()["ok"]
    assert any("1 rounds have no median" in note for note in found.document()["notes"])
    assert "socket" not in found.document()


def test_enough_rounds_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With rounds and beats enough the exit code is 0, whatever the figures are."""
    monkeypatch.setattr(bench_cases, "ROUND_S", 0.1)
    monkeypatch.setattr(bench_report, "FEWEST_BEATS", 20)
    monkeypatch.setattr(bench_cases, "CASES", bench_cases.CASES[1:2])

    found = bench.run(["messaging"], root=tmp_path, rounds=3)

    assert (found.exit_code, found.document()["notes"]) == (Exit.DONE, [])
    few = replace(found.components[0].cases[0].sync, beats=19)
    doubtful = replace(found.components[0], cases=(replace(found.components[0].cases[0], sync=few),))
    assert replace(found, components=(doubtful,)).exit_code is Exit.INCONCLUSIVE
    assert found.document()["ok"]


def test_without_a_log_there_is_nothing_to_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A component that writes no log is measured all the same; what was asked for in vain is said."""
    monkeypatch.setattr(bench, "unavailable", lambda: None)
    monkeypatch.setattr(bench, "stalling_disk", plain_disk)

    found = bench.run(["claude_cli"], root=tmp_path, rounds=1, stall=True)

    assert [case.name for case in found.components[0].cases] == CASES["claude_cli"]
    assert found.components[0].switch_cost is None
    assert found.doubts == ("stalling disk left out: none of these components writes a log",)


def test_few_rounds_on_purpose_are_no_doubt(tmp_path: Path):
    """Where a note says why a case has few rounds, they are enough."""
    found = bench.run(["claude_cli"], root=tmp_path, rounds=1)
    component = found.components[0]
    noted = replace(component, cases=tuple(replace(case, note="each takes long") for case in component.cases))

    doubts = [note for note in replace(found, components=(noted,)).document()["notes"] if "rounds" in note]

    assert any("rounds have no median" in note for note in found.document()["notes"])
    assert doubts == []


@pytest.mark.parametrize(("socket", "doubted"), [(False, True), (True, False)])
def test_without_a_stalling_disk_its_case_is_left_out(tmp_path: Path, monkeypatch, socket, doubted):
    """The note says why; alone it makes the run inconclusive, beside the socket it does not."""
    monkeypatch.setattr(bench, "unavailable", lambda: "needs root and loop devices")
    monkeypatch.setattr(bench_cases, "CASES", bench_cases.CASES[1:2])
    monkeypatch.setattr(bench_socket, "measure", lambda *_: ())

    found = bench.run(["messaging"], root=tmp_path, rounds=1, stall=True, socket=socket)

    words = "stalling disk left out: needs root and loop devices"
    assert words in found.document()["notes"]
    assert bool(found.doubts) is doubted


def test_a_disk_that_ceases_to_stall_leaves_its_case_out(tmp_path: Path, monkeypatch):
    """Stalls that ended early are told like a disk that could not be made."""

    def broken(scratch: Path) -> None:
        raise StallDiskError(scratch, "the stalls ceased early")

    monkeypatch.setattr(bench, "unavailable", lambda: None)
    monkeypatch.setattr(bench, "stalling_disk", broken)
    monkeypatch.setattr(bench_cases, "CASES", bench_cases.CASES[1:2])

    found = bench.run(["messaging"], root=tmp_path, rounds=1, stall=True)

    assert "the stalls ceased early" in found.doubts[0]
    assert len(found.components[0].cases) == 1


def test_a_machine_without_an_idle_heartbeat_is_inconclusive(tmp_path: Path, monkeypatch):
    """The machine's own noise has to be known."""

    async def lost(*_args: object) -> None:
        raise IdleLost(1, "ended by itself")

    monkeypatch.setattr(bench_cases, "measure", lost)

    with pytest.raises(Inconclusive, match="ended by itself"):
        bench.run(["messaging"], root=tmp_path)


def test_what_cannot_be_measured_is_refused_before_anything_is_done(tmp_path: Path, monkeypatch):
    """A component that is not built, an unknown name, no round at all."""
    monkeypatch.setattr(registry, "BUILT", tuple(area for area in BUILT if area.name != "discovery"))
    with pytest.raises(Refused, match="discovery is not built yet"):
        bench.run(["messaging", "discovery"], root=tmp_path)
    with pytest.raises(WrongUsage, match="there is no component"):
        bench.run(["massaging"], root=tmp_path)
    with pytest.raises(WrongUsage, match="0 rounds"):
        bench.run([], root=tmp_path, rounds=0)

    assert list(tmp_path.iterdir()) == []
