"""The command `dashboards`: writes what Prometheus and Grafana read. The files are made by `python -m dashboards`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from vcrecon.cli.serve import DEFAULT_LISTEN, parse_listen
from vcrecon.cli.shipped import shipped
from vcrecon.errors import Refused

DEFAULT_PROMETHEUS = "http://127.0.0.1:9090"
DEFAULT_DIRECTORY = "/etc/vcrecon/grafana"
"""What the provisioning file names; replaced by the directory that is written."""


def dashboards(
    write: Annotated[
        Path | None, typer.Option("--write", metavar="DIR", help="Write them below this directory.", show_default=False)
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where `vcrecon run --listen` serves metrics.")
    ] = DEFAULT_LISTEN,
    prometheus: Annotated[
        str, typer.Option("--prometheus", metavar="URL", help="Where Grafana finds Prometheus.")
    ] = DEFAULT_PROMETHEUS,
) -> None:
    """List or write Grafana's dashboards, its provisioning, Prometheus' configuration, rules, and the runbook.

    What is there under the same names is overwritten; nothing else in the directory is touched.
    """
    source = shipped("grafana")
    if parse_listen(listen) is None:
        raise typer.BadParameter("--listen none: metrics must be served somewhere, such as " + DEFAULT_LISTEN)
    if write is None:
        for path in sorted(source.rglob("*.*")):
            typer.echo(path.relative_to(source))
        typer.echo("To write them: vcrecon dashboards --write DIR")
        return
    target = write.absolute()
    changes = {
        Path("prometheus.yml"): (DEFAULT_LISTEN, listen),
        Path("provisioning/datasources/vcrecon.yaml"): (DEFAULT_PROMETHEUS, prometheus),
        Path("provisioning/dashboards/vcrecon.yaml"): (DEFAULT_DIRECTORY, str(target)),
    }
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
        shutil.copyfile(shipped("runbook.md"), target / "runbook.md")
        for name, (default, given) in changes.items():
            path = target / name
            path.write_text(path.read_text(encoding="utf-8").replace(default, given), encoding="utf-8")
    except (OSError, shutil.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Refused(f"{target}: cannot write there: {why}; name another directory") from None
    typer.echo(
        f"Written below {target}. Then:\n"
        f"  prometheus --config.file={target}/prometheus.yml\n"
        f"  cp -r {target}/provisioning/. /etc/grafana/provisioning/   # and restart Grafana\n"
        f"What to do when an alert fires: {target}/runbook.md"
    )
