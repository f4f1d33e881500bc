"""Writes a copy of a spec directory that leads to the lab's machines. Called by `lab.up`.

Only what binds a spec to its hosts is rewritten: the site's name, addresses, keys, image URLs and digests.
Comments and everything else stay, so that the user edits the same files as at a real site.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcrecon.lab import layout
from vcrecon.lab.layout import MachinePlan
from vcrecon.spec.rewrite import rewrite


def write_specs(
    source: Path, target: Path, *, site: str, machines: Sequence[MachinePlan], artifacts: Mapping[str, tuple[str, str]],
    public_key: str,
) -> None:  # fmt: skip
    """Copy `source` to `target` and rewrite the bindings. `artifacts`: part of an image to (URL, SHA-256)."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    rewrite(target / "site.yaml", lambda document: _bind_site(document, site, public_key))
    rewrite(target / "containers.yaml", lambda document: _bind_containers(document, machines))
    rewrite(target / "images.yaml", lambda document: _bind_images(document, artifacts))


def _bind_site(document: Any, site: str, public_key: str) -> None:
    document["site"] = site
    document.setdefault("provisioning", {})["network"] = layout.PROVISIONING
    ssh = document.setdefault("ssh", {})
    ssh["user"], ssh["key"], ssh["known_hosts"] = "root", "client_key", "known_hosts"
    keys = document.setdefault("defaults", {}).setdefault("authorized_keys", [])
    keys.append(public_key)
    for name, service in (document.get("services") or {}).items():
        port = layout.MIRROR_PORT if name == "mirror" else layout.HANDOUT_PORT
        service["to"] = f"{layout.MIRROR}:{port}"


def _bind_containers(document: Any, machines: Sequence[MachinePlan]) -> None:
    """Ranges are written out; what an entry says beside its name and address is kept."""
    defaults = document.setdefault("defaults", {})
    entries: list[dict[str, str | int]] = []
    for machine in machines:
        entries.append({"name": machine.name, "address": machine.address, "hypervisor": machine.hypervisor})
        for key, value in (("volume_group", machine.volume_group), ("pool", machine.pool)):
            if defaults.get(key) != value:
                entries[-1][key] = value
        entries[-1]["memory"] = f"{machine.memory_mib}MiB"
        entries[-1]["disk"] = machine.disk_bytes
    defaults.pop("memory", None)
    defaults.pop("disk", None)
    defaults["trunk"] = "eth1"
    document["containers"] = entries


def _bind_images(document: Any, artifacts: Mapping[str, tuple[str, str]]) -> None:
    """Every image becomes the lab's one guest image."""
    for image in document["images"].values():
        for part, (url, sha256) in artifacts.items():
            image[part] = {"url": url, "sha256": sha256}
