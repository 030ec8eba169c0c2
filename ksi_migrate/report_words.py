"""What the bench report says in words: how it was measured, and whose figures the original's are."""

from __future__ import annotations

from ksi_migrate.figures import DASH

METHOD = (
    (
        "Three columns",
        (
            "Sync is the daemon as it was: blocking calls on the event loop. Async is its replacement,"
            " which never blocks the loop. Reference is stand-alone code that makes the original's calls"
            " and nothing else; sync is measured against it, so that nobody slowed the control to flatter"
            " the candidate."
        ),
    ),
    (
        "Throughput",
        (
            "Acknowledged operations in a second: an operation counts when its caller has its reply, and"
            " by then its effect is where the sync side would have put it. Latency is how long one caller"
            " waits for that reply: half of them wait no longer than p50, 99 in 100 no longer than p99."
        ),
    ),
    (
        "Loop stall",
        (
            "How late a heartbeat of 1 ms comes on the loop's own thread. While the loop stalls the"
            " daemon answers nobody, so every connected client waits that long. A second heartbeat runs in"
            " an idle process beside it: what that one shows is the machine's doing, not the daemon's."
        ),
    ),
    (
        "Interleaved, medians",
        (
            "Each round runs reference, sync and async in turn, so a slow moment of the machine touches"
            " all three. A figure is the median over the rounds; a whisker reaches from the slowest round"
            " to the fastest."
        ),
    ),
    (
        "Ratios",
        (
            "A ratio says how many times better async is. Throughput: async divided by sync, and once"
            " more by reference. Loop stall: the longest stall of sync divided by that of async. Above 1×"
            " async is better, below it is worse."
        ),
    ),
    (
        "More figures",
        (
            "Wall time is from the first request of a round to its last answer. Loop time for one call is"
            " the processor time of the loop's own thread, which no other client has meanwhile. In both"
            " less is better, and the last column says how many times better async is than sync."
        ),
    ),
    (
        "CPU and memory",
        (
            "Processor time for 10,000 calls, user and system together, and the most memory that the run"
            " held at once; both with the worker processes of a room. What these share counts in each."
        ),
    ),
    (
        DASH,
        (
            "A dash stands for a figure that was not measured, or for a ratio that is not defined, for"
            " instance because there was nothing to divide by. It never stands for zero."
        ),
    ),
)
ORIGINAL = (
    "The original's figures are quoted from an earlier run of it on a machine of this kind; they were"
    " not measured in this run. The original also writes an event log with each publish, which this"
    " daemon does not do yet."
)
