"""What the stand-in for `claude` is made of: its version, how it prints, and how it keeps a session."""

import json
import os
import stat
import time

VERSION = os.environ.get("STANDIN_VERSION", "2.1.112")
OLD = VERSION.startswith("1.")
PIPE = 64_000 if OLD else 65_536
"""Bytes that a reader gets who is not at the pipe when the command ends."""

UNDER_WAY: list[str] = []
"""The turns that began in this process."""


def finish(code, out="", err=""):
    """Print and end, as quickly as can be."""
    if UNDER_WAY:
        note("end", code=code)
    data = out.encode("utf-8", "replace")
    if stat.S_ISFIFO(os.fstat(1).st_mode) and len(data) > PIPE:
        data = data[:PIPE]
    write(1, data)
    write(2, err.encode("utf-8", "replace"))
    os._exit(code)


def write(handle, data):
    """All of it, as far as somebody reads."""
    try:
        while data:
            data = data[os.write(handle, data) :]
    except BrokenPipeError:
        os._exit(1)


def note(at, **fields):
    """One line for the journal: what begins or ends, and when by the machine's monotonic clock."""
    UNDER_WAY.append(at)
    path = os.environ.get("STANDIN_JOURNAL")
    if path:
        record = {"at": at, "pid": os.getpid(), "time": time.monotonic(), **fields}
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        write(handle, json.dumps(record).encode() + b"\n")
        os.close(handle)


def new_id():
    """A random UUID, without the module's cost."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def is_uuid(text):
    """Whether it has a UUID's form."""
    parts = text.lower().split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and not set("".join(parts)) - set(
        "0123456789abcdef"
    )


def compact(value):
    """JSON as JavaScript writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Session:
    """A session's file, whose records are chained by `parentUuid`."""

    def __init__(self, name):
        folder = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in os.getcwd())
        self.name = name
        self.folder = os.path.join(os.path.expanduser("~"), ".claude", "projects", folder)
        self.path = os.path.join(self.folder, f"{name}.jsonl")
        self.records = []

    def load(self):
        """Its records; ends when the session did not begin in this directory."""
        try:
            with open(self.path, encoding="utf-8") as file:
                self.records = [json.loads(line) for line in file]
        except FileNotFoundError:
            finish(1, err=f"No conversation found with session ID: {self.name}\n")

    def texts(self):
        """What the model is told: the chain that ends in the last record. Turns at the same time are lost."""
        known = {record["uuid"]: record for record in self.records}
        found: list[str] = []
        at = self.records[-1]["uuid"] if self.records else None
        while at is not None:
            found.insert(0, known[at]["message"]["content"])
            at = known[at]["parentUuid"]
        return found

    def add(self, role, text):
        """One more record, at once in the file."""
        parent = self.records[-1]["uuid"] if self.records else None
        message = {"role": role, "content": text}
        record = {
            "type": role,
            "uuid": new_id(),
            "parentUuid": parent,
            "sessionId": self.name,
            "message": message,
        }
        self.records.append(record)
        self.save([record])

    def save(self, records):
        """Append to the file."""
        os.makedirs(self.folder, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        write(handle, "".join(json.dumps(record) + "\n" for record in records).encode())
        os.close(handle)

    def renamed(self):
        """The same conversation under a new id, as the old versions go on with it."""
        new = Session(new_id())
        new.records = [{**record, "sessionId": new.name} for record in self.records]
        new.save(new.records)
        return new
