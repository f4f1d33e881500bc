"""Writes a copy of a spec directory that leads to the lab's machines. Called by `lab.up`.

Only what binds a spec to its hosts is rewritten: the site's name, addresses, keys, image URLs and digests.
Comments and everything else stay, so that the user edits the same files as at a real site.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcrecon.lab import boot_files, layout
from vcrecon.lab.layout import MachinePlan
from vcrecon.spec.load import load
from vcrecon.spec.rewrite import rewrite

# Names of interfaces as the lab's other containers have them (eth1 is the trunk), and a quiet serial line.
_SYSTEM_CMDLINE = "console=ttyS0 mitigations=off net.ifnames=0 no_timer_check quiet"
# Where a machine is emulated beside others, its timer may be so late that a kernel that checks it panics.
_INSTALLER_ARGS = "mitigations=off no_timer_check"

_SPARE_MEMORY, _SPARE_DISK, _SPARE_ROOT = "1GiB", "6GiB", "4GiB"


def write_specs(
    source: Path, target: Path, *, site: str, machines: Sequence[MachinePlan], artifacts: Mapping[str, tuple[str, str]],
    public_key: str,
) -> None:  # fmt: skip
    """Copy `source` to `target` and rewrite the bindings. `artifacts`: part of an image to (URL, SHA-256)."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    rewrite(target / "site.yaml", lambda document: _bind_site(document, site, public_key))
    rewrite(target / "containers.yaml", lambda document: _bind_containers(document, machines))
    rewrite(target / "images.yaml", lambda document: _bind_images(document, artifacts))


def offer_installs(specs: Path, boot: Path, sha256: str) -> None:
    """Let the spec install spare machines from the directory `boot`, whose system image has this SHA-256."""
    provisioning = {
        "mode": "managed",
        "interface": layout.VETH,
        "address": layout.THIS_MACHINE,
        "strangers": list(layout.STRANGERS),
        "images": str(boot),
        "kernel_args": _INSTALLER_ARGS,
    }
    url = f"http://{layout.THIS_MACHINE}:{layout.BOOT_PORT}/images/{boot_files.system_file(specs).name}"
    system = {"root": {"url": url, "sha256": sha256}, "hypervisor": "kvm", "cmdline": _SYSTEM_CMDLINE}
    found = load(specs).spec
    known = found.systems.get(boot_files.SYSTEM)
    if found.site.provisioning.mode != "managed":
        rewrite(specs / "site.yaml", lambda document: document["provisioning"].update(provisioning))
    if known is None or (known.root.url, known.root.sha256) != (url, sha256):
        systems = {boot_files.SYSTEM: system}
        rewrite(specs / "images.yaml", lambda document: document.setdefault("systems", {}).update(systems))


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
    """Ranges are written out; what an entry says beside its name and address is kept.

    What `defaults` say of memory and disks is for the spare machines, once they are adopted: no other entry uses it.
    """
    defaults = document.setdefault("defaults", {})
    entries: list[dict[str, str | int]] = []
    for machine in machines:
        entries.append({"name": machine.name, "address": machine.address, "hypervisor": machine.hypervisor})
        for key, value in (("volume_group", machine.volume_group), ("pool", machine.pool)):
            if defaults.get(key) != value:
                entries[-1][key] = value
        entries[-1]["memory"] = f"{machine.memory_mib}MiB"
        entries[-1]["disk"] = machine.disk_bytes
    for key in ("system", "power", "template"):
        defaults.pop(key, None)
    defaults["memory"], defaults["disk"] = _SPARE_MEMORY, _SPARE_DISK
    defaults["disks"] = {"root": _SPARE_ROOT}
    defaults["trunk"] = "eth1"
    document["containers"] = entries


def _bind_images(document: Any, artifacts: Mapping[str, tuple[str, str]]) -> None:
    """Every image becomes the lab's one guest image."""
    for image in document["images"].values():
        for part, (url, sha256) in artifacts.items():
            image[part] = {"url": url, "sha256": sha256}
