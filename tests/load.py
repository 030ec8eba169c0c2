"""A steady load of numbered records over one real connection, and what of it must be on disk."""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict

from tests.daemon import lines_of

WINDOW = 48
"""Requests that a connection has under way at most."""


def bus_request(name, number):
    """Publish record `number` of connection `name`."""
    message = {"name": name, "number": number, "text": "x" * (number % 7 * 40)}
    return {"event": "message:publish", "data": {"agent_id": name, "event_type": "NOTE", "message": message}}


def usage_request(name, number):
    """Record the usage `number` of connection `name`."""
    usage = {"input_tokens": number, "output_tokens": 1}
    data = {"model": "m", "session_id": name, "request_id": str(number), "usage": usage}
    return {"event": "completion:record_usage", "data": data}


def bus_record(line):
    """Name and number of a line of the bus log."""
    return line["name"], line["number"]


def usage_record(line):
    """Name and number of a line of the usage log."""
    return line["session_id"], int(line["request_id"])


ROOMS = {
    "messaging": (bus_request, "var/logs/responses/message_bus.jsonl", bus_record),
    "completion": (usage_request, "var/logs/daemon/tool_usage.jsonl", usage_record),
}
"""For each room: how to write a record, where it lies, how to tell it."""


class Load(threading.Thread):
    """Sends records 0, 1, 2 … in bursts until told to stop, or until the daemon hangs up."""

    def __init__(self, daemon, room, name, seed):
        super().__init__(name=f"load-{name}", daemon=True)
        self.room = room
        self.label = name
        self.sent = 0
        self.acknowledged = 0
        self.refused = []
        self._random = random.Random(seed)
        self._wire = daemon.wire()
        self._over = threading.Event()

    def run(self):
        """Burst after burst; each reply is counted as soon as it is here."""
        try:
            while not self._over.is_set():
                self._burst(self._random.randint(1, WINDOW))
        except (OSError, ValueError):
            return  # the daemon was killed, a reply perhaps cut in two
        finally:
            self._wire.close()

    def stop(self):
        """Let the burst under way end; its replies are awaited."""
        self._over.set()
        self.join(30)
        assert not self.is_alive(), f"{self.name} still waits for replies"

    def _burst(self, count):
        request = ROOMS[self.room][0]
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        self._wire.send(*(request(self.label, number) for number in numbers))
        for number in numbers:
            frame = self._wire.frame()
            if frame is None:
                raise ConnectionResetError
            if "error" in json.dumps(frame):
                self.refused.append((number, frame))
            else:
                self.acknowledged += 1


def on_disk(root, room):
    """Each connection's numbers in the room's log, in the order of its lines, all of which must be whole."""
    _, path, record = ROOMS[room]
    found = defaultdict(list)
    for line in lines_of(root / path):
        name, number = record(line)
        found[name].append(number)
    return found
