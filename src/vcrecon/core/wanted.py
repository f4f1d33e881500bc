"""What the spec wants of a container or guest, in the terms of an observation. Pure; used by the planner.

Digests are over the *inputs* of what the host layer renders, plus a layout number for each renderer: raise
the number when a rendered file, definition or rule set changes, and every host is brought up to date.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from vcrecon.core.facts import peers
from vcrecon.spec.model import Guest, Network, Service, Spec

CONTEXT_LAYOUT = 1
DEFINITION_LAYOUT = 2
FIREWALL_LAYOUT = 4
HOOK_LAYOUT = 1
"""What hooks are told and given; see `core.facts` and `host.hooks`."""
HOOKED = "h"
"""A context digest begins so when hooks took part in it."""

_NAMESPACE = uuid.UUID("6f0b7a4e-6d0f-5f0e-9a53-6f1f3cf7c0de")


def tap(guest: str, vlan: int) -> str:
    """The host side of a guest's interface: 15 characters (IFNAMSIZ), known to the firewall by its prefix."""
    return "vcg" + hashlib.sha256(f"{guest}/{vlan}".encode()).hexdigest()[:12]


def guest_volume(guest: str) -> str:
    """The logical volume of a guest's live disk."""
    return f"vcg-{guest}"


def golden_volume(sha256: str) -> str:
    """The logical volume that holds an unpacked image."""
    return f"vcimg-{sha256[:16]}"


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class WantedBridge:
    """A VLAN's bridge: the service addresses (CIDR /32) it holds, the subnet routed over it, guests' ports."""

    vlan: int
    taps: frozenset[str]
    addresses: frozenset[str]
    routes: frozenset[str]


@dataclass(frozen=True, slots=True)
class GuestPort:
    """What the firewall must know of one guest interface: who may send from it, and where to."""

    tap: str
    mac: str
    vlan: int
    address: str | None
    role: str


@dataclass(frozen=True, slots=True)
class Firewall:
    """The inputs of a container's rule set."""

    ports: tuple[GuestPort, ...]
    networks: tuple[Network, ...]
    services: tuple[Service, ...]
    trunk: str

    @property
    def digest(self) -> str:
        return _digest(FIREWALL_LAYOUT, self)


class Wanted:
    """Lazy look-ups over one spec; make a new one for each generation."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._hosts: dict[str | None, tuple[tuple[str, str], ...]] = {}
        self._contexts: dict[str, str] = {}
        self._definitions: dict[str, str] = {}
        self._peers: dict[str | None, str] = {}

    def uuid(self, guest: str) -> str:
        """The domain UUID of a guest: the same on every container, so a hypervisor refuses two of them."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.spec.site.name}/{guest}"))

    def hosts(self, guest: Guest) -> tuple[tuple[str, str], ...]:
        """(address, name) lines of its /etc/hosts: exactly its cluster's nodes; all guests when it has no cluster."""
        if guest.cluster not in self._hosts:
            names: Iterable[str] = (
                self.spec.clusters[guest.cluster].guests if guest.cluster else sorted(self.spec.guests)
            )
            self._hosts[guest.cluster] = tuple(
                line for name in names for line in self._host_line(self.spec.guests[name])
            )
        return self._hosts[guest.cluster]

    def _host_line(self, guest: Guest) -> Iterable[tuple[str, str]]:
        private = self.spec.clusters[guest.cluster].network if guest.cluster else None
        for interface in guest.interfaces:
            if interface.address and private in (None, interface.network):
                yield interface.address.partition("/")[0], guest.name
                return

    def context(self, guest: Guest) -> str:
        """The digest of everything that contextualization writes into the guest's file system."""
        if guest.name not in self._contexts:
            digest = _digest(
                CONTEXT_LAYOUT,
                self.spec.site.name,
                self.spec.site.services,
                guest.name,
                guest.interfaces,
                guest.authorized_keys,
                guest.root_password.name,
                self.hosts(guest),
            )
            self._contexts[guest.name] = self._hooked(guest, digest) if guest.hooks else digest
        return self._contexts[guest.name]

    def _hooked(self, guest: Guest, digest: str) -> str:
        """The digest of a context with hooks, and with all that they are told."""
        if guest.cluster not in self._peers:
            self._peers[guest.cluster] = _digest(peers(self.spec, guest.cluster))
        told = (guest.role, guest.image, guest.cores, guest.memory_bytes, self._peers[guest.cluster])
        return HOOKED + _digest(HOOK_LAYOUT, digest, told, [(hook.name, hook.sha256) for hook in guest.hooks])

    def definition(self, guest: Guest) -> str:
        """The digest of the virtual machine's definition. A running guest takes a new one at its next start."""
        if guest.name not in self._definitions:
            image = self.spec.images[guest.image]
            self._definitions[guest.name] = _digest(
                DEFINITION_LAYOUT,
                guest.memory_bytes,
                guest.cores,
                guest.interfaces,
                image.kernel and image.kernel.sha256,
                image.initrd and image.initrd.sha256,
                image.cmdline,
            )
        return self._definitions[guest.name]

    def bridges(self, guests: Iterable[Guest]) -> dict[int, WantedBridge]:
        """By VLAN id: the bridges that these guests need on the container they are on."""
        addresses = frozenset(f"{service.address}/32" for service in self.spec.site.services)
        taps: dict[int, set[str]] = {}
        for guest in guests:
            for interface in guest.interfaces:
                taps.setdefault(interface.vlan, set()).add(tap(guest.name, interface.vlan))
        return {
            vlan: WantedBridge(
                vlan, frozenset(taps[vlan]), addresses, frozenset({self.spec.networks_by_vlan[vlan].subnet})
            )
            for vlan in sorted(taps)
        }

    def firewall(self, container: str, guests: Iterable[Guest]) -> Firewall:
        """The inputs of the rule set of `container` while these guests are on it."""
        ports = tuple(
            GuestPort(tap(guest.name, interface.vlan), interface.mac, interface.vlan, interface.address, guest.role)
            for guest in sorted(guests, key=lambda guest: guest.name)
            for interface in guest.interfaces
        )
        vlans = sorted({port.vlan for port in ports})
        return Firewall(
            ports,
            tuple(self.spec.networks_by_vlan[vlan] for vlan in vlans),
            self.spec.site.services,
            self.spec.containers[container].trunk,
        )
