"""Parity's report as JUnit XML, for CI systems that show it."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from ksi_daemon.conductor import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ksi_migrate.paritycheck.contrast import Mismatch
    from ksi_migrate.paritycheck.trial import Outcome

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write, not even escaped."""


def write(path: Path, suites: Iterable[tuple[str, tuple[Outcome, ...]]]) -> None:
    """One suite per component, one testcase per case; inconclusive ones are skipped. Raises `OSError`."""
    root = Element("testsuites", name="ksi-migrate parity")
    for name, outcomes in suites:
        _suite(SubElement(root, "testsuite"), name, outcomes)
    indent(root)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _suite(suite: Element, name: str, outcomes: tuple[Outcome, ...]) -> None:
    counts = {
        "tests": len(outcomes),
        "failures": sum(bool(outcome.mismatches) for outcome in outcomes),
        "skipped": sum(_why_skipped(outcome) is not None for outcome in outcomes),
        "errors": 0,
    }
    where = {"hostname": _clean(platform.node()), "timestamp": utc_now()}
    suite.attrib.update({"name": name, **{key: str(count) for key, count in counts.items()}, **where})
    for outcome in outcomes:
        case = SubElement(suite, "testcase", classname=f"parity.{name}", name=_clean(outcome.case))
        for mismatch in outcome.mismatches:
            SubElement(case, "failure", message=_clean(mismatch.what)).text = _clean(_text(mismatch))
        why = _why_skipped(outcome)
        if why is not None:
            SubElement(case, "skipped", message=_clean(why))
        elif outcome.one_sided is not None:
            SubElement(case, "system-out").text = _clean(f"async only: {outcome.one_sided}")


def _why_skipped(outcome: Outcome) -> str | None:
    return outcome.inconclusive or outcome.left_out


def _text(mismatch: Mismatch) -> str:
    return f"sync:  {mismatch.sync}\nasync: {mismatch.candidate}"


def _clean(text: str) -> str:
    return _NOT_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
