"""The `ksi-daemon` command: what is asked for, and how the answer is shown."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ksi_daemon import control, monitor, process, settings
from ksi_daemon.client import Unreachable
from ksi_daemon.errors import KsiError, SettingInvalid
from ksi_daemon.settings import Settings

FAILED, USAGE, UNREACHABLE = 1, 2, 3

EXITS: tuple[tuple[type[KsiError], int], ...] = (
    (Unreachable, UNREACHABLE),
    (control.InvalidData, USAGE),
    (SettingInvalid, USAGE),
)
"""The exit code of each error that is not simply 1; docs/commands.md prints them."""

app = typer.Typer(
    help="Run and look after a KSI daemon. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nobody answers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Root = Annotated[
    Path | None, typer.Option("--root", help="The daemon's directory; else KSI_HOME, else this one.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Force = Annotated[bool, typer.Option("--force", help="SIGKILL when nothing else ends it.")]


class RootMissing(SettingInvalid):
    """The root is not there; a misspelt one must not become a new tree."""

    def __init__(self, root: Path) -> None:
        super().__init__("--root", str(root), "a directory that exists")


@app.command()
def run(root: Root = None) -> None:
    """Run a daemon in the foreground until SIGTERM, SIGINT or system:shutdown."""
    with _told("run"):
        code = process.run(_settings(root))
    raise typer.Exit(code)


@app.command()
def start(root: Root = None, *, json: Json = False) -> None:
    """Start a daemon in the background; returns when it accepts requests. Harmless when one runs."""
    with _told("start", json=json):
        found = control.start(_settings(root))
    _show("start", found, _started(found), json=json)


@app.command()
def stop(root: Root = None, *, force: Force = False, json: Json = False) -> None:
    """Stop the daemon when accepted requests are answered and written. Harmless when none runs."""
    with _told("stop", json=json):
        found = control.stop(_settings(root), force=force)
    _show("stop", found, _stopped(found), json=json)


@app.command()
def restart(root: Root = None, *, force: Force = False, json: Json = False) -> None:
    """Stop the daemon, if one runs, and start one."""
    with _told("restart", json=json):
        found = control.restart(_settings(root), force=force)
    _show("restart", found, f"{_stopped(found.stopped)}\n{_started(found.started)}", json=json)


@app.command()
def status(root: Root = None, *, json: Json = False) -> None:
    """Show the daemon, and the stage in force of each component. Exit 0 when it runs and answers, else 1."""
    with _told("status", json=json):
        found = control.status(_settings(root))
    _show("status", found, _status(found), json=json, ok=found.running)


@app.command()
def send(
    event: Annotated[str, typer.Argument(help="The event's name, such as system:health.")],
    data: Annotated[
        str, typer.Option("--data", help="A JSON object; - reads it from standard input.")
    ] = "{}",
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait.")] = 30.0,
    root: Root = None,
) -> None:
    """Send one request and print its reply's data. Exit 1 when it tells an error, 3 when nobody answers."""
    with _told("send"):
        sent = sys.stdin.buffer.read() if data == "-" else data.encode("utf-8", "surrogateescape")
        reply = control.send(_settings(root), event, sent, timeout)
    _print(reply.get("data", reply))
    if control.failed(reply):
        raise typer.Exit(FAILED)


@app.command()
def watch(root: Root = None) -> None:
    """Print each frame that the daemon sends unasked, one a line, until interrupted or the daemon ends."""
    with _told("watch"), contextlib.suppress(KeyboardInterrupt):
        for frame in control.watch(_settings(root)):
            typer.echo(orjson.dumps(frame).decode())
        typer.echo("ksi-daemon: the daemon has hung up", err=True)


@app.command(name="monitor")
def _monitor(
    directory: Annotated[
        Path, typer.Option("--directory", help="Whose newest session is told.", show_default="this one")
    ] = Path(),
    root: Root = None,
) -> None:
    """Tell the newest claude session of a directory what completions come to, until interrupted.

    Each completion frame is sent as claude_cli:inject, so the flags decide which side does it. Exit 1 when
    the directory has no session, 3 when no daemon answers or it has ended.
    """
    with _told("monitor"), contextlib.suppress(KeyboardInterrupt):
        for passed in monitor.watch(_settings(root), directory.resolve(), monitor.projects()):
            word = "told" if passed.ok else "could not tell"
            typer.echo(f"{passed.event}: {word} {passed.session}: {' '.join(passed.text.split())}")
        typer.echo("ksi-daemon: the daemon has hung up", err=True)
        raise typer.Exit(UNREACHABLE)


def main() -> None:
    """Run the command line."""
    app()


def _settings(root: Path | None) -> Settings:
    found = settings.load(root)
    if not found.root.is_dir():
        raise RootMissing(found.root)
    return found


@contextlib.contextmanager
def _told(command: str, *, json: bool = False) -> Iterator[None]:
    """Turn an error into its message and exit code."""
    try:
        yield
    except KsiError as error:
        code = next((code for kind, code in EXITS if isinstance(error, kind)), FAILED)
        _complain(command, error.code, str(error), json=json)
    except OSError as error:
        code = FAILED
        where = f"{error.filename}: " if error.filename else ""
        _complain(command, "io_error", f"{where}{error.strerror or error}".lower(), json=json)
    else:
        return
    raise typer.Exit(code)


def _complain(command: str, code: str, message: str, *, json: bool) -> None:
    typer.echo(f"ksi-daemon: {message}", err=True)
    if json:
        error = {"code": code, "message": message}
        _print({"schema_version": 1, "command": command, "ok": False, "error": error})


def _show(command: str, report: Any, text: str, *, json: bool, ok: bool = True) -> None:
    if json:
        _print({"schema_version": 1, "command": command, "ok": ok, **dataclasses.asdict(report)})
    else:
        typer.echo(text)
    if not ok:
        raise typer.Exit(FAILED)


def _print(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _started(found: control.Started) -> str:
    word = "already running" if found.already else f"started in {found.seconds:.1f} s"
    return f"{word}, pid {found.pid}\nsocket {found.socket}\nlog {found.log}"


def _stopped(found: control.Stopped) -> str:
    if found.pid is None:
        return "not running"
    by = "" if found.how == "asked" else f" by {found.how}"
    return f"stopped{by} in {found.seconds:.1f} s, pid {found.pid}"


def _status(found: control.Status) -> str:
    if found.problem is not None:
        return f"does not answer, pid {found.pid or 'unknown'}: {found.problem}"
    if found.uptime is None:
        return "not running"
    first = f"running, pid {found.pid}, up {_duration(found.uptime)}, version {found.version}"
    width = max(map(len, found.stages))
    return "\n".join([first, *(f"{name:<{width}}  {stage}" for name, stage in found.stages.items())])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    main()
