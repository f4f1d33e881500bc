"""What installs of containers need: provisioning, systems, machines' MACs, disks and power. Called by `spec`.

`load` and `hosts` expand text to models here; `check_bare_metal` judges what lies between entries and files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from vcrecon.spec.check import container_at
from vcrecon.spec.draft import IMAGES, SITE, Draft
from vcrecon.spec.findings import At
from vcrecon.spec.model import Artifact, Build, Container, DiskLayout, DiskMatch, Power, Provisioning, System
from vcrecon.spec.recipe import secret_file, spec_path
from vcrecon.spec.text import ContainerText, DisksText, ImagesFile, PowerText, ProvisioningText
from vcrecon.spec.values import escaped, ipv4, mac, shorten

_PROVISIONING = At(SITE, ("provisioning",))


def expand_systems(draft: Draft, text: ImagesFile) -> None:
    """Fill `draft.systems`."""
    for name, system in text.systems.items():
        if draft.claim("system", name, At(IMAGES, ("systems", name)).name()):
            optional = {} if system.cmdline is None else {"cmdline": system.cmdline}
            root = Artifact(system.root.url, system.root.sha256)
            draft.systems[name] = System(name, root, system.hypervisor, **optional)


def expand_builds(draft: Draft, text: ImagesFile) -> None:
    """Fill `draft.builds`."""
    for name, build in text.builds.items():
        at = At(IMAGES, ("builds", name))
        if not draft.claim("build", name, at.name()):
            continue
        if (name == "installer") != (build.kind == "installer"):
            draft.findings.error(at / "kind", "an installer is called 'installer', and nothing else is: there is one")
        if build.hypervisor is not None and build.kind != "container":
            draft.findings.error(at / "hypervisor", f"a {build.kind} is not for one hypervisor; leave it out")
        if "main" not in build.components:
            draft.findings.error(at / "components", "without 'main' there is no system to build; add it")
        packages = tuple(dict.fromkeys(build.packages))
        components = tuple(dict.fromkeys(build.components))
        draft.builds[name] = Build(name, build.kind, build.hypervisor or "kvm", build.suite, components, packages)


def expand_provisioning(draft: Draft, text: ProvisioningText) -> None:
    """Fill `draft.boot`."""
    at = _PROVISIONING
    address = _host(draft, at / "address", text.address, "the master's address")
    gateway = _host(draft, at / "gateway", text.gateway, "gateway")
    dns = [found for i, word in enumerate(text.dns) if (found := draft.attempt(at / "dns" / i, ipv4, word))]
    password = secret_file(draft, at / "root_password", text.root_password) if text.root_password else None
    for key, what in (("interface", "the interface that it serves on"), ("address", "the master's own address on it")):
        needed = text.mode == "managed" or (text.mode == "external" and key == "address")
        if needed and getattr(text, key) is None:
            draft.findings.error((at / "mode"), f"mode {text.mode} needs '{key}': {what}")
    draft.boot = Provisioning(
        network=text.network,
        mode=text.mode,
        interface=text.interface or "",
        address=address or "",
        port=text.port,
        nginx_port=text.nginx_port,
        gateway=gateway,
        dns=tuple(map(str, dns)),
        strangers=_strangers(draft, text),
        images=spec_path(draft.directory, text.images),
        install_deadline_s=text.install_deadline,
        root_password=password,
        kernel_args=text.kernel_args,
    )


def _host(draft: Draft, at: At, text: str | None, what: str) -> str | None:
    """A host address of the provisioning network; None when there is none, or once it is noted what is wrong."""
    address = draft.attempt(at, ipv4, text) if text is not None else None
    span = draft.provisioning
    if address is None:
        return None
    if span is not None and (address not in span or address in (span.network_address, span.broadcast_address)):
        draft.findings.error(at, f"{what} {address} is not a host address of {span}")
    return str(address)


def _strangers(draft: Draft, text: ProvisioningText) -> tuple[str, str] | None:
    if text.strangers is None:
        return None
    at = _PROVISIONING / "strangers"
    first, last = (_host(draft, at / i, word, "stranger's address") for i, word in enumerate(text.strangers))
    if first is None or last is None:
        return None
    if ipv4(first) > ipv4(last):
        draft.findings.error(at, f"{first} is above {last}; write the lower address first")
        return None
    return first, last


def layout(draft: Draft, text: DisksText | None, at: At) -> DiskLayout:
    """How an install uses the disks."""
    if text is None:
        return DiskLayout()
    for index, disk in enumerate(text.match or ()):
        if disk.max is not None and disk.max < disk.min:
            draft.findings.error(at / "match" / index, "max is below min: no disk can fit")
    match = tuple(DiskMatch(m.model, m.serial, m.min, m.max) for m in text.match or ())
    plain = DiskLayout()
    return DiskLayout(match, text.raid or plain.raid, text.root or plain.root_bytes, text.swap or plain.swap_bytes)


def macs_of(draft: Draft, entry: ContainerText, names: Sequence[str], at: At) -> list[str | None]:
    """The MAC of each container of an entry, from `mac` or `macs`."""
    like, nothing = f"name {shorten(entry.name)}", [None] * len(names)
    if entry.mac is not None and entry.macs is not None:
        draft.findings.error(at / "macs", "give either 'mac' or 'macs'")
        return list(nothing)
    if entry.mac is not None:
        words = draft.spread(at / "mac", entry.mac, like, len(names))
    else:
        words = list(entry.macs) if entry.macs is not None else None
        if words is not None and len(words) != len(names):
            draft.findings.error(at / "macs", f"{len(words)} MACs for {len(names)} names; give one for each, in order")
            words = None
    if words is None:
        return list(nothing)
    place = at / "mac" if entry.mac is not None else at / "macs"
    return [
        draft.attempt(place if entry.mac is not None else place / index, mac, word) for index, word in enumerate(words)
    ]


def powers_of(draft: Draft, text: PowerText | None, names: Sequence[str], at: At) -> list[Power]:
    """How each container of an entry is switched on and off."""
    manual = [Power("manual")] * len(names)
    if text is None or text.kind in (None, "manual"):
        if text is not None and text.kind is None:
            draft.findings.error(at, "power without 'kind': redfish, ipmi or manual")
        return manual
    for key in ("address", "credentials"):
        if getattr(text, key) is None:
            draft.findings.error(at, f"{text.kind} needs '{key}'; give it here, in a template or in defaults")
    if text.address is None or text.credentials is None or text.kind is None:
        return manual
    words = draft.spread(at / "address", text.address, f"name {shorten(names[0])}, …", len(names))
    credentials = spec_path(draft.directory, text.credentials)
    _must_be_private(draft, at / "credentials", credentials, text.credentials)
    ca = None
    if text.ca is not None:
        ca = spec_path(draft.directory, text.ca)
        if not os.path.isfile(ca):
            draft.findings.warning(at / "ca", f"{shorten(text.ca)} is not there: the Redfish service cannot be trusted")
    if words is None:
        return manual
    for word in words:
        _power_address(draft, at / "address", text.kind, word)
    return [Power(text.kind, word, credentials, ca) for word in words]


def _power_address(draft: Draft, at: At, kind: str, word: str) -> None:
    if kind == "ipmi":
        if not word or not word.isascii() or not all(part.isalnum() or part == "-" for part in word.replace(".", "")):
            draft.findings.error(
                at, f"{shorten(word)} is not a host; ipmi needs a name or an address such as 10.65.0.11"
            )
        return
    try:
        parts = urlsplit(word)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and word.isascii() and word.isprintable()
        has_password = parts.username is not None or parts.password is not None
    except ValueError:
        known = has_password = False
    if has_password:
        draft.findings.error(at, "a URL must not hold a user or password; put them into the credentials file")
    elif not known:
        draft.findings.error(at, f"{shorten(word)} is not a URL; redfish needs one such as https://10.65.0.11")


def _must_be_private(draft: Draft, at: At, path: Path, written: str) -> None:
    """Warn of a credentials file that is not there, or that others may read (S10)."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        draft.findings.warning(at, f"{shorten(written)} is not there: write user:password into it, and chmod 600")
        return
    if not stat.S_ISREG(mode):
        draft.findings.warning(at, f"{shorten(written)} is not a file that holds user:password")
    elif stat.S_IMODE(mode) & 0o077:
        draft.findings.warning(
            at, f"{shorten(written)} may be read by others than its owner: chmod 600 {escaped(written)}"
        )


def check_bare_metal(draft: Draft) -> None:
    """What lies between provisioning, systems and containers."""
    switches: dict[str, str] = {}
    for container in draft.containers.values():
        _system(draft, container)
        if container.power.kind == "manual":
            continue
        taken = switches.setdefault(container.power.address, container.name)
        if taken != container.name:
            also = draft.findings.where(container_at(draft, taken, "power"))
            draft.findings.error(
                container_at(draft, container.name, "power"),
                f"power address {container.power.address} of {container.name!r} is that of {taken!r}; also at {also}; "
                "to switch one off would switch off the other",
            )
    _dhcp(draft)


def _system(draft: Draft, container: Container) -> None:
    if container.system is None:
        return
    at, system = container_at(draft, container.name, "system"), draft.systems.get(container.system)
    if system is None:
        draft.unknown(at, "system", container.system, draft.systems)
    elif system.hypervisor != container.hypervisor:
        draft.findings.error(
            at,
            f"system {system.name!r} is for {system.hypervisor}, and {container.name!r} is a {container.hypervisor} "
            "container; choose another system, or correct 'hypervisor'",
        )


def _dhcp(draft: Draft) -> None:
    """Addresses that DHCP gives must be one machine's each."""
    boot = draft.boot
    if boot is None:
        return
    machines: dict[str, str] = {}
    for container in draft.containers.values():
        taken = machines.setdefault(container.address, container.name)
        if taken != container.name and container.mac and boot.mode == "managed" and draft.containers[taken].mac:
            also = draft.findings.where(container_at(draft, taken, "address"))
            draft.findings.error(
                container_at(draft, container.name, "address"),
                f"DHCP cannot give {container.address} to both {taken!r} and {container.name!r}; also at {also}",
            )
    if boot.strangers is None:
        return
    first, last = map(ipv4, boot.strangers)
    at = _PROVISIONING / "strangers"
    others = [(container.address, f"of {container.name!r}") for container in draft.containers.values()]
    others += [(boot.address, "the master's own"), (boot.gateway or "", "the gateway's")]
    for address, whose in others:
        if address and first <= IPv4Address(address) <= last:
            draft.findings.error(
                at, f"the range {first} to {last} for strangers holds {address}, {whose}; keep them apart"
            )
