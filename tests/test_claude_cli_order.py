"""Whose turn it is: one session's turns never overlap, different ones do, and everybody gets theirs."""

from __future__ import annotations

import asyncio
import random

import pytest

from ksi_daemon.claude_cli import AREA
from ksi_daemon.claude_cli.exercise import FIRST, SECOND
from ksi_daemon.claude_cli.order import Order
from ksi_daemon.errors import ShuttingDown
from tests.rooms import SIDES, room
from tests.test_claude_cli import lay, turn

STAMPER = r"""#!/bin/sh
root=${0%/bin/claude}
for one do case $one in --resume=*) session=${one#*=} ;; esac; done
IFS= read -r prompt
echo "begin $session $prompt" >> "$root/stamps"
sleep 0.03
echo "end $session $prompt" >> "$root/stamps"
printf '{"result":"%s","session_id":"%s"}\n' "$prompt" "$session"
"""


def session(number):
    """One of many sessions' ids."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def stamps(root):
    """What the program wrote down, in order: begin or end, session, prompt."""
    return [line.split() for line in (root / "stamps").read_text().splitlines()]


@pytest.mark.parametrize("side", SIDES)
async def test_one_sessions_turns_never_overlap(side, tmp_path, seed):
    """Fifty at once over ten sessions: each session's in their order, and not too many side by side."""
    area = lay(tmp_path, STAMPER, claude_parallel=4)
    asked = [(session(number % 10), f"p{number}") for number in range(50)]
    random.Random(seed).shuffle(asked)
    async with room(area, side, tmp_path) as claude:
        replies = await asyncio.gather(*(turn(claude, prompt, session_id=one) for one, prompt in asked))

    assert [reply["response"]["result"] for reply in replies] == [prompt for _, prompt in asked]
    seen, under_way, most = stamps(tmp_path), [], 0
    for what, one, _ in seen:
        if what == "begin":
            assert one not in under_way
            under_way.append(one)
            most = max(most, len(under_way))
        else:
            under_way.remove(one)
    assert sorted((one, prompt) for what, one, prompt in seen if what == "begin") == sorted(asked)
    for number in range(10):
        begun = [prompt for what, one, prompt in seen if what == "begin" and one == session(number)]
        assert begun == [prompt for one, prompt in asked if one == session(number)]
    assert most == (1 if side == "sync" else 4)


async def test_different_sessions_run_side_by_side(tmp_path):
    """Twenty turns that wait for one another: each of them ends only because all have begun."""
    program = """#!/bin/sh
    root=${0%/bin/claude}
    IFS= read -r prompt
    : > "$root/here-$prompt"
    until [ -e "$root/here-p19" ] && [ -e "$root/here-p0" ]; do sleep 0.01; done
    echo '{"result":"met"}'
    """
    area = lay(tmp_path, program, claude_parallel=20)
    async with room(area, "async", tmp_path) as claude:
        replies = await asyncio.gather(*(turn(claude, f"p{number}") for number in range(20)))

    assert [reply["response"]["result"] for reply in replies] == ["met"] * 20


async def test_a_busy_session_does_not_starve_another(tmp_path):
    """The sessions' heads are served in the order in which they came."""
    area = lay(tmp_path, STAMPER, claude_parallel=1)
    asked = [(FIRST, f"a{number}") for number in range(4)] + [(SECOND, "b0")]
    async with room(area, "async", tmp_path) as claude:
        await asyncio.gather(*(turn(claude, prompt, session_id=one) for one, prompt in asked))

    begun = [prompt for what, _, prompt in stamps(tmp_path) if what == "begin"]
    assert begun == ["a0", "b0", "a1", "a2", "a3"]


@pytest.mark.parametrize("side", SIDES)
async def test_ids_of_one_chain_share_one_order(side, tmp_path):
    """A turn that names the old id waits for one that names the new; so does an injection."""
    program = AREA.exercise.programs["bin/claude"].replace(
        b"case $line in\n    exit:", b'echo "$line" >> "$root/stamps"\ncase $line in\n    exit:', 1
    )
    area = lay(tmp_path, program)
    async with room(area, side, tmp_path) as claude:
        await turn(claude, f"session:{SECOND}", session_id=FIRST)
        await asyncio.gather(
            turn(claude, "sleep:0.1", session_id=SECOND),
            turn(claude, "second", session_id=FIRST.upper()),
            claude.send("claude_cli:inject", session_id=FIRST, message="third"),
            turn(claude, "fourth", session_id=SECOND.upper()),
        )

    assert stamps(tmp_path)[1:] == [["sleep:0.1"], ["second"], ["third"], ["fourth"]]


async def test_the_status_tells_who_runs_and_who_waits(tmp_path):
    """Turns and injections, with their session and for how long."""
    area = lay(tmp_path, AREA.exercise.programs["bin/claude"])
    async with room(area, "async", tmp_path) as claude:
        tasks = [
            asyncio.create_task(turn(claude, "hang", session_id=FIRST, request_id="r-1")),
            asyncio.create_task(claude.send("claude_cli:inject", session_id=FIRST, message="x")),
        ]
        while claude.backend.pending() is None:
            await asyncio.sleep(0.01)
        status = await claude.send("claude_cli:status")
        pending = claude.backend.pending()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

        assert [{**one, "for_s": one["for_s"] >= 0} for one in (*status["running"], *status["waiting"])] == [
            {"kind": "turn", "request_id": "r-1", "session_id": FIRST, "for_s": True},
            {"kind": "injection", "session_id": FIRST, "for_s": True},
        ]
        assert (len(status["running"]), len(status["waiting"])) == (1, 1)
        assert pending.startswith("1 turns, the longest for 0.")
        assert claude.backend.pending() is None


class Crowd:
    """Tasks that each take a place, note it, and keep it until they are let go."""

    def __init__(self, limit):
        self.order = Order(limit)
        self.begun = []
        self._go = {}

    def come(self, name, key=None):
        """A task that waits for its turn."""
        self._go[name] = asyncio.Event()
        return asyncio.create_task(self._stay(name, key or name))

    async def _stay(self, name, key):
        async with self.order.place(key, {"name": name}) as place:
            self.begun.append(name)
            await place.run(self._go[name].wait)

    async def let_go(self, name):
        """End one's stay, and see who comes."""
        self._go[name].set()
        await settled()


async def settled():
    """Every callback that is due."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_cancelled_one_leaves_the_queue():
    """Wherever it stood: at the head of its line, behind it, or just admitted."""
    crowd = Crowd(1)
    tasks = {name: crowd.come(name, key) for name, key in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"))}
    await settled()
    for name in ("c", "b"):
        tasks[name].cancel()
        await settled()
    assert crowd.begun == ["a"]
    assert [place.label["name"] for place in crowd.order.waiting] == ["d"]

    crowd._go["a"].set()
    await asyncio.wait([tasks["a"]])
    tasks["d"].cancel()  # admitted by now, and not yet awake
    await asyncio.wait(tasks.values())

    assert (crowd.order.running, crowd.order.waiting) == ([], [])
    last = crowd.come("e", "x")
    await crowd.let_go("e")
    await last
    assert crowd.begun[-1] == "e"


@pytest.mark.parametrize("cancelled", [(0, 1), (1, 0)])
async def test_one_that_is_cancelled_while_a_place_becomes_free_gives_it_on(cancelled):
    """In the same iteration of the loop, whichever comes first."""
    crowd = Crowd(1)
    tasks = [crowd.come(name) for name in ("a", "b", "c")]
    await settled()

    for number in cancelled:
        tasks[number].cancel()
    await settled()

    assert crowd.begun == ["a", "c"]
    await crowd.let_go("c")
    await tasks[2]


async def test_a_stop_ends_everybody():
    """Those that wait at once, those that run when they are asked; nobody comes in any more."""
    crowd = Crowd(1)
    tasks = [crowd.come(name) for name in ("a", "b", "c")]
    await settled()
    tasks[1].cancel()

    await crowd.order.stop(1)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [ShuttingDown, asyncio.CancelledError, ShuttingDown]
    with pytest.raises(ShuttingDown):
        await crowd.come("late")
    await crowd.order.stop(1)


async def test_a_stop_asks_twice_and_no_longer():
    """The second cancellation ends a side's patience; what ends neither way is left to the side."""
    order, cancelled, free = Order(1), [], asyncio.Event()

    async def stubborn():
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                cancelled.append(task.cancelling())

    async def stay():
        async with order.place("x", {}) as place:
            await place.run(stubborn)

    task = asyncio.create_task(stay())
    await settled()

    await order.stop(0.01)

    assert cancelled == [1, 2]
    free.set()
    await task


async def test_a_turn_that_has_not_begun_its_work_when_the_stop_comes_never_does():
    """It was admitted, and was still finding out where to run."""
    order, at_it = Order(1), asyncio.Event()

    async def stay():
        async with order.place("x", {}) as place:
            await at_it.wait()
            await place.run(pytest.fail)

    task = asyncio.create_task(stay())
    await settled()
    stopping = asyncio.create_task(order.stop(1))
    await settled()
    at_it.set()

    with pytest.raises(ShuttingDown):
        await task
    await stopping
