"""The spec directories and other files that ship with vcrecon. Used by the demo, the lab and `dashboards`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from vcrecon.errors import Refused


def shipped_specs(name: str) -> Path:
    """A spec directory that ships with vcrecon, in an installed package or in a source tree.

    Raises Refused when it is in neither.
    """
    packaged = Path(str(files("vcrecon") / "data" / "specs" / name))
    source = Path(__file__).parents[3] / "specs" / name
    for candidate in (packaged, source):
        if candidate.is_dir():
            return candidate
    raise Refused(f"the spec {name!r} that ships with vcrecon is missing: reinstall vcrecon")


def shipped(name: str) -> Path:
    """`grafana` or `runbook.md`, in an installed package or in a source tree. Raises Refused when it is in neither."""
    data, source = Path(str(files("vcrecon") / "data" / "grafana")), Path(__file__).parents[3]
    places = {"grafana": (data, source / "grafana"), "runbook.md": (data / name, source / "docs" / name)}
    for candidate in places[name]:
        if candidate.exists():
            return candidate
    raise Refused(f"{name} that ships with vcrecon is missing: reinstall vcrecon")
