"""The rules by which a container is installed anew. Pure; called by `plan` for containers that answer and that do not.

A machine is installed without a person's word only when nothing was ever on it as far as anything knows: it was
never seen and the record has no claim on it; and then the installer itself stops at the first thing it finds on a
disk. Everything else takes a consent (`vcrecon reinstall`), and a touched guest's disk one that names it (S2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vcrecon.core.actions import Install, Rouse
from vcrecon.core.decisions import Block, Decision, Do, Wait, backing_off
from vcrecon.core.install_queue import eta_s, progress_words
from vcrecon.core.installs import Netboot, Ticket, progress_of
from vcrecon.core.memory import Claim, Consent, Memory
from vcrecon.core.observation import Observation, Seen, Unseen, Volume
from vcrecon.core.states import ContainerState
from vcrecon.core.world import Sighting, World, not_looked_at
from vcrecon.spec.model import Container, Spec

if TYPE_CHECKING:
    from vcrecon.core.plan import View

NETBOOT_FRESH_S = 60.0
"""A machine in iPXE asks again every few seconds; one that asked longer ago has gone on to something else."""
POLL_S = 5.0

ADVICE: Mapping[str, str] = {
    "disk-not-blank": "its disk holds something; if that may be lost, say `vcrecon reinstall {0}`",
    "no-disk": "it has no disk that can be used: look at its controller and cables",
    "disk-too-small": "no disk is large enough for `disks` in containers.yaml",
    "disk-failing": "its disk is failing: replace it, or name another under `disks: match` in containers.yaml",
    "disk-no-match": "no disk fits `disks: match` in containers.yaml: correct it",
    "no-mirror": "`raid: mirror` needs two like disks: add one, or say `raid: auto` in containers.yaml",
    "download-failed": "it could not fetch its system: look at the boot server and the network",
    "corrupt": "its system does not have the SHA-256 of images.yaml: `vcrecon image verify`",
    "no-space": "its system does not fit: a larger `root` under `disks` in containers.yaml",
    "image-not-a-tree": "its system is no root file system: make it anew with `vcrecon image build container`",
    "image-no-kernel": "its system has no kernel: make it anew with `vcrecon image build container`",
    "boot-loader-failed": "its boot loader could not be written",
    "step-failed": "a step of the installer failed",
    "began-anew": "it started over in the middle of its install",
    "install-stuck": "look at its console; then let it boot from the network, or say `vcrecon reinstall {0}`",
}
"""What the error code of an install means for a person, `{0}` being the container."""

ALIVE = frozenset({"host-key-changed", "permission-denied", "client-key", "key-exchange", "protocol", "dns"})
"""Kinds of silence that do not come from a machine without a system."""
STAYS = frozenset({"disk-not-blank", "install-stuck"})
"""Errors after which nothing is tried again without a person, or a machine that calls by itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of a container; `state` None leaves it as it was last seen. For `hold` see Plan."""

    decision: Decision
    state: ContainerState | None = None
    detail: str = ""
    hold: str = ""


def installable(spec: Spec, container: str) -> bool:
    """Whether vcrecon can install it at all: its MAC and system are known, and provisioning is not off."""
    entry = spec.containers.get(container)
    return bool(entry and entry.mac and entry.system and spec.site.provisioning.mode != "off")


def known(memory: Memory, container: str) -> bool:
    """Whether a system of ours may be on it: it was seen once, or the record says that it holds a guest."""
    return container in memory.seen or any(claim.container == container for claim in memory.claims.values())


def judge(view: View, observation: Observation) -> Verdict | None:
    """What is to be said of a container in terms of installs; None when the ordinary rules have the word."""
    name = observation.container
    ticket = view.memory.tickets.get(name)
    if ticket is not None and ticket.state != "installed":
        return _under_way(view, observation, ticket)
    consent = view.memory.consents.get(("reinstall", name))
    if ticket is not None and (isinstance(observation, Seen) or consent is None):
        return None if isinstance(observation, Seen) else _installed(view, ticket)
    if not installable(view.spec, name) or {f"container/{name}", "site"} & view.memory.paused.keys():
        return None
    if consent is not None:
        return _asked_for(view, observation, consent)
    if isinstance(observation, Seen) or known(view.memory, name):
        return None
    return _never_seen(view, observation)


def _under_way(view: View, observation: Observation, ticket: Ticket) -> Verdict:
    """A ticket is open: go on with it, whatever else holds; its machine may be half installed."""
    name = ticket.container
    progress = progress_of(ticket, view.boot)
    begun = ticket.state == "claimed" or progress is not None
    state = ContainerState.INSTALLING if begun else ContainerState.PXE
    if progress is not None:
        detail = progress_words(progress, eta_s(progress, view.now_s))
    else:
        detail = "the installer is at work" if begun else "waits for it to boot the installer"
    hold = f"{name}: its install begins anew in a moment"
    if f"container/{name}" in view.busy:
        return Verdict(Wait(f"container/{name}", f"installing: {detail}", POLL_S), state, detail, hold)
    rouse: Rouse = "follow"
    called = _netboot(view, ticket.mac)
    still = begun or view.frozen or {f"container/{name}", "site"} & view.memory.paused.keys()
    if not still and (called is None or called.at_s < ticket.opened_at_s):
        rouse = _rouse(view, observation, wipe=ticket.wipe)
    reason = "its install goes on after a restart of vcrecon"
    action = Install(name, reason, ticket.system, ticket.mac, ticket.wipe, rouse, resumed=True)
    return Verdict(Do(action), state, detail, hold)


def _installed(view: View, ticket: Ticket) -> Verdict:
    """The installer is done; SSH with the pinned key is the proof that is still to come."""
    subject, name = f"container/{ticket.container}", ticket.container
    if view.now_s < ticket.expires_at_s:
        words = "installed; starts its system"
        return Verdict(Wait(subject, words, 2.0), ContainerState.INSTALLING, words)
    message = (
        f"{name} was installed and does not answer: look at its console (does it start from its own disk?), "
        f"or say `vcrecon reinstall {name}`"
    )
    return Verdict(Block(subject, "install-no-answer", message, 10.0), None, "installed, but does not answer")


def _asked_for(view: View, observation: Observation, consent: Consent) -> Verdict:
    """A person said `vcrecon reinstall`."""
    name, seen = observation.container, isinstance(observation, Seen)
    subject = f"container/{name}"
    unnamed = residents_unnamed(view, name)
    if unnamed:
        named = " ".join(f"--give-up {guest}" for guest in unnamed)
        message = (
            f"{name} is not reinstalled while these guests' work is on it: {', '.join(unnamed)}. "
            f"`vcrecon evacuate {name}`, or name them: `vcrecon reinstall {name} {named}`"
        )
        return Verdict(Block(subject, "gives-up-work", message))
    if view.frozen:
        return Verdict(Block(subject, "site-frozen", view.frozen))
    busy = {subject, *(f"guest/{guest}" for guest in view.world.on(name))} & view.busy
    if busy:
        return Verdict(Wait(subject, f"waits for a step on {min(busy)} to end, then reinstalls"))
    entry = view.spec.containers[name]
    called = _netboot(view, entry.mac)
    if called is not None and called.at_s < consent.given_at_s:
        called = None  # it was sent to its own disk, for nobody had asked for anything
    hold = f"{name}: its install begins in a moment"
    unknown = not_looked_at(view.spec, view.world)
    if unknown is not None:
        return Verdict(Wait(subject, f"{unknown} was not looked at yet"), None, "", hold)
    late = _not_again(view, name, called)
    if late is not None:
        return Verdict(late, None if seen else ContainerState.PXE if called else None, "", hold)
    rouse = "follow" if called is not None else _rouse(view, observation, wipe=True)
    if rouse == "follow" and called is None:
        message = f"{name} is to be reinstalled: switch it on and let it boot from the network (MAC {entry.mac})"
        return Verdict(Block(subject, "switch-on", message, 10.0), None, "waits to be switched on", hold)
    action = _install(entry, "a person asked for a new system", wipe=True, rouse=rouse)
    return Verdict(Do(action), ContainerState.PXE, "is to be installed anew", hold)


def _never_seen(view: View, observation: Unseen) -> Verdict | None:
    """A machine that nothing is known of: installed when it calls, or switched on when its switch says off."""
    name, subject = observation.container, f"container/{observation.container}"
    entry = view.spec.containers[name]
    called = _netboot(view, entry.mac)
    hold = f"{name}: vcrecon looks at what this machine is"
    if called is None and observation.kind in ALIVE:
        return None
    attempts = view.memory.attempts.get(subject)
    if attempts is not None and attempts.error == "disk-not-blank":
        return Verdict(Block(subject, "disk-not-blank", attempts.message, 10.0), None, "its disk is not blank")
    if view.frozen:
        return Verdict(Block(subject, "site-frozen", view.frozen), None, "", hold)
    if subject in view.busy:
        return Verdict(Wait(subject, "a step is under way"), None, "", hold)
    late = _not_again(view, name, called)
    if late is not None:
        return Verdict(late, ContainerState.PXE if called else None, "", hold)
    if called is not None:
        reason = f"it booted from the network ({called.platform or 'iPXE'}) and was never installed"
        return Verdict(Do(_install(entry, reason)), ContainerState.PXE, "waits for its install", hold)
    power = view.boot.power.get(name)
    if entry.power.kind != "manual" and power == "off":
        action = _install(entry, "it is switched off and was never installed", rouse="switch-on")
        return Verdict(Do(action), None, "", hold)
    is_on = f"; its switch says {power}" if power else ""
    message = (
        f"{name} was never seen{is_on}: let it boot from the network (MAC {entry.mac}) and it is installed, "
        f"unless its disk holds something"
    )
    return Verdict(Block(subject, "never-booted", message, 10.0), None, "never seen", hold)


def _install(entry: Container, reason: str, *, wipe: bool = False, rouse: Rouse = "follow") -> Install:
    return Install(entry.name, reason, entry.system or "", entry.mac or "", wipe, rouse)


def _rouse(view: View, observation: Observation, *, wipe: bool) -> Rouse:
    """How to bring a machine to boot from the network. Without a person's word, what runs is never cut off."""
    powered = view.spec.containers[observation.container].power.kind != "manual"
    if not wipe:
        return "switch-on" if powered else "follow"
    if powered:
        return "power-cycle"
    return "reboot" if isinstance(observation, Seen) else "follow"


def _not_again(view: View, container: str, called: Netboot | None) -> Block | None:
    """Why an install that failed is not tried now."""
    subject = f"container/{container}"
    attempts = view.memory.attempts.get(subject)
    if attempts is not None and attempts.error in STAYS and called is None:
        return Block(subject, attempts.error, attempts.message, 10.0)
    return backing_off(view.memory, subject, view.now_s)


def _netboot(view: View, mac: str | None) -> Netboot | None:
    """The machine's request to boot from the network, when it made one just now."""
    found = view.boot.netboots.get(mac or "")
    return found if found is not None and view.now_s - found.at_s <= NETBOOT_FRESH_S else None


def sent_home(view: View, container: str) -> str:
    """A container that was seen before boots from the network and is not asked to: told, and nothing is done."""
    called = _netboot(view, view.spec.containers[container].mac) if container in view.spec.containers else None
    if called is None:
        return ""
    ago_s = max(0.0, view.now_s - called.at_s)
    way = f"; `vcrecon reinstall {container}` installs it anew" if installable(view.spec, container) else ""
    return f"; it booted from the network {ago_s:.0f} s ago and was sent to its own disk{way}"


def first_word(spec: Spec, memory: Memory, container: str) -> str:
    """What a machine is told that boots before its container was looked at: see Plan.hold."""
    ticket = memory.tickets.get(container)
    waits = ("reinstall", container) in memory.consents or (ticket is not None and ticket.state != "installed")
    if installable(spec, container) and (waits or not known(memory, container)):
        return f"{container}: vcrecon looks at what this machine is"
    return ""


# --- whose work is on it -------------------------------------------------------------------------------------


def residents(spec: Spec, world: World, memory: Memory, container: str) -> dict[str, int]:
    """Guests whose work would be lost with the container's disks, as last seen: name to the epoch of that disk.

    Disks that were put aside count, unless the guest lives on elsewhere with a newer one. What was never seen
    since this controller began is known from the record's claims alone.
    """
    found: dict[str, int] = {}
    for name, sighting in world.on(container).items():
        better = max((s.epoch for s in world.elsewhere(name, container) if s.live), default=0)
        epochs = [
            epoch
            for volume in _disks(sighting)
            if (epoch := _work_epoch(spec, volume)) is not None
            and (epoch > better or (epoch == better and volume.live))
        ]
        if epochs:
            found[name] = max(epochs)
    for claim in memory.claims.values():
        if claim.container == container and claim.touched:
            found[claim.guest] = max(claim.epoch, found.get(claim.guest, 0))
    return dict(sorted(found.items()))


def _disks(sighting: Sighting) -> list[Volume]:
    return [v for v in (sighting.volume, *sighting.quarantined) if v is not None]


def _work_epoch(spec: Spec, volume: Volume) -> int | None:
    """The epoch of a disk that may hold a student's work; a proved copy holds that of its original."""
    worked = volume.touched or (volume.boots > 0 and spec.site.session == "running")
    if volume.incoming:
        return volume.copy_of[0] if volume.copy_of is not None and (worked or volume.boots) else None
    return volume.epoch if worked else None


def residents_unnamed(view: View, container: str) -> list[str]:
    """Residents whose disk no consent names."""
    consents = view.memory.consents
    return [
        guest
        for guest, epoch in residents(view.spec, view.world, view.memory, container).items()
        if not _names(consents.get(("reinstall", given_up(container, guest))), epoch)
    ]


def given_up(container: str, guest: str) -> str:
    """The subject of a consent that names a guest's disk on one container."""
    return f"{container}/{guest}"


def spent(memory: Memory, container: str) -> list[str]:
    """The subjects of the consents that end with an install of this container."""
    mine = given_up(container, "")
    return [s for kind, s in memory.consents if kind == "reinstall" and (s == container or s.startswith(mine))]


def forgotten(memory: Memory, container: str, spec: Spec) -> list[Claim]:
    """The claims on a container once its disks were made anew: nothing of worth, and the count of epochs goes on."""
    return [
        replace(claim, touched=False)
        for claim in memory.claims.values()
        if claim.container == container and claim.guest in spec.guests
    ]


def _names(consent: Consent | None, epoch: int) -> bool:
    return consent is not None and consent.epoch >= epoch


def runs_older_system(spec: Spec, observation: Seen) -> str:
    """Said in the status of a container whose release names another system than the spec; nothing is done."""
    wanted = spec.systems.get(spec.containers[observation.container].system or "")
    release = observation.release
    found = release.get("system", "") if isinstance(release, Mapping) else ""
    if wanted is None or not found or found == wanted.root.sha256:
        return ""
    return f"runs an older system than {wanted.name}; `vcrecon reinstall {observation.container}` renews it"
