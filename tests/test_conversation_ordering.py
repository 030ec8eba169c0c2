"""Sorting in turns: as `sorted`, and never for long."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon.conversation import ordering
from ksi_daemon.conversation.catalogue import KEYS, Catalogue
from ksi_daemon.conversation.core import Summary, Tally, summary
from ksi_daemon.conversation.ordering import sorted_in_turns

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def small_steps() -> Iterator[None]:
    """So that a few items are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "AT_ONCE", 6)
        patch.setattr(ordering, "EVERY", 2)
        yield


@given(st.lists(st.tuples(st.integers(0, 9) | st.integers(), st.integers())), st.booleans())
def test_it_is_sorted_and_stable(items: list[tuple[int, int]], reverse: bool) -> None:
    """Equal ones stay as they were, in both directions."""
    found = asyncio.run(sorted_in_turns(items, itemgetter(0), reverse=reverse))

    assert found == sorted(items, key=itemgetter(0), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("order", [1, -1, 7])
async def test_no_step_takes_long(order: int, reverse: bool) -> None:
    """Between two turns of others at most two or three times as many items are looked at as in one go."""
    looked, most, items = 0, 0, [number * order % 1_009 for number in range(1_009)]

    def key(item: int) -> int:
        nonlocal looked
        looked += 1
        return item

    async def others() -> None:
        nonlocal looked, most
        while True:
            most, looked = max(most, looked), 0
            await asyncio.sleep(0)

    task: asyncio.Task[Any] = asyncio.create_task(others())
    found = await sorted_in_turns(items, key, reverse=reverse)
    task.cancel()

    assert found == sorted(items, reverse=reverse)
    assert ordering.AT_ONCE <= most <= 4 * ordering.AT_ONCE


async def test_those_who_ask_at_once_share_one_sort() -> None:
    """Also when the first of them has gone meanwhile."""
    asked = 0

    def key(row: Summary) -> int:
        nonlocal asked
        asked += 1
        return row.messages

    rows = tuple(summary(f"{n:03}", 1, 1, Tally().counts()._replace(messages=n % 7)) for n in range(50))
    catalogue = Catalogue(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KEYS, "message_count", key)
        alone = await Catalogue(rows).ordered("message_count", reverse=True)
        once, asked = asked, 0
        tasks = [asyncio.create_task(catalogue.ordered("message_count", reverse=True)) for _ in range(10)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        found = await asyncio.gather(*tasks[1:])

    assert asked == once
    assert all(one == alone for one in found)
