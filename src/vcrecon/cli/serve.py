"""The commands that work on the site: `run`, the service, and `apply`, the same once until converged."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vcrecon.cli import options
from vcrecon.cli.output import count, duration, say, say_json
from vcrecon.cli.target import default_state

if TYPE_CHECKING:
    from pathlib import Path

    from vcrecon.cli.progress import Progress

DEFAULT_LISTEN = "127.0.0.1:9620"

Confirm = Annotated[
    bool,
    typer.Option("--confirm", help="Your word for a spec that stops many guests (see `plan`)."),
]
Listen = Annotated[
    str,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        help="Where the web page, /metrics, /healthz and /readyz answer; port 0 takes a free one, `none` switches "
        "them off. All are read-only; an empty HOST lets the whole network read.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def run(
    specs: options.Specs,
    state: options.State = None,
    listen: Listen = DEFAULT_LISTEN,
    confirm: Confirm = False,
    quiet: Quiet = False,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = "auto",
) -> None:
    """Run the service: make the site what the spec says, and keep it so, until SIGTERM or Ctrl-C.

    A change of the spec files takes effect at once; a wrong one changes nothing.
    """
    address = parse_listen(listen)
    # Under systemd the log lines tell the same story already.
    is_quiet = quiet or "INVOCATION_ID" in os.environ
    with _progress(is_quiet, to_stderr=False, log_level=log_level, log_format=log_format) as stack:
        shown = None if is_quiet else stack.progress
        code = _serve(shown, specs, state, listen=address, once=False, confirm=confirm)
    if code:
        raise typer.Exit(code)


def apply(
    specs: options.Specs,
    state: options.State = None,
    listen: Listen = "none",
    confirm: Confirm = False,
    quiet: Quiet = False,
    as_json: options.Json = False,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = "auto",
) -> None:
    """Make the site what the spec says, once, and end when it is so.

    Exits with 0 when it has converged, and with 1 when objects are left that need a person.
    """
    address = parse_listen(listen)
    level = log_level or "warning"
    with _progress(quiet, to_stderr=as_json, log_level=level, log_format=log_format) as stack:
        progress = stack.progress
        code = _serve(progress, specs, state, listen=address, once=True, confirm=confirm)
    if as_json:
        seconds = round(progress.elapsed_s, 3)
        say_json({"converged": code == 0, "seconds": seconds, "status": progress.last})
    else:
        _say_outcome(progress, code)
    if code:
        raise typer.Exit(code)


def parse_listen(text: str) -> tuple[str, int] | None:
    """`HOST:PORT`, `[IPV6]:PORT`, `:PORT` (every address) or `none`. Raises typer.BadParameter."""
    if text == "none":
        return None
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise typer.BadParameter(f"--listen {text}: write an IPv6 address in brackets, as [::1]:9620")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise typer.BadParameter(f"--listen {text}: write HOST:PORT, such as {DEFAULT_LISTEN}, or none")
    return host or "0.0.0.0", int(port)  # noqa: S104 - asked for by an empty host


class _Shown(ExitStack):
    """The progress display and the log, set up together: log lines must not tear the display apart."""

    progress: Progress


def _progress(
    quiet: bool,
    *,
    to_stderr: bool,
    log_level: str | None,
    log_format: Literal["auto", "console", "json"],
) -> _Shown:
    from vcrecon.cli.progress import Progress, SteadyConsole
    from vcrecon.shell.log import configure

    console = SteadyConsole(stderr=to_stderr, quiet=quiet, highlight=False, markup=False, emoji=False)
    live = console.is_terminal and not quiet
    console.soft_wrap = not live
    stack = _Shown()
    stack.progress = stack.enter_context(Progress(console, live=live))
    # Only now: the display puts its own stream in the place of standard error. What it shows need not be
    # logged as well, so by default only warnings are.
    configure(level=log_level or ("warning" if live else "info"), log_format=log_format)
    return stack


def _serve(
    progress: Progress | None,
    specs: Path,
    state: Path | None,
    *,
    listen: tuple[str, int] | None,
    once: bool,
    confirm: bool,
) -> int:
    from vcrecon.service import serve
    from vcrecon.settings import Settings

    # Absolute, since `cordon` and the like, typed elsewhere, ask the service where its spec is.
    specs = specs.absolute()
    service = serve(
        specs,
        default_state(specs, state).absolute(),
        listen=listen,
        once=once,
        confirm=confirm,
        on_status=progress.update if progress is not None else None,
        settings=Settings.from_environment(),
    )
    return asyncio.run(service)


def _say_outcome(progress: Progress, code: int) -> None:
    from vcrecon.cli import status_view

    status = progress.last
    took = duration(progress.elapsed_s)
    if status is None:
        return
    if code == 0:
        guests, containers = count(len(status["guests"]), "guest"), count(len(status["containers"]), "container")
        say(f"Converged after {took}: {guests} on {containers}, all as the spec wants.")
        return
    say(f"Not converged after {took}:", to_stderr=True)
    say(status_view.render(status), to_stderr=True)
