"""Bench's figures as evidence: what is kept, where, how many, and what is passed over."""

from __future__ import annotations

import json

import orjson
import pytest

from ksi_migrate import bench, measured, origin
from tests.operate import migrate
from tests.proofs import ELSEWHERE, HERE, MACHINE, made, report


@pytest.fixture
def place(tmp_path):
    """The var/migrate of a root in which a daemon has run."""
    folder = tmp_path / "var/migrate"
    folder.mkdir(parents=True)
    return folder


def test_a_run_is_kept_and_found_again(place):
    """Each component has a private file of its own, the socket another, with machine, release and figures."""
    assert measured.keep(place, report(made("100 callers", times=4), socket=9000), 3) == ()

    socket, messaging = sorted(measured.load(place), key=lambda run: run.component, reverse=True)
    (case,) = messaging.cases
    files = sorted((place / "evidence").iterdir())
    assert (messaging.component, messaging.rounds, messaging.origin) == ("messaging", 3, HERE)
    assert case["ratio"]["throughput"] == 4
    assert {one["stage"]: one["rss_peak_mib"] for one in socket.cases} == {"async": 50, "sync": 50}
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 2
    assert json.loads(files[0].read_text())["version"] == 1


def test_what_cannot_be_judged_by_is_not_kept(place):
    """Too few rounds of a run or a case, or too few heartbeats, leave no evidence."""
    measured.keep(place, report(made("a")), 2)
    measured.keep(place, report(made("b", rounds=2), made("c", beats=20)), 3)

    assert measured.load(place) == ()


def test_without_a_migration_nothing_is_kept(tmp_path):
    """A root in which no daemon has run stays as it is, and the run says that nothing was kept."""
    (said,) = measured.keep(tmp_path / "var/migrate", report(made("a")), 3)

    assert "figures not kept" in said
    assert not (tmp_path / "var").exists()


def test_only_the_last_few_are_kept(place):
    """Of each component the newest five runs; those of another are left alone."""
    for number in range(7):
        measured.keep(place, report(made(f"case {number}")), 3)
    measured.keep(place, report(made("x"), component="agent"), 3)

    runs = measured.load(place)
    names = [run.cases[0]["name"] for run in runs if run.component == "messaging"]
    assert names == ["case 6", "case 5", "case 4", "case 3", "case 2"]
    assert runs[0].component == "agent"


def test_what_cannot_be_read_is_passed_over(place):
    """Damaged, foreign and later files prove nothing and hold nothing up."""
    measured.keep(place, report(made("a")), 3)
    (good,) = (place / "evidence").iterdir()
    later = {**json.loads(good.read_text()), "version": 2}
    for name, data in {"1": b"{", "2": b'{"component": 1}', "3": orjson.dumps(later)}.items():
        (place / f"evidence/bench-messaging-{name}.json").write_bytes(data)

    assert len(measured.load(place)) == 1


def test_what_cannot_be_kept_is_told(place):
    """A disk that refuses, and figures that are too many, are a note, never an error."""
    big = measured.keep(place, report(*(made(f"case {number}") for number in range(80))), 3)
    (place / "evidence").rmdir() if (place / "evidence").exists() else None
    (place / "evidence").write_text("in the way")
    refused = measured.keep(place, report(made("a")), 3)

    assert "bytes are too many" in big[0]
    assert "figures not kept as evidence: " in refused[0]


def test_bench_keeps_what_it_found(place, monkeypatch):
    """`bench` hands its figures over, and what cannot be kept stands among its notes."""
    monkeypatch.setattr(bench._Bench, "measure", lambda *_: report(made("100 callers")))
    root = place.parent.parent
    ended = migrate("bench", "messaging", "--rounds", 3, "--json", "--root", root)
    place.joinpath("evidence").rename(root / "elsewhere")
    place.rmdir()
    again = migrate("bench", "messaging", "--rounds", 3, "--json", "--root", root)

    assert (ended.code, ended.document["notes"]) == (0, [])
    assert len(list((root / "elsewhere").iterdir())) == 1
    assert "no daemon has run here" in again.document["notes"][0]
    assert ended.document["machine"]["cores"] == MACHINE.cores


def test_a_machine_is_told_from_others(tmp_path):
    """Its id is a digest of machine-id(5), or of name and address without one; release counts too."""
    named = tmp_path / "machine-id"
    named.write_text("0123456789abcdef\n")
    digest = origin.machine_id((tmp_path / "none", named))

    assert digest != origin.machine_id((tmp_path / "none",))
    assert "0123456789abcdef" not in digest
    assert len(digest) == 16
    assert HERE.fits(origin.here())
    assert not HERE.fits(ELSEWHERE)
    assert "another machine, other" in HERE.differs(ELSEWHERE)
    older = type(HERE)(**{**{name: getattr(HERE, name) for name in HERE.__slots__}, "release": "0.0.1"})
    assert "release 0.0.1" in HERE.differs(older)
