"""Writes a copy of a spec directory that leads to a simulated site. Called by `sim.site` only.

Only what binds a spec to its hosts is rewritten: addresses, ports, keys, image URLs and digests. Comments and
everything else stay, so that the demo's user edits the same files as at a real site.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcrecon.spec.model import Container
from vcrecon.spec.rewrite import rewrite

CLIENT_KEY = "client_key"
KNOWN_HOSTS = "known_hosts"
LOOPBACK_NETWORK = "127.0.0.0/24"

Artifacts = Mapping[str, tuple[str, str]]
"""Part of an image (root, kernel, initrd) to its URL and SHA-256."""


def write_specs(
    source: Path,
    target: Path,
    *,
    containers: Sequence[tuple[Container, str, int]],
    images: Mapping[str, Artifacts],
) -> None:
    """Copy `source` to `target` (made if needed) and rewrite the bindings. Raises OSError."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    rewrite(target / "containers.yaml", lambda document: _bind_containers(document, containers))
    rewrite(target / "images.yaml", lambda document: _bind_images(document, images))
    rewrite(target / "site.yaml", _bind_site)


def _bind_containers(document: Any, containers: Sequence[tuple[Container, str, int]]) -> None:
    entries = document["containers"]
    originals = {entry.get("name"): entry for entry in entries if isinstance(entry, dict)}
    defaults = document.get("defaults") or {}
    bound = []
    for container, address, port in containers:
        # Keep what the entry says itself; a range's members all get what the range said.
        entry: dict[str, Any] = {"name": container.name, "address": address, "port": port}
        wanted = {
            "hypervisor": container.hypervisor,
            "memory": container.memory_bytes,
            "cores": container.cores,
            "disk": container.disk_bytes,
            "trunk": container.trunk,
            "volume_group": container.volume_group,
            "pool": container.pool,
            "generation": container.generation,
        }
        plain = container.name in originals and "template" not in originals[container.name]
        for key, value in wanted.items():
            told = originals[container.name].get(key) if plain else None
            same = told is None and key in defaults and key not in ("memory", "disk") and defaults[key] == value
            if not same:
                entry[key] = value if told is None else told
        bound.append(entry)
    _shorten(bound, defaults, containers)
    del entries[:]
    entries.extend(bound)


def _shorten(bound: list[dict[str, Any]], defaults: Any, containers: Sequence[tuple[Container, str, int]]) -> None:
    """Leave memory and disk to the defaults when all containers agree, so that the file stays readable."""
    for key, values in (
        ("memory", {container.memory_bytes for container, _, _ in containers}),
        ("disk", {container.disk_bytes for container, _, _ in containers}),
    ):
        if key in defaults and len(values) == 1:
            for entry in bound:
                entry.pop(key, None)
            defaults[key] = values.pop()


def _bind_images(document: Any, images: Mapping[str, Artifacts]) -> None:
    for name, image in document["images"].items():
        for part, (url, sha256) in images.get(name, {}).items():
            if isinstance(image.get(part), dict):
                image[part]["url"] = url
                image[part]["sha256"] = sha256


def _bind_site(document: Any) -> None:
    # The hosts live on loopback, and the spec wants its containers inside the provisioning network.
    document.setdefault("provisioning", {})["network"] = LOOPBACK_NETWORK
    ssh = document.setdefault("ssh", {})
    ssh["key"] = CLIENT_KEY
    ssh["known_hosts"] = KNOWN_HOSTS
    ssh.setdefault("user", "root")
