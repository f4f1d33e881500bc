"""Images, extra networks, services and containers: from their text to models. Called by `spec.load`."""

from __future__ import annotations

from dataclasses import replace

from vcrecon.spec.bare_metal import layout, macs_of, powers_of
from vcrecon.spec.draft import CONTAINERS, IMAGES, SITE, Draft
from vcrecon.spec.findings import At
from vcrecon.spec.model import AllowRule, Artifact, Container, Image, Network, Service
from vcrecon.spec.text import (
    AllowText,
    ArtifactText,
    ContainerFields,
    ContainersFile,
    ContainerText,
    ImagesFile,
    NetworkText,
    SiteFile,
    Text,
)
from vcrecon.spec.values import ipv4, port, shorten, subnet

SSH_PORT = 22
CONTAINERS_MAX = 10_000


def expand_images(draft: Draft, text: ImagesFile) -> None:
    """Fill `draft.images`."""
    for name, image in text.images.items():
        at = At(IMAGES, ("images", name))
        if not draft.claim("image", name, at.name()):
            continue
        optional = {} if image.cmdline is None else {"cmdline": image.cmdline}
        draft.images[name] = Image(
            name=name,
            root=Artifact(image.root.url, image.root.sha256),
            disk_bytes=image.disk,
            kernel=_artifact(image.kernel),
            initrd=_artifact(image.initrd),
            **optional,
        )
        if image.initrd is not None and image.kernel is None:
            draft.findings.error(at / "initrd", "initrd without a kernel; give the kernel it belongs to")


def _artifact(text: ArtifactText | None) -> Artifact | None:
    return None if text is None else Artifact(text.url, text.sha256)


def expand_site(draft: Draft, text: SiteFile) -> None:
    """Fill `draft.provisioning`, `draft.services` and the site's own part of `draft.networks`."""
    provisioning_at = At(SITE, ("provisioning", "network"))
    draft.provisioning = draft.attempt(provisioning_at, subnet, text.provisioning.network)
    for name, service in text.services.items():
        at = At(SITE, ("services", name))
        address = draft.attempt(at / "address", ipv4, service.address)
        if draft.claim("service", name, at.name()) and address is not None:
            draft.services[name] = Service(name, str(address), service.port, service.to)
    for name, network in text.networks.items():
        _network(draft, name, network)


def _network(draft: Draft, name: str, text: NetworkText) -> None:
    at = At(SITE, ("networks", name))
    span = draft.attempt(at / "subnet", subnet, text.subnet)
    if not draft.claim("network", name, at.name()) or span is None:
        draft.gaps.add("network")
        return
    gateway = None
    if text.gateway is not None:
        address = draft.attempt(at / "gateway", ipv4, text.gateway)
        if address is not None and (address not in span or address in (span.network_address, span.broadcast_address)):
            draft.findings.error(at / "gateway", f"gateway {address} is not a host address of {span}")
        gateway = None if address is None else str(address)
    elif text.allow:
        draft.findings.error(at / "allow", "allow needs a gateway: without one nothing leaves this network")
    rules = tuple(
        rule
        for index, allow in enumerate(text.allow)
        if (rule := _allow(draft, allow, at / "allow" / index)) is not None
    )
    draft.networks[name] = Network(name, text.vlan, str(span), None, gateway, rules)
    draft.subnets[name] = span


def _allow(draft: Draft, text: AllowText, at: At) -> AllowRule | None:
    to = draft.attempt(at / "to", subnet, text.to if "/" in text.to else f"{text.to}/32")
    if to is None:
        return None
    if draft.provisioning is not None and to.subnet_of(draft.provisioning):
        draft.findings.error(
            at / "to",
            f"{to} is in the provisioning network {draft.provisioning}: guests must not reach containers; "
            "offer what they need under 'services'",
        )
    return AllowRule(str(to), text.tcp, text.udp, text.roles)


def expand_containers(draft: Draft, text: ContainersFile) -> None:
    """Fill `draft.containers`: every entry's ranges advance in step."""
    count = 0
    for index, entry in enumerate(text.containers):
        at = At(CONTAINERS, ("containers", index))
        names = draft.spread(at / "name", entry.name)
        count += len(names or ())
        if count > CONTAINERS_MAX:
            draft.findings.error(at, f"this makes more than {CONTAINERS_MAX:,} containers; check the ranges")
            draft.gaps.add("container")
            return
        layers: list[ContainerFields] = [entry]
        if entry.template is not None:
            template = text.templates.get(entry.template)
            if template is None:
                draft.unknown(at / "template", "template", entry.template, text.templates)
            else:
                layers.append(template)
        layers.append(text.defaults)
        _containers(draft, entry, names, layers, at)


def _containers(
    draft: Draft, entry: ContainerText, names: list[str] | None, layers: list[ContainerFields], at: At
) -> None:
    merged = _merge(layers)
    count = None if names is None else len(names)
    addresses = draft.spread(at / "address", entry.address, f"name {shorten(entry.name)}", count)
    port_text = merged.port or str(SSH_PORT)
    one_port = "[" not in port_text
    like = f"name {shorten(entry.name)}"
    ports = draft.spread(at / "port", port_text, like, None if one_port else count)
    missing = [key for key in _REQUIRED if getattr(merged, key) is None]
    if missing and "container" not in draft.gaps:
        keys = ", ".join(missing)
        draft.findings.error(at, f"no {keys} for {shorten(entry.name)}; give it here, in a template or in defaults")
    if names is None or addresses is None or ports is None or missing:
        draft.gaps.add("container")
        return
    macs = macs_of(draft, entry, names, at)
    powers = powers_of(draft, merged.power, names, at / "power")
    disks = layout(draft, merged.disks, at / "disks")
    for index, name in enumerate(names):
        address = draft.attempt(at / "address", ipv4, addresses[index])
        number = draft.attempt(at / "port", port, ports[0 if one_port else index])
        if not draft.claim("container", name, at / "name") or address is None or number is None:
            draft.gaps.add("container")
            continue
        draft.containers[name] = replace(
            _container(name, str(address), number, merged), mac=macs[index], power=powers[index], layout=disks
        )


_REQUIRED = ("memory", "cores", "disk", "trunk", "volume_group")


def _merge(layers: list[ContainerFields]) -> ContainerFields:
    merged: dict[str, object] = {}
    for layer in reversed(layers):
        for key in ContainerFields.model_fields:
            value, below = getattr(layer, key), merged.get(key)
            if isinstance(value, Text) and isinstance(below, Text):
                # 'disks' and 'power': their own fields are merged likewise
                value = below.model_copy(update={name: getattr(value, name) for name in value.model_fields_set})
            if value is not None:
                merged[key] = value
    return ContainerFields.model_construct(**merged)  # type: ignore[arg-type]


def _container(name: str, address: str, port_number: int, fields: ContainerFields) -> Container:
    return Container(
        name=name,
        address=address,
        port=port_number,
        hypervisor=fields.hypervisor or "kvm",
        memory_bytes=fields.memory or 0,
        cores=fields.cores or 0,
        disk_bytes=fields.disk or 0,
        trunk=fields.trunk or "",
        volume_group=fields.volume_group or "",
        pool=fields.pool or "guests",
        generation=fields.generation or "1",
        system=fields.system,
    )
