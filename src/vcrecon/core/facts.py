"""What a hook is told about its guest: pure values from the spec. Used by `core.wanted` and `host.hooks`.

Nothing here changes with the guest's place: a move must not make its context another one.
"""

from __future__ import annotations

from typing import Any

from vcrecon.spec.model import Guest, Spec

Peer = tuple[str, str | None, str, int, int]
"""Name, address, role, cores, memory in bytes."""


def peers(spec: Spec, cluster: str | None) -> tuple[Peer, ...]:
    """The nodes of a cluster, the head first; without one, every guest of the site by name."""
    names = spec.clusters[cluster].guests if cluster else sorted(spec.guests)
    return tuple(_peer(spec, spec.guests[name]) for name in names)


def _peer(spec: Spec, guest: Guest) -> Peer:
    private = spec.clusters[guest.cluster].network if guest.cluster else None
    mine = (i.address for i in guest.interfaces if i.address and private in (None, i.network))
    address = next(mine, None)
    return guest.name, address.partition("/")[0] if address else None, guest.role, guest.cores, guest.memory_bytes


def facts(spec: Spec, guest: Guest) -> dict[str, Any]:
    """The guest's facts, ready for JSON. Its fields are a contract with the authors of hooks (docs/hooks.md)."""
    return {
        "site": spec.site.name,
        "name": guest.name,
        "hostname": guest.name,
        "role": guest.role,
        "image": guest.image,
        "cores": guest.cores,
        "memory_bytes": guest.memory_bytes,
        "interfaces": [
            {"mac": i.mac, "vlan": i.vlan, "network": i.network, "address": i.address, "gateway": i.gateway}
            for i in guest.interfaces
        ],
        "cluster": _cluster(spec, guest.cluster) if guest.cluster else None,
        "nodes": [
            {"name": name, "address": address, "role": role, "cores": cores, "memory_bytes": memory_bytes}
            for name, address, role, cores, memory_bytes in peers(spec, guest.cluster)
        ],
        "services": [{"name": s.name, "address": s.address, "port": s.port} for s in spec.site.services],
    }


def _cluster(spec: Spec, name: str) -> dict[str, Any]:
    cluster = spec.clusters[name]
    network = spec.networks[cluster.network]
    return {"name": name, "head": cluster.guests[0], "vlan": network.vlan, "subnet": network.subnet}
