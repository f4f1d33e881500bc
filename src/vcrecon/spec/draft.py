"""A spec in the making: tables that fill up, where each entry came from, and what is known to be missing.

Made by `spec.load`, filled by `spec.hosts` and `spec.guests`, judged by `spec.check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal, TypeVar

from vcrecon.spec.findings import At, Findings
from vcrecon.spec.model import Build, Cluster, Container, Guest, Hook, Image, Network, Provisioning, Service, System
from vcrecon.spec.values import expand_range, label, range_length, shorten

SITE, IMAGES, CONTAINERS = "site.yaml", "images.yaml", "containers.yaml"
CLUSTERS, DEPLOYMENT = "clusters.yaml", "deployment.yaml"

Kind = Literal["image", "system", "build", "container", "network", "cluster", "guest", "service", "template"]
Value = TypeVar("Value")


@dataclass(slots=True)
class Draft:
    """What is expanded so far. A kind in `gaps` is incomplete, so a name missing there proves nothing."""

    directory: Path
    findings: Findings
    images: dict[str, Image] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)
    builds: dict[str, Build] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    guests: dict[str, Guest] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    subnets: dict[str, IPv4Network] = field(default_factory=dict)
    provisioning: IPv4Network | None = None
    boot: Provisioning | None = None
    """The whole of 'provisioning' in site.yaml."""
    gaps: set[Kind] = field(default_factory=set)
    interfaces_at: dict[str, list[At]] = field(default_factory=dict)
    secrets: dict[Path, str | None] = field(default_factory=dict)
    """Every password file read: the SHA-256 of its content, or None when it is not usable."""
    hooks: dict[str, tuple[Hook, ...]] = field(default_factory=dict)
    """Every hook path read, as the spec writes it."""
    _at: dict[tuple[Kind, str], At] = field(default_factory=dict)

    def at(self, kind: Kind, name: str) -> At:
        """Where the entry called `name` stands."""
        return self._at[kind, name]

    def attempt(self, at: At, read: Callable[[str], Value], text: str) -> Value | None:
        """`read(text)`, or None once the ValueError is noted at `at`."""
        try:
            return read(text)
        except ValueError as error:
            self.findings.error(at, str(error))
            return None

    def claim(self, kind: Kind, name: str, at: At) -> bool:
        """Take `name` for a new entry; False once it is noted that the name is bad or taken."""
        if self.attempt(at, lambda text: label(text, kind), name) is None:
            self.gaps.add(kind)
            return False
        first = self._at.get((kind, name))
        if first is not None:
            also = self.findings.where(first)
            self.findings.error(at, f"duplicate {kind} name {name!r}; also at {also}; rename one of them")
            return False
        self._at[kind, name] = at
        return True

    def spread(self, at: At, text: str, like: str = "", length: int | None = None) -> list[str] | None:
        """The values of a range; None once it is noted that it is malformed or not `length` long."""
        # A range of the wrong length is never expanded: a file has room for a hundred thousand of the longest.
        found = self.attempt(at, range_length, text)
        if found is not None and length is not None and found != length:
            self.findings.error(
                at,
                f"{shorten(text)} has {_count(found)} and {like} has {_count(length)}; "
                "ranges advance in step, so make them equally long",
            )
            return None
        return None if found is None else expand_range(text)

    def unknown(self, at: At, kind: Kind, name: str, known: Iterable[str]) -> None:
        """Note that `name` is not one of `known`, unless entries of this kind are missing by error anyway."""
        if kind in self.gaps:
            return
        hint = self.findings.did_you_mean(name, known) or f"; {_WHERE[kind]}"
        self.findings.error(at, f"unknown {kind} {shorten(name)}{hint}")


_WHERE: dict[Kind, str] = {
    "image": f"add it to {IMAGES}",
    "system": f"add it to 'systems' in {IMAGES}",
    "build": f"add it to 'builds' in {IMAGES}",
    "container": f"add it to {CONTAINERS}",
    "network": f"add it to 'networks' in {SITE}",
    "cluster": f"add it to 'clusters' in {CLUSTERS}",
    "guest": f"add it to {CLUSTERS}, or remove it here",
    "service": f"add it to 'services' in {SITE}",
    "template": "add it to 'templates' of the same file",
}


def _count(number: int) -> str:
    return f"{number} value" if number == 1 else f"{number} values"
