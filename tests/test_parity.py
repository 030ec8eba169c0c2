"""`ksi-migrate parity`: the built rooms are equal on both sides, and what it says when something is not."""

from __future__ import annotations

import asyncio
import resource
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from ksi_daemon import registry
from ksi_daemon.switch import contract_methods
from ksi_migrate import parity
from ksi_migrate.exits import Exit, Refused
from ksi_migrate.paritycheck import checks, concurrency, interleaving, readers
from ksi_migrate.paritycheck.faults import Fault, Planted, planted
from ksi_migrate.paritycheck.planting import WRITES, table
from ksi_migrate.paritycheck.scratch import Scratch
from ksi_migrate.paritycheck.steps import sequences
from ksi_migrate.paritycheck.trial import Trial
from tests.conftest import soaking

MESSAGING, COMPLETION = registry.BUILT[:2]
LOG = "logs/responses/message_bus.jsonl"


class Steps:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def step(self, text: str, done: int, total: int) -> None:
        """Remember."""
        self.told.append((text, done, total))


@pytest.mark.unmeasured
@pytest.mark.timeout(600)
@pytest.mark.parametrize("area", registry.BUILT, ids=lambda area: area.name)
def test_the_built_rooms_are_equal(area):
    """Parity passes on the real sides of every room, through every check."""
    progress = Steps()

    report = parity.run([area.name], progress=progress)

    document = report.document()
    total = len(checks.CHECKS)
    assert Exit.DONE is report.exit_code, document
    assert [area.name] == [one["name"] for one in document["components"]]
    assert {"schema_version", "command", "ok", "components", "seed"} == set(document)
    assert all(one["cases"] > 50 and one["mismatches"] == [] for one in document["components"])
    assert ("compared", total, total) in progress.told


@pytest.mark.soak
@pytest.mark.unmeasured
@pytest.mark.timeout(240)
@pytest.mark.parametrize("area", registry.BUILT, ids=lambda area: area.name)
def test_every_planted_fault_is_caught(monkeypatch, area):
    """Each of the faults that a contract method can have is seen, in every method of every real room.

    `make soak` asks every check about every fault; the gate asks none any more once one has caught it.
    """
    if area.kind in {"process", "read"} or area.name == "config":  # 10,000 turns, or sets, take two minutes
        monkeypatch.setattr(concurrency, "CALLERS", 20)
        monkeypatch.setattr(interleaving, "OFFSETS", 3)
        monkeypatch.setattr(readers, "ROUNDS", 3)

    rows = parity.faults([area], thorough=soaking())

    planted_ones = [
        (name, fault)
        for name in contract_methods(area.contract)
        for fault in table(area.contract, name, area.kind)
    ]
    assert planted_ones == [(row.method, row.fault) for row in rows]
    assert len(planted_ones) >= 6 * len(contract_methods(area.contract))
    assert [row for row in rows if not row.caught_by] == []


def test_a_proof_asks_every_check_about_every_fault(monkeypatch):
    """`--prove` says which checks caught each fault; and when all of them are, it is no finding."""
    monkeypatch.setattr(registry, "BUILT", (MESSAGING,))
    monkeypatch.setattr(parity, "CHECKS", {})

    report = parity.run([], prove=True)

    rows = report.document()["faults"]
    assert Exit.DONE is report.exit_code
    assert all(row["caught_by"] for row in rows)
    assert any(len(row["caught_by"]) > 1 for row in rows)


def test_a_difference_is_told_with_its_place_and_both_sights(monkeypatch, tmp_path):
    """A candidate that loses the last byte makes exit 1, a mismatch with its place, and a failed testcase."""
    faulty = planted(MESSAGING, "append", WRITES["truncate"])
    monkeypatch.setattr(registry, "BUILT", (faulty,))
    junit = tmp_path / "parity.xml"

    report = parity.run(["messaging"], junit=junit)

    first = report.document()["components"][0]["mismatches"][0]
    assert Exit.FINDING is report.exit_code
    assert not report.document()["ok"]
    assert first["case"] == "every way to publish"
    assert f"step 3 message:publish: files at the reply var/{LOG} bytes" == first["what"]
    assert first["sync"].endswith('"text":"hello"}\n')
    assert first["async"].endswith('"text":"hello"}')
    suite = ET.parse(junit).getroot()[0]
    assert report.document()["components"][0]["cases"] == int(suite.attrib["tests"]) == len(suite)
    assert int(suite.attrib["failures"]) == sum(case.find("failure") is not None for case in suite) > 0


def test_a_missed_fault_is_a_finding():
    """A planted fault that no check saw makes exit 1, though both sides are equal."""
    fault = Fault("messaging", "append", "drop", ())

    report = parity.Report((parity.Component("messaging", ()),), 0, (fault,))

    assert (fault,) == report.missed
    assert Exit.FINDING is report.exit_code


@pytest.mark.parametrize(
    ("name", "why"), [("discovery", "is not built yet"), ("nonsense", "is no component")]
)
def test_a_component_without_two_sides_is_refused(name, why, monkeypatch):
    """Parity of a component that is planned or unknown ends with exit 4 and says which can be compared."""
    monkeypatch.setattr(registry, "BUILT", tuple(area for area in registry.BUILT if area.name != "discovery"))
    with pytest.raises(Refused, match=why) as caught:
        parity.run([name])

    assert "messaging" in caught.value.hint


@pytest.mark.parametrize("given", ["root", "var"])
def test_the_users_own_data_are_copied_and_left_alone(tmp_path, given, monkeypatch):
    """`--data` runs all cases on a copy of the given files; those, also behind a link, stay as they are."""
    monkeypatch.setenv("KSI_RESPONSE_LOG_DIR", str(tmp_path / "elsewhere"))
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    log = elsewhere / "message_bus.jsonl"
    log.write_bytes(b'{"id":"1"}\n{"torn')
    (tmp_path / "var/logs").mkdir(parents=True)
    (tmp_path / "var/logs/responses").symlink_to(elsewhere)
    before = log.stat()

    report = parity.run(["messaging"], data=tmp_path if given == "root" else tmp_path / "var")

    cases = [outcome.case for outcome in report.components[0].outcomes]
    assert Exit.DONE is report.exit_code, report.document()
    assert "every case on the given data" in cases
    assert log.read_bytes() == b'{"id":"1"}\n{"torn'
    assert (before.st_mtime_ns, before.st_ino) == (log.stat().st_mtime_ns, log.stat().st_ino)
    assert not (tmp_path / "elsewhere").exists()


def test_data_that_cannot_be_read_are_refused(tmp_path):
    """A missing `--data` ends with exit 4 before anything is run."""
    with pytest.raises(Refused, match="could not be copied"):
        parity.run(["messaging"], data=tmp_path / "missing")


def test_a_junit_file_that_cannot_be_written_is_refused(monkeypatch, tmp_path):
    """The error names the path of `--junit`."""
    monkeypatch.setattr(checks, "CHECKS", {})
    monkeypatch.setattr(parity, "CHECKS", {})

    with pytest.raises(Refused, match="could not be written"):
        parity.run([], junit=tmp_path / "missing" / "parity.xml")


def test_without_limits_on_file_sizes_the_result_is_inconclusive(monkeypatch, tmp_path):
    """Where RLIMIT_FSIZE cannot be set the broken writes are skipped, with the reason, and the exit is 5."""

    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed here")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(parity, "CHECKS", {"broken write": checks.CHECKS["broken write"]})

    report = parity.run(["messaging"], junit=tmp_path / "parity.xml")

    assert Exit.INCONCLUSIVE is report.exit_code
    assert "not allowed here" in report.inconclusive[0]
    assert not report.document()["ok"]
    assert ET.parse(tmp_path / "parity.xml").getroot()[0][0].find("skipped") is not None


def test_a_limit_that_does_not_stop_the_control_is_inconclusive(monkeypatch):
    """Parity does not take a limit without effect for a broken write that went well."""
    monkeypatch.setattr(resource, "setrlimit", lambda _which, _limits: None)
    monkeypatch.setattr(parity, "CHECKS", {"broken write": checks.CHECKS["broken write"]})

    found = parity.check(MESSAGING)

    assert found.ok
    assert "did not stop the control" in found.inconclusive[0]


def _with_append(change):
    """Messaging with another `append` on its async side."""

    def aio(site):
        side = MESSAGING.aio(site)
        return Planted(side, append=lambda line: change(side, line))

    return replace(MESSAGING, aio=aio)


async def _in_two_halves(side, line):
    await side.append(line[:20])
    await asyncio.sleep(0.001)
    await side.append(line[20:])


async def _again_when_cancelled(side, line):
    try:
        await side.append(line)
    except asyncio.CancelledError:
        await side.append(line)
        raise


async def _twice_when_late(side, line):
    if side.pending():
        await side.append(line)
    await side.append(line)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_in_two_halves, "readers"),
        (_again_when_cancelled, "cancellation"),
        (_twice_when_late, "interleaving"),
    ],
)
def test_each_kind_of_check_sees_what_it_is_for(monkeypatch, change, check):
    """Half a line shown to a reader, a cancelled write done twice, a race: each is seen by its own check."""
    monkeypatch.setattr(parity, "CHECKS", {check: checks.CHECKS[check]})

    found = parity.check(_with_append(change))

    assert found.mismatches


def test_a_check_that_hangs_or_breaks_down_is_a_mismatch(monkeypatch):
    """A check that does not end, or raises what nobody expected, fails without ending the run."""

    async def hang(_trial):
        await asyncio.Event().wait()
        yield

    async def break_down(_trial):
        raise ZeroDivisionError("oops")
        yield

    table = {"hangs": hang, "breaks": break_down}
    monkeypatch.setattr(checks, "LIMIT", 0.05)
    monkeypatch.setattr(checks, "CHECKS", table)
    monkeypatch.setattr(parity, "CHECKS", table)

    found = parity.check(MESSAGING)

    assert [one.candidate for one in found.mismatches] == [
        "did not end within 0.05 s",
        "ZeroDivisionError: oops",
    ]


def test_the_seed_decides_the_random_steps(seed, tmp_path):
    """The same seed gives the same sequences, another seed others."""
    place = Scratch(tmp_path)

    assert sequences(Trial(COMPLETION, place, seed)) == sequences(Trial(COMPLETION, place, seed))
    assert sequences(Trial(COMPLETION, place, seed)) != sequences(Trial(COMPLETION, place, seed + 1))
