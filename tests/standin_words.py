"""What the stand-in for `claude` answers, and what `[[word value]]` in a prompt has it do instead."""

import json
import os
import signal
import sys
import time

from tests.standin_base import OLD, compact, finish, new_id, write

KINDS = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
COST = {"input_tokens": 11, "output_tokens": 7}
COST |= {"cache_creation_input_tokens": 2, "cache_read_input_tokens": 3}


class Reply:
    """What will be printed, and with which exit code."""

    def __init__(self, session, text):
        self.session = session
        self.text = text
        self.code = 0
        self.fields = {"subtype": "success", "is_error": False, "result": text, "usage": COST}
        self.began = time.monotonic()

    def fail(self, value):
        """API failure: the text on stdout, nothing on stderr, tried again first as the client does."""
        number, _, message = value.partition(" ")
        status = int(number)
        tries = int(os.environ.get("CLAUDE_CODE_MAX_RETRIES", "10"))
        time.sleep(sum(min(0.5 * 2**n, 32) for n in range(tries)))
        self.code = 1
        self.fields |= {"is_error": True, "result": wording(status, message), "usage": dict.fromkeys(COST, 0)}
        if not OLD:
            self.fields |= {"api_error_status": status, "stop_reason": "stop_sequence"}

    def out_of_turns(self, _value):
        """`--max-turns` was reached: no `result`, and the old versions call it no error."""
        del self.fields["result"]
        self.fields |= {"subtype": "error_max_turns", "is_error": not OLD}
        self.code = 0 if OLD else 1
        if not OLD:
            self.fields["errors"] = ["Reached maximum number of turns (1)"]

    def say(self, text):
        """Answer with a text of the caller's."""
        self.text = self.fields["result"] = text

    def whole(self):
        """The object that is printed."""
        spent = round((time.monotonic() - self.began) * 1000)
        about: dict = {
            "duration_ms": spent,
            "duration_api_ms": spent,
            "num_turns": 1,
            "total_cost_usd": 0.00014,
        }
        if not OLD:
            new = {"api_error_status": None, "stop_reason": "end_turn", "terminal_reason": "completed"}
            about |= {**new, "modelUsage": {}, "permission_denials": [], "uuid": new_id()}
        return {"type": "result", **about, "session_id": self.session.name, **self.fields}


def wording(status, message):
    """What each version makes of an API failure."""
    kind = KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body = compact({"type": "error", "error": {"type": kind, "message": message}})
    if OLD or status in {400, 404}:
        return f"API Error: {status} {body}"
    if status == 429:
        return f"API Error: Request rejected (429) · {message}"
    if status == 401:
        return f"Failed to authenticate. API Error: 401 {body}"
    return f"API Error: {status} {body} · check status.claude.com"


def printed(reply, found):
    """The answer in the format that was asked for."""
    if found["--output-format"] == "text":
        return reply.fields.get("result", "") + "\n"
    if found["--output-format"] == "json":
        return compact(reply.whole()) + "\n"
    about = {"session_id": reply.session.name}
    said = {"role": "assistant", "content": [{"type": "text", "text": reply.text}]}
    begun = {"type": "system", "subtype": "init", "cwd": os.getcwd(), "tools": [], **about}
    lines = (begun, {"type": "assistant", "message": said, **about}, reply.whole())
    return "".join(compact(line) + "\n" for line in lines)


def interrupted(reply):
    """SIGINT: exit code 0 all the same, and no answer."""
    if OLD:
        finish(0)
    del reply.fields["result"]
    reply.fields |= {"subtype": "error_during_execution", "is_error": True, "errors": ["interrupted"]}
    finish(0, compact(reply.whole()) + "\n")


def tool(_reply, value):
    """Run a tool for so many seconds, in a session of its own that no signal to us reaches; wait for it."""
    child = os.fork()
    if not child:
        os.setsid()
        for handle in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), handle)
        os.execv("/bin/sh", ["sh", "-c", f"sleep {float(value)}; :"])
    os.waitpid(child, 0)


def hold(_reply, value):
    """Leave a grandchild behind that holds stdout and stderr open for so many seconds."""
    if not os.fork():
        os.setsid()
        if not os.fork():
            time.sleep(float(value))
        os._exit(0)


def flood(_reply, value):
    """`stdout BYTES` or `stderr BYTES`: so much rubbish; 0 is without end."""
    handle, _, size = value.partition(" ")
    left = int(size) or sys.maxsize
    while left > 0:
        write(2 if handle == "stderr" else 1, b"x" * min(left, 65_536))
        left -= 65_536


WORDS = {
    "say": Reply.say,
    "big": lambda reply, value: reply.say("x" * int(value)),
    "history": lambda reply, _value: reply.say(json.dumps(reply.session.texts())),
    "wait": lambda _reply, value: time.sleep(float(value)),
    "fail": Reply.fail,
    "turns": Reply.out_of_turns,
    "tool": tool,
    "hold": hold,
    "flood": flood,
    "exit": lambda _reply, value: finish(int(value or 1)),
    "stderr": lambda _reply, value: finish(1, err=value + "\n"),
    "half": lambda reply, _value: finish(0, compact(reply.whole())[:80]),
    "garbage": lambda _reply, _value: finish(0, "this is no JSON\n"),
    "session": lambda reply, value: setattr(reply.session, "name", value),
    "hang": lambda _reply, _value: time.sleep(1e6),
    "stop": lambda _reply, _value: os.kill(os.getpid(), signal.SIGSTOP),
    "die": lambda _reply, value: os.kill(os.getpid(), int(value or signal.SIGKILL)),
    "stubborn": lambda _reply, _value: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "deaf": lambda _reply, _value: None,
}
AT_ONCE = {"exit", "stubborn", "deaf"}  # in STANDIN these are done before stdin is read; `deaf`: it never is


def pieces(text):
    """The text before the first `[[`, then what is within and what follows each; unknown words are text."""
    head, *rest = text.split("[[")
    found = [head]
    for piece in rest:
        within, close, after = piece.partition("]]")
        word, _, value = within.partition(" ")
        found += [(word, value), after] if close and word in WORDS else ["[[" + piece]
    return found


def directives(text):
    """Each `[[word value]]`, in order."""
    return [piece for piece in pieces(text) if isinstance(piece, tuple)]


def plain(text):
    """The text without its directives."""
    return "".join(piece for piece in pieces(text) if isinstance(piece, str)).strip()
