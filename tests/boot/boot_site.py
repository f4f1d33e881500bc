"""A site that boots its containers, made in code, for the tests of this directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcrecon.core.installs import Ticket
from vcrecon.spec.model import Artifact, Container, Provisioning, Site, Spec, Ssh, System

GIB = 1024**3
NOW_S = 1_800_000_000.0
MAC = "52:54:00:aa:00:01"
SYSTEM = System("base", Artifact("http://10.9.0.1:8067/images/base.tar.zst", "e" * 64), "kvm")


def a_container(name: str = "c1", **changes: Any) -> Container:
    values: dict[str, Any] = {
        "name": name,
        "address": "10.9.0.11",
        "port": 22,
        "hypervisor": "kvm",
        "memory_bytes": 8 * GIB,
        "cores": 4,
        "disk_bytes": 100 * GIB,
        "trunk": "eno2",
        "volume_group": "vg",
        "pool": "guests",
        "generation": "7",
        "mac": MAC,
        "system": "base",
    }
    return Container(**values | changes)


def a_boot_spec(*containers: Container, digest: str = "one", key: Path = Path("/key"), **provisioning: Any) -> Spec:
    """A site without guests; `provisioning` changes what Provisioning says."""
    values: Mapping[str, Any] = {
        "network": "10.9.0.0/24",
        "mode": "managed",
        "interface": "vcbs0",
        "address": "10.9.0.1",
        "strangers": ("10.9.0.200", "10.9.0.250"),
    }
    site = Site(
        "lab",
        "running",
        Ssh("root", key, Path("/known_hosts")),
        provisioning=Provisioning(**{**values, **provisioning}),
    )
    named = {container.name: container for container in containers or (a_container(),)}
    return Spec(site, {}, named, {}, {}, {}, dict.fromkeys(named, ()), frozenset(), digest, {"base": SYSTEM})


def a_ticket(**changes: Any) -> Ticket:
    """An open ticket of c1, for half an hour from NOW_S."""
    values: dict[str, Any] = {
        "container": "c1",
        "mac": MAC,
        "system": "base",
        "wipe": False,
        "nonce": "nonce-1",
        "opened_at_s": NOW_S,
        "expires_at_s": NOW_S + 1800,
    }
    return Ticket(**values | changes)
