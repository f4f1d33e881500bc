"""The commands that look before they leap: `check`, `plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from vcrecon.cli import options
from vcrecon.cli.output import count, say, say_error, say_json
from vcrecon.errors import Problem, SpecError


def check(specs: options.Specs, as_json: options.Json = False) -> None:
    """Say whether a spec directory is usable, with every finding as file:line:col. Touches no host.

    Exits with 0 when it is, warnings allowed, and with 1 when it is not.
    """
    from vcrecon.spec.load import load

    problems: tuple[Problem, ...]
    try:
        loaded = load(specs)
    except SpecError as error:
        if as_json:
            _check_json(False, error.problems)
        else:
            say_error(error)
        raise typer.Exit(1) from None
    problems = loaded.warnings
    if as_json:
        _check_json(True, problems)
        return
    say([str(problem) for problem in problems], to_stderr=True)
    spec = loaded.spec
    found = ", ".join(
        (
            count(len(spec.containers), "container"),
            count(len(spec.clusters), "cluster"),
            count(len(spec.guests), "guest"),
        )
    )
    odd = f"; {count(len(problems), 'warning')}" if problems else ""
    say(f"{spec.site.name}: the spec is valid: {found}{odd}")


def _check_json(valid: bool, problems: tuple[Problem, ...]) -> None:
    findings = [
        {
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "severity": problem.severity,
            "message": problem.message,
        }
        for problem in problems
    ]
    say_json({"valid": valid, "problems": findings})


def plan(
    specs: options.Specs,
    state: options.State = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every command in full.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show what would be done, and do nothing: looks at every container once, changes none.

    Exits with 0 when everything is as the spec wants, with 2 when changes are pending (blocked ones and
    unreachable containers count), and with 1 on an error.
    """
    import asyncio

    from vcrecon.cli import plan_view
    from vcrecon.cli.target import default_state
    from vcrecon.preview import plan_once
    from vcrecon.settings import Settings
    from vcrecon.shell.log import configure

    configure(level="error")
    directory = default_state(specs, state)
    report = asyncio.run(plan_once(specs, directory, settings=Settings.from_environment()))
    if as_json:
        say_json(plan_view.as_json(report))
    else:
        say(plan_view.render(report, verbose=verbose))
    code = plan_view.exit_code(report)
    if code:
        raise typer.Exit(code)
