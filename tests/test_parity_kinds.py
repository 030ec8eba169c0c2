"""Parity of a room that replaces a file and of one that runs a process, with toys of both kinds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest

from ksi_daemon import registry
from ksi_daemon.exercise import Step
from ksi_migrate import parity
from ksi_migrate.exits import Exit
from ksi_migrate.paritycheck import cancelled_turn, checks, fullfile, lasting, readers
from ksi_migrate.paritycheck.planting import ANSWERS, WRITES, doubled, reversed_, shortened, table
from ksi_migrate.paritycheck.scratch import scratch
from ksi_migrate.paritycheck.seam import Seam
from ksi_migrate.paritycheck.sides import Candidate, control
from tests.parity_cards import CARD_ROOM, CardStore
from tests.parity_echo import ECHO_ROOM, NOTE, AbandoningEcho, Echo, Said

ROOMS = pytest.mark.parametrize("area", [CARD_ROOM, ECHO_ROOM], ids=lambda area: area.name)


@ROOMS
def test_a_room_of_either_kind_is_compared(monkeypatch, area):
    """Equal sides pass every check that has a meaning for their kind."""
    monkeypatch.setattr(registry, "BUILT", (area,))

    report = parity.run([])

    assert Exit.DONE is report.exit_code, report.document()
    assert report.document()["components"][0]["cases"] > 40


@pytest.mark.unmeasured
@pytest.mark.timeout(240)
@ROOMS
def test_each_planted_fault_is_caught(monkeypatch, area):
    """In methods that give a dict or a record, and in one that takes a view of a dict."""
    monkeypatch.setattr(readers, "ROUNDS", 2)
    methods = {"cards": ("load", "save"), "echo": ("run",)}[area.name]

    rows = parity.faults([area], thorough=False)

    assert {(method, fault) for method in methods for fault in WRITES} == {
        (row.method, row.fault) for row in rows
    }
    assert [row for row in rows if not row.caught_by] == []


def test_what_has_no_meaning_for_a_kind_is_listed(monkeypatch, tmp_path):
    """A process room's report names what only async can do and what was not tried; neither is a failure."""
    monkeypatch.setattr(registry, "BUILT", (ECHO_ROOM,))
    junit = tmp_path / "parity.xml"

    report = parity.run([], junit=junit)

    (component,) = report.components
    assert (report.exit_code, component.one_sided) == (Exit.DONE, (cancelled_turn.ONE_SIDED,))
    assert component.left_out == (readers.NO_FILE, fullfile.INHERITED)
    document = component.document()
    assert ([cancelled_turn.ONE_SIDED], len(component.outcomes) - 2) == (
        document["one_sided"],
        document["cases"],
    )
    assert document["left_out"] == [readers.NO_FILE, fullfile.INHERITED]
    cases = ET.parse(junit).getroot()[0]
    assert cases.attrib["skipped"] == "2"
    said = {case.findtext("system-out") for case in cases if "cancelled" in case.attrib["name"]}
    assert said == {f"async only: {cancelled_turn.ONE_SIDED}"}


def test_a_turn_that_outlives_its_caller_is_seen(monkeypatch):
    """A cancelled turn that goes on is a mismatch that tells the processes which it left."""
    monkeypatch.setattr(parity, "CHECKS", {"cancellation": checks.CHECKS["cancellation"]})

    found = parity.check(replace(ECHO_ROOM, aio=AbandoningEcho))

    left = {one.case for one in found.mismatches if one.what.startswith("processes left")}
    assert left >= {case for case, _, _ in cancelled_turn.WHILE_IT_RUNS}


async def test_it_is_told_what_a_cancelled_turn_ended_with():
    """An answer or an error in place of the cancellation is a difference."""

    async def answer():
        return b"[]"

    async def fail():
        raise ValueError("no")

    async def wait():
        await asyncio.Event().wait()

    answered, failed, cancelled = (asyncio.create_task(one()) for one in (answer, fail, wait))
    cancelled.cancel()
    await asyncio.wait([answered, failed, cancelled])

    ends = [cancelled_turn._end_of(task) for task in (answered, failed, cancelled)]
    assert ends == ["answered", "ValueError('no')", "cancelled"]


def test_two_writes_that_change_places_mean_nothing_to_processes():
    """Every other fault is planted in every method, whatever the kind."""
    assert table(CardStore, "save", "replace") == WRITES
    assert WRITES.keys() - table(CardStore, "save", "process").keys() == {"swap"}
    assert table(CardStore, "load", "replace") is table(Echo, "run", "process") is ANSWERS


def test_what_an_answer_loses_it_keeps_its_type():
    """Dicts and records are harmed as dicts and records, so that a service notices nothing but the harm."""
    assert doubled({"a": 1, "b": 2}) == {"a": 1, "b": 2, "a, again": 1, "b, again": 2}
    assert list(reversed_({"a": 1, "b": 2})) == ["b", "a"]
    assert shortened({"a": 1, "b": 2}) == {"a": 1}
    assert (doubled(b"ab"), reversed_(b"ab"), shortened(b"ab")) == (b"abab", b"ba", b"a")


@pytest.mark.parametrize(
    ("fault", "answers"),
    [
        ("truncate", [Said(0, b"", b""), Said(1, b"a", b""), Said(1, b"ab", b"c")]),
        ("delay", [Said(0, b"", b""), Said(0, b"", b""), Said(1, b"ab", b"")]),
    ],
)
async def test_the_last_part_of_a_record_that_holds_something_is_harmed(tmp_path, fault, answers):
    """A record without anything to lose is given as it is; one that comes late is the one before."""
    right = iter([Said(0, b"", b""), Said(1, b"ab", b""), Said(1, b"ab", b"cd")])

    async def run() -> Said:
        return next(right)

    faulty = ANSWERS[fault](run, tmp_path)

    assert answers == [await faulty(), await faulty(), await faulty()]


async def test_what_a_call_was_given_is_told_as_it_was_then():
    """A view that changes while the call runs is shown as the call got it."""
    shown = {"a": 1}

    class Side:
        async def save(self, view):
            shown["b"] = 2

    side: Any = Side()
    seam: Any = Seam(side, ["save"])
    await seam.save(shown)

    assert seam.take() == ["save({'a': 1}) → None"]


@pytest.mark.parametrize("make", [control, Candidate], ids=["sync", "async"])
async def test_a_trial_has_its_neighbours_programs_settings_and_ids(make):
    """Programs are executable, settings below the scratch, ids counted; whoever is connected gets frames."""
    with scratch() as place:
        async with place.rig(ECHO_ROOM, make, {NOTE: b"x"}) as rig:
            await rig.step(Step("@connect", client="two"))
            seen: dict[str, Any] = dict(await rig.step(Step("echo:say", {"text": "you"})))
            files = rig.files()

    assert (
        (seen["reply"])
        == b'[{"id":"00020001-0000-4000-8000-000000000000","code":0,"said":"hello you\\n","errors":""}]\n'
    )
    assert sorted(seen["frames"]) == ["one", "two"]
    assert seen["frames"]["one"] == seen["frames"]["two"]
    assert (files["bin/echo"]["mode"], files[NOTE]["mode"]) == ("0o700", "0o600")


def test_what_is_left_is_ended():
    """A process that runs on is ended, one that is gone is passed over."""
    with subprocess.Popen(["sleep", "60"]) as left, subprocess.Popen(["true"]) as gone:
        gone.wait()
        lasting.kill([left.pid, gone.pid])

        assert left.wait() == -signal.SIGKILL


async def test_only_the_living_and_our_own_dead_count_as_left():
    """A pid of nobody is not left; this process is."""
    assert lasting.alive([os.getpid(), 2**22 + 1]) == [os.getpid()]
