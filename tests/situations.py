"""Situations made by hand, for what no daemon of today can be brought to."""

from dataclasses import replace

from ksi_daemon.flags import Stage
from ksi_migrate.situation import Part, Situation

SETTLED = Part(
    name="messaging",
    title="a title",
    kind="append",
    phase=1,
    built=True,
    desired=Stage.SYNC,
    effective=Stage.SYNC,
    acknowledged=Stage.SYNC,
    ceiling=None,
    reason="flags.yaml",
    since=None,
)


def part(name, **change):
    """A built component of week 1 that is settled at sync, but for `change`."""
    return replace(SETTLED, name=name, **change)


def seen(*parts, **change):
    """A daemon that answers, is settled and current, but for `change`."""
    base = Situation(
        running=True,
        answers=True,
        pid=4711,
        why_silent="",
        generation=7,
        flags_path="flags.yaml",
        flags_errors=(),
        stage_errors=(),
        settled=True,
        current=True,
        parts=parts,
    )
    return replace(base, **change)
