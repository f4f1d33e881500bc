"""From an observation to a state. Pure; used by `plan`.

A guest that boots stays in the state it was started from until it has answered on its network once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vcrecon.core.memory import Memory
from vcrecon.core.observation import UNKNOWN, NetworkFacts, Seen
from vcrecon.core.states import ContainerState, GuestState
from vcrecon.core.wanted import WantedBridge
from vcrecon.core.world import Sighting


@dataclass(frozen=True, slots=True)
class NetworkGaps:
    """What differs between the wanted and the observed network of a container."""

    vlans: tuple[int, ...] = ()
    leftovers: tuple[int, ...] = ()
    firewall: bool = False

    def __bool__(self) -> bool:
        return bool(self.vlans or self.leftovers or self.firewall)

    def __str__(self) -> str:
        parts = []
        if self.firewall:
            parts.append("the firewall rules are missing or changed")
        if self.vlans:
            parts.append(f"VLAN {', '.join(map(str, self.vlans))} missing or incomplete")
        if self.leftovers:
            parts.append(f"VLAN {', '.join(map(str, self.leftovers))} no longer used")
        return "; ".join(parts)


def network_gaps(bridges: Mapping[int, WantedBridge], firewall: str, facts: NetworkFacts) -> NetworkGaps:
    """Compare bridges by VLAN id and the firewall's digest."""
    missing = []
    for vlan, wanted in bridges.items():
        found = facts.bridges.get(vlan)
        if (
            found is None
            or not (found.up and found.trunked)
            or not wanted.addresses <= found.addresses
            or not wanted.routes <= found.routes
            or wanted.taps & facts.loose
        ):
            missing.append(vlan)
    leftovers = tuple(sorted(facts.bridges.keys() - bridges.keys()))
    return NetworkGaps(tuple(missing), leftovers, facts.firewall != firewall)


def container_state(observation: Seen, gaps: NetworkGaps | None) -> ContainerState:
    """The state of a container that answered; `gaps` is None when its network is not known."""
    if observation.release is UNKNOWN or observation.release is None:
        return ContainerState.PXE
    if gaps is None or gaps.vlans or gaps.firewall:
        return ContainerState.INSTALLED
    return ContainerState.VLAN_READY


def answered(memory: Memory, sighting: Sighting) -> bool:
    """Whether the running domain has answered on its network since it was started."""
    domain = sighting.domain
    return domain is not None and domain.active and memory.answered.get(sighting.guest) == domain.serial


def guest_state(sighting: Sighting | None, memory: Memory, context: str | None) -> GuestState:
    """The state of a guest on one container. `context` is the wanted digest; None when not wanted here."""
    volume = sighting.volume if sighting else None
    if sighting is None or (volume is None and not sighting.active):
        return GuestState.QUARANTINED if sighting and sighting.quarantined else GuestState.PENDING
    if answered(memory, sighting):
        return GuestState.RUNNING
    if volume is None or volume.incoming:
        return GuestState.PENDING
    if volume.held:
        return GuestState.HELD
    if volume.boots > 1 or (volume.boots and not sighting.active):
        return GuestState.STOPPED
    if volume.boots:
        return GuestState.CONTEXTUALIZED  # its first boot is under way
    return GuestState.CONTEXTUALIZED if context in (None, volume.context) and volume.context else GuestState.IMAGED
