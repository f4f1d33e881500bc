"""Checks between entries and files: what must be unique, fit and be placed. Called by `spec.load`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network

from vcrecon.spec.draft import CLUSTERS, CONTAINERS, DEPLOYMENT, IMAGES, SITE, Draft, Kind
from vcrecon.spec.findings import At
from vcrecon.spec.model import Container, Guest, Image
from vcrecon.spec.text import DeploymentFile
from vcrecon.spec.values import human_bytes, ipv4

CORES_OVERCOMMIT = 4
"""Guest cores that one core of a container may stand for; `vcrecon place` keeps to it, more is a warning."""


def disk_needed_bytes(guests: list[Guest], images: Mapping[str, Image]) -> int:
    """Space for `guests` in a volume group: their disks, and one golden volume for each image in use."""
    golden = {guest.image for guest in guests}
    return sum(guest.disk_bytes for guest in guests) + sum(images[name].disk_bytes for name in golden)


def check_site(draft: Draft) -> None:
    """Networks, services, containers and names: unique and apart from each other."""
    if not draft.containers and "container" not in draft.gaps:
        draft.findings.error(At(CONTAINERS, ("containers",)), "there are no containers; add the hosts you have")
    if not draft.guests and "guest" not in draft.gaps:
        fix = "add clusters or guests; to stop everything use 'vcrecon pause' instead"
        draft.findings.error(At(CLUSTERS), f"there are no guests; {fix}")
    if not draft.images and "image" not in draft.gaps:
        draft.findings.error(At(IMAGES, ("images",)), "there are no images; add at least one")
    _vlans(draft)
    _overlaps(draft)
    _services(draft)
    _allow_rules(draft)
    _containers(draft)
    _interfaces(draft)
    _one_name_space(draft)


def _network_at(draft: Draft, name: str, key: str) -> At:
    """Where a network's `key` stands: in site.yaml, or with its cluster."""
    at = draft.at("network", name)
    return (At(at.file, at.path) if at.file == SITE else At(at.file, at.path[:-1])) / key


def _vlans(draft: Draft) -> None:
    first: dict[int, str] = {}
    for network in draft.networks.values():
        taken = first.setdefault(network.vlan, network.name)
        if taken != network.name:
            also = draft.findings.where(_network_at(draft, taken, "vlan"))
            draft.findings.error(
                _network_at(draft, network.name, "vlan"),
                f"VLAN {network.vlan} of {network.name!r} is taken by {taken!r}; also at {also}; "
                "give each network its own",
            )


def _overlaps(draft: Draft) -> None:
    spans: list[tuple[IPv4Network, str, At]] = []
    if draft.provisioning is not None:
        spans.append((draft.provisioning, "the provisioning network", At(SITE, ("provisioning", "network"))))
    for subnet_name, subnet in draft.subnets.items():
        spans.append((subnet, repr(subnet_name), _network_at(draft, subnet_name, "subnet")))
    spans.sort(key=lambda item: (int(item[0].network_address), item[0].prefixlen))
    widest: tuple[IPv4Network, str, At] | None = None
    for span, name, at in spans:
        if widest is not None and span.network_address <= widest[0].broadcast_address:
            also = draft.findings.where(widest[2])
            draft.findings.error(
                at, f"subnet {span} of {name} overlaps {widest[0]} of {widest[1]}; also at {also}; move one"
            )
        if widest is None or span.broadcast_address > widest[0].broadcast_address:
            widest = (span, name, at)


def _services(draft: Draft) -> None:
    taken: dict[tuple[str, int], At] = {}
    spans = dict(draft.subnets)
    if draft.provisioning is not None:
        spans["provisioning"] = draft.provisioning
    for service in draft.services.values():
        at = At(SITE, ("services", service.name, "address"))
        for name, span in spans.items():
            if ipv4(service.address) in span:
                draft.findings.error(
                    at,
                    f"service address {service.address} lies in {span} ({name}); choose one outside every "
                    "subnet: each container answers on it",
                )
        first = taken.setdefault((service.address, service.port), at)
        if first is not at:
            also = draft.findings.where(first)
            draft.findings.error(
                at, f"{service.address} port {service.port} is taken; also at {also}; choose another port"
            )


def _allow_rules(draft: Draft) -> None:
    private = [(name, span) for name, span in draft.subnets.items() if draft.networks[name].cluster]
    for network in draft.networks.values():
        for index, rule in enumerate(network.allow):
            to = IPv4Network(rule.to)
            for name, span in private:
                if to.subnet_of(span):
                    draft.findings.error(
                        At(SITE, ("networks", network.name, "allow", index, "to")),
                        f"{to} is in cluster {name!r}: clusters must not reach each other; remove the rule",
                    )


def container_at(draft: Draft, name: str, key: str) -> At:
    """Where a container's `key` stands, or its entry when the key comes from a template or the defaults."""
    return At(CONTAINERS, draft.at("container", name).path[:-1]) / key


def _containers(draft: Draft) -> None:
    first: dict[tuple[str, int], str] = {}
    for container in draft.containers.values():
        at = container_at(draft, container.name, "address")
        taken = first.setdefault((container.address, container.port), container.name)
        if taken != container.name:
            also = draft.findings.where(container_at(draft, taken, "address"))
            draft.findings.error(
                at, f"address {container.address} of {container.name!r} is that of {taken!r}; also at {also}"
            )
        span = draft.provisioning
        if span is None:
            continue
        address = ipv4(container.address)
        if address not in span:
            where = draft.findings.where(At(SITE, ("provisioning", "network")))
            draft.findings.error(at, f"address {address} is outside the provisioning network {span} (see {where})")
        elif address in (span.network_address, span.broadcast_address):
            which = "network" if address == span.network_address else "broadcast"
            draft.findings.error(at, f"{address} is the {which} address of {span}; choose a host address")


def _interfaces(draft: Draft) -> None:
    macs: dict[str, tuple[str, At]] = {}
    addresses: dict[str, tuple[str, At]] = {}
    for container in draft.containers.values():
        if container.mac is not None:
            at = container_at(draft, container.name, "mac")
            owner, owner_at = macs.setdefault(container.mac, (container.name, at))
            if owner != container.name:
                _taken(draft, f"MAC {container.mac}", container.name, at, owner, owner_at)
    for guest in draft.guests.values():
        for interface, at in zip(guest.interfaces, draft.interfaces_at[guest.name], strict=True):
            mine = (guest.name, at)
            owner, owner_at = macs.setdefault(interface.mac, mine)
            if macs[interface.mac] is not mine:
                _taken(draft, f"MAC {interface.mac}", guest.name, at, owner, owner_at)
            if interface.address is None:
                continue
            bare = interface.address.partition("/")[0]
            owner, owner_at = addresses.setdefault(bare, mine)
            if addresses[bare] is not mine:
                _taken(draft, f"address {bare}", guest.name, at, owner, owner_at)


def _taken(draft: Draft, what: str, name: str, at: At, owner: str, owner_at: At) -> None:
    also = draft.findings.where(owner_at)
    draft.findings.error(at, f"{what} of {name!r} is taken by {owner!r}; also at {also}; change one of them")


def _one_name_space(draft: Draft) -> None:
    """Commands take a guest, a cluster or a container by its bare name, so no two may share one."""
    tables: tuple[tuple[Kind, Mapping[str, object]], ...] = (
        ("container", draft.containers),
        ("cluster", draft.clusters),
    )
    for name in draft.guests:
        for kind, table in tables:
            if name in table:
                also = draft.findings.where(draft.at(kind, name))
                draft.findings.error(draft.at("guest", name), f"guest {name!r} is named like a {kind}; also at {also}")
    for name in draft.clusters:
        if name in draft.containers:
            also = draft.findings.where(draft.at("container", name))
            draft.findings.error(
                draft.at("cluster", name), f"cluster {name!r} is named like a container; also at {also}"
            )


def check_deployment(
    draft: Draft, text: DeploymentFile, *, require_placement: bool, complete: bool
) -> dict[str, tuple[str, ...]]:
    """The deployment with every container in it. Without `require_placement`, what `place` can mend is
    a warning; with `complete` false, a guest that is nowhere proves nothing."""
    placed: dict[str, At] = {}
    deployment: dict[str, tuple[str, ...]] = dict.fromkeys(draft.containers, ())
    for container, names in text.deployment.items():
        at = At(DEPLOYMENT, ("deployment", container))
        if container not in draft.containers:
            draft.unknown(at.name(), "container", container, draft.containers)
        known = []
        for index, name in enumerate(names):
            first = placed.setdefault(name, at / index)
            if name not in draft.guests:
                draft.unknown(at / index, "guest", name, draft.guests)
            elif first != at / index:
                also = draft.findings.where(first)
                draft.findings.error(
                    at / index, f"guest {name!r} is placed twice; also at {also}; a guest has one container"
                )
            else:
                known.append(name)
        deployment[container] = tuple(known)
    for index, container in enumerate(text.cordoned):
        if container not in draft.containers:
            draft.unknown(At(DEPLOYMENT, ("cordoned", index)), "container", container, draft.containers)
    report = draft.findings.error if require_placement else draft.findings.warning
    for at, message in _pins(draft, placed):
        report(at, message)
    if complete:
        for name in draft.guests:
            if name not in placed:
                where = draft.findings.where(draft.at("guest", name))
                message = f"guest {name!r} ({where}) is on no container; run 'vcrecon place' to place it"
                report(At(DEPLOYMENT, ("deployment",)).name(), message)
    for container, names in deployment.items():
        if container in draft.containers and names:
            guests = [draft.guests[name] for name in names]
            at = At(DEPLOYMENT, ("deployment", container)).name()
            for message in _overfull(draft, draft.containers[container], guests):
                report(at, message)
            _shared(draft, container, guests, at)
    return deployment


def _pins(draft: Draft, placed: dict[str, At]) -> Iterator[tuple[At, str]]:
    for guest in draft.guests.values():
        if guest.pinned is None:
            continue
        if guest.pinned not in draft.containers:
            at = draft.at("guest", guest.name)
            at = At(at.file, at.path[:-1] if at.path[-1] == "name" else at.path) / "pinned"
            draft.unknown(at, "container", guest.pinned, draft.containers)
            continue
        at_placed = placed.get(guest.name)
        if at_placed is not None and at_placed.path[1] != guest.pinned:
            where = draft.findings.where(draft.at("guest", guest.name))
            yield (
                at_placed,
                f"guest {guest.name!r} is pinned to {guest.pinned!r} (see {where}) and cannot be on "
                f"{str(at_placed.path[1])!r}; move it or remove the pin",
            )


def _overfull(draft: Draft, container: Container, guests: list[Guest]) -> Iterator[str]:
    memory = sum(guest.memory_bytes for guest in guests)
    disk = disk_needed_bytes(guests, draft.images)
    for what, need, have in (
        ("memory", memory, container.memory_bytes),
        ("disk, golden images included", disk, container.disk_bytes),
    ):
        if need > have:
            yield (
                f"the guests of {container.name!r} need {human_bytes(need)} of {what}, it has "
                f"{human_bytes(have)}; move some away, or run 'vcrecon place'"
            )


def _shared(draft: Draft, container: str, guests: list[Guest], at: At) -> None:
    cores = sum(guest.cores for guest in guests)
    have = draft.containers[container].cores
    if cores > have * CORES_OVERCOMMIT:
        draft.findings.warning(
            at,
            f"the guests of {container!r} have {cores} cores, more than {CORES_OVERCOMMIT} times its {have}",
        )
    heads = {guest.cluster: guest.name for guest in guests if guest.role == "head"}
    for guest in guests:
        if guest.role == "node" and guest.cluster in heads:
            draft.findings.warning(
                at,
                f"head {heads[guest.cluster]!r} shares {container!r} with its node {guest.name!r}: "
                "one failure takes both; move one",
            )
