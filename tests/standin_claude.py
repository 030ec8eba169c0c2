"""A stand-in for the `claude` command: quick, offline, and true to what was measured of the real one.

It answers `you said PROMPT`. `[[word value]]` in the prompt, or in `STANDIN`, has it do something else: see
`WORDS`. `STANDIN_VERSION` says whose manners it has, `STANDIN_JOURNAL` where each turn is written down.
"""

import json
import os
import signal
import sys

from tests.standin_base import OLD, VERSION, Session, finish, is_uuid, new_id, note, write
from tests.standin_words import AT_ONCE, WORDS, Reply, directives, interrupted, plain, printed

VALUED = {"--output-format", "--input-format", "--model", "--max-turns", "--mcp-config", "--permission-mode"}
VALUED |= {"--allowedTools", "--disallowedTools", "--append-system-prompt"}
BARE = {"--print", "--verbose"}
NOT_UUID = (
    "Error: --resume requires a valid session ID when used with --print\n"
    "Usage: claude -p --resume <session-id>\n"
    "Session IDs must be in UUID format (e.g., 550e8400-e29b-41d4-a716-446655440000)\n"
    'Provided value "{}" is not a valid UUID\n'
    if OLD
    else "Error: --resume requires a valid session ID or session title when used with --print. "
    "Usage: claude -p --resume <session-id|title>. "
    'Provided value "{}" is not a UUID and does not match any session title.\n'
)
NO_INPUT = "Error: Input must be provided either through stdin or as a prompt argument when using --print\n"


def options(words):
    """The command line as the real one reads it; ends at `--version` and at what it does not know."""
    found, words = {"--output-format": "text", "--input-format": "text"}, list(words)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        name = {"-p": "--print", "-r": "--resume", "-v": "--version"}.get(name, name)
        if name == "--version":
            finish(0, f"{VERSION} (Claude Code)\n")
        elif name in BARE:
            found[name] = "yes"
        elif name in VALUED or name == "--resume":
            found[name] = value if equals else argument(name, words)
        elif word.startswith("-"):
            finish(1, err=f"error: unknown option '{word}'\n")
        else:
            found["prompt"] = word
    return found


def argument(name, words):
    """The next word; for `--resume`, whose value may be left out, only when it is no option."""
    if name == "--resume" and (not words or words[0].startswith("-")):
        return ""
    return words.pop(0) if words else finish(1, err=f"error: option '{name} <value>' argument missing\n")


def attached(prompt):
    """What `@/path` adds to the message."""
    for word in prompt.split():
        if word.startswith("@/") and os.path.isfile(word[1:]):
            with open(word[1:], encoding="utf-8", errors="replace") as file:
                yield f"Result of calling the Read tool: {file.read()}"


def turn(session, prompt, orders):
    """One message and its answer. New versions keep the message before they have the answer."""
    reply = Reply(session, f"you said {plain(prompt)}")
    signal.signal(signal.SIGINT, lambda *_: interrupted(reply))
    messages = [prompt, *attached(prompt)]
    if not OLD:
        [session.add("user", text) for text in messages]
    known = session.texts() + (messages if OLD else [])
    place = {"cwd": os.getcwd(), "argv": sys.argv[1:], "env": sorted(os.environ)}
    place["turn"] = os.environ.get("KSI_TURN", "")
    note("begin", session=session.name, prompt=prompt, texts=known, **place)
    for word, value in orders:
        WORDS[word](reply, value)
    if OLD:
        [session.add("user", text) for text in messages]
    session.add("assistant", reply.text)
    return reply


def say_slash(reply):
    """A leading `/` runs a command of the client's own. The old versions pass on what they do not know."""
    name = reply.text.split()[0]
    if OLD:
        return finish(0) if name == "/help" else None
    known = {"/help": "/help isn't available in this environment.", "/cost": "Total cost:            $0.0000"}
    reply.say(known.get(name, f"Unknown command: {name}"))
    return finish(0, printed(reply, found={"--output-format": "json"}))


def stay(session, found):
    """Many turns in one process, a line of JSON each; the old versions forget the earlier ones."""
    for line in sys.stdin:
        prompt = json.loads(line)["message"]["content"]
        reply = turn(Session(session.name) if OLD else session, prompt, directives(prompt))
        write(1, printed(reply, found).encode())
    finish(0)


def main():
    """The command, once."""
    signal.signal(signal.SIGTERM, lambda *_: finish(143))
    if not OLD:
        signal.signal(signal.SIGHUP, lambda *_: finish(129))
    found = options(sys.argv[1:])
    first = directives(os.environ.get("STANDIN", ""))
    [WORDS[word](None, value) for word, value in first if word in AT_ONCE]
    session = resumed(found) if "--resume" in found else Session(new_id())
    check(found)
    if found["--input-format"] == "stream-json":
        stay(session, found)
    prompt = found.get("prompt", "") + heard(deaf=("deaf", "") in first)
    if prompt.startswith("/"):
        say_slash(Reply(session, prompt))
    rest = [order for order in first if order[0] not in AT_ONCE]
    reply = turn(session, prompt, rest + directives(prompt))
    finish(reply.code, printed(reply, found))


def check(found):
    """Refuse what the real one refuses before it looks at the message."""
    config = found.get("--mcp-config")
    if config is not None and not os.path.isfile(config):
        head = "Error: " if OLD else "Error: Invalid MCP configuration:\n"
        finish(1, err=f"{head}MCP config file not found: {config}\n")
    if found["--output-format"] == "stream-json" and "--verbose" not in found:
        finish(1, err="Error: When using --print, --output-format=stream-json requires --verbose\n")


def heard(*, deaf):
    """What comes on stdin until its end; without anything there is no turn."""
    text = "nothing, deaf" if deaf else sys.stdin.buffer.read().decode("utf-8", "replace")
    if not text:
        finish(1, err=NO_INPUT)
    if not OLD and not text.strip():
        finish(0)
    return text


def resumed(found):
    """The session that is gone on with: under a new id in the old versions."""
    name = found["--resume"]
    if not is_uuid(name):
        finish(1, err=NOT_UUID.format(name))
    session = Session(name)
    session.load()
    return session.renamed() if OLD else session
