"""From an action to the steps that carry it out. Pure; called by `shell.act`, and by `plan` to show them.

A step's standard input may hold secrets; its script never does (S10), so scripts can be printed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vcrecon.core.actions import (
    Action,
    ActivateCopy,
    Contextualize,
    CopyDisk,
    CreateVolume,
    Discard,
    FetchImage,
    GuestAction,
    Hold,
    MarkTouched,
    Prune,
    Quarantine,
    Release,
    Restore,
    SetUpNetwork,
    StartGuest,
    StopGuest,
)
from vcrecon.core.memory import Memory
from vcrecon.core.wanted import Wanted, tap
from vcrecon.core.world import World
from vcrecon.errors import Permanent
from vcrecon.host import context, firewall, hooks, network
from vcrecon.host.names import IMAGE_DIR, bridge, device
from vcrecon.host.steps import UNSAFE, Step, locked
from vcrecon.host.storage import Disks
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.hypervisor.base import Hypervisor, Launch, Port
from vcrecon.spec.model import Guest

QUICK_S = 60.0
START_S = 180.0
"""A busy host needs its time: `xl create` took 60 s on an emulated one that booted other guests."""
TRANSFER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the shell reads for a step that needs it: the site's secret, and a guest's password hash."""

    site: bytes
    password_hash: Callable[[Guest], str]


@dataclass(frozen=True, slots=True)
class Bench:
    """All that scripts are made from."""

    wanted: Wanted
    world: World
    memory: Memory
    secrets: Secrets

    def hypervisor(self, container: str) -> Hypervisor:
        return HYPERVISORS[self.wanted.spec.containers[container].hypervisor]

    def require_off(self, container: str, guest: str) -> list[str]:
        """A disk is read, put aside or removed only while nothing writes to it."""
        return self.hypervisor(container).require_off(guest, UNSAFE)

    def forget_why_off(self, container: str, guest: str) -> list[str]:
        """As `require_off`; why it went down is forgotten, for it did so for vcrecon: it boots once it is wanted."""
        return self.require_off(container, guest) + self.hypervisor(container).forget(guest)

    def disks(self, container: str) -> Disks:
        spec = self.wanted.spec
        return Disks.of(spec.containers[container], spec.site.name)


@dataclass(frozen=True, slots=True)
class Copy:
    """The steps of a disk's move: `prepare`, then `send` piped into `write`, then compare by `digest`."""

    prepare: Step
    send: Step
    write: Step
    digest: Step
    prove: Callable[[str], Step]


def steps(action: Action, bench: Bench) -> tuple[Step, ...]:
    """The steps of any action but CopyDisk, in order. Raises Permanent when the spec no longer allows it."""
    try:
        return tuple(_STEPS[type(action)](action, bench))
    except KeyError as error:
        raise Permanent(f"{action.kind} of {action.subject}: {error} left the spec", kind="spec-changed") from error


def copy(action: CopyDisk, bench: Bench) -> Copy:
    """The steps that carry a disk over."""
    here, there = bench.disks(action.container), bench.disks(action.source)
    guest = bench.wanted.spec.guests[action.guest]
    thick = guest.storage == "thick"
    off = forget = bench.require_off(action.source, action.guest)
    sighting = bench.world.on(action.source).get(action.guest)
    if sighting is not None and sighting.domain is not None:  # else a stranger may have its name there (S5)
        forget = bench.forget_why_off(action.source, action.guest)
    tags = [
        f"vc.image={action.image}" if action.image else "",
        f"vc.context={action.context}" if action.context else "",
        f"vc.boots={action.boots}",
        f"vc.copy={action.epoch}.{action.boots}",
    ]

    def prove(sha256: str) -> Step:
        lines = here.prove(action.guest, sha256, [tag for tag in tags if tag])
        return Step(action.container, locked(action.guest, lines), deadline_s=TRANSFER_S)

    return Copy(
        Step(action.container, locked(action.guest, here.receive(action.guest, action.size_bytes, thick=thick))),
        Step(action.source, locked(action.guest, forget + there.send(action.source_volume)), deadline_s=TRANSFER_S),
        Step(
            action.container,
            locked(action.guest, here.write(action.guest, thick=thick)),
            deadline_s=TRANSFER_S,
        ),
        Step(
            action.source,
            locked(action.guest, off + there.digest(action.source_volume)),
            deadline_s=TRANSFER_S,
        ),
        prove,
    )


def _guest_step(action: GuestAction, lines: list[str], stdin: bytes | None = None, deadline_s: float = QUICK_S) -> Step:
    return Step(action.container, locked(action.guest, lines), stdin, deadline_s)


def _set_up_network(action: SetUpNetwork, bench: Bench) -> list[Step]:
    spec, name = bench.wanted.spec, action.container
    names = set(spec.deployment.get(name, ()))
    names |= {g for g, s in bench.world.on(name).items() if s.live and g in spec.guests}
    guests = [spec.guests[guest] for guest in sorted(names)]
    rules = bench.wanted.firewall(name, guests)
    bridges = bench.wanted.bridges(guests)
    lock = f"network-{spec.site.name}"
    found = [
        Step(
            name,
            locked(lock, network.set_up_firewall(rules.digest)),
            firewall.render(rules).encode(),
            QUICK_S,
        )
    ]
    lines = network.set_up(
        bridges,
        [vlan for vlan in action.vlans if vlan in bridges],
        action.leftovers,
        trunk=spec.containers[name].trunk,
        site=spec.site.name,
        taps={vlan: sorted(wanted.taps) for vlan, wanted in bridges.items()},
    )
    if lines:
        found.append(Step(name, locked(lock, lines), deadline_s=QUICK_S))
    return found


def _fetch_image(action: FetchImage, bench: Bench) -> list[Step]:
    spec = bench.wanted.spec
    image = spec.images[action.image]
    kinds = {g.storage for g in spec.guests_on(action.container) if g.image == action.image}
    disks = bench.disks(action.container)
    if action.boot_only:
        lines = disks.fetch_boot_files(image)
    else:
        lines = disks.fetch(image, golden="thin" in kinds or not kinds)
        if "thick" in kinds:
            lines += disks.fetch(image, golden=False)
    return [Step(action.container, locked(f"image-{image.root.sha256[:16]}", lines), deadline_s=TRANSFER_S)]


def _create_volume(action: CreateVolume, bench: Bench) -> list[Step]:
    guest = bench.wanted.spec.guests[action.guest]
    image = bench.wanted.spec.images[guest.image]
    disks = bench.disks(action.container)
    make = disks.create_thick if guest.storage == "thick" else disks.create_thin
    return [_guest_step(action, make(guest.name, image, action.epoch, guest.disk_bytes), deadline_s=TRANSFER_S)]


def _contextualize(action: Contextualize, bench: Bench) -> list[Step]:
    wanted = bench.wanted
    guest = wanted.spec.guests[action.guest]
    found = context.files(guest, wanted.hosts(guest), wanted.spec.site.services, bench.secrets.site)
    own = hooks.prepare(wanted.spec, guest)
    stdin = context.password_line(bench.secrets.password_hash(guest))
    stdin += (own.archive if own else b"") + context.archive(found)
    sighting = bench.world.on(action.container).get(action.guest)
    old = sighting.volume.context if sighting and sighting.volume else ""
    lines = bench.forget_why_off(action.container, action.guest)
    lines += bench.disks(action.container).contextualize(
        action.volume, wanted.context(guest), old, context.DIRECTORIES, own
    )
    return [_guest_step(action, lines, stdin, QUICK_S + (own.longest_s if own else 0.0))]


def _start_guest(action: StartGuest, bench: Bench) -> list[Step]:
    wanted, hypervisor = bench.wanted, bench.hypervisor(action.container)
    guest = wanted.spec.guests[action.guest]
    image = wanted.spec.images[guest.image]
    launch = Launch(
        guest,
        wanted.spec.site.name,
        wanted.uuid(guest.name),
        wanted.definition(guest),
        device(wanted.spec.containers[action.container].volume_group, action.volume),
        tuple(Port(i.mac, bridge(i.vlan), tap(guest.name, i.vlan)) for i in guest.interfaces),
        image.cmdline,
        f"{IMAGE_DIR}/{image.kernel.sha256}" if image.kernel else None,
        f"{IMAGE_DIR}/{image.initrd.sha256}" if image.initrd else None,
    )
    define, stdin = hypervisor.define(launch)
    disks = bench.disks(action.container)
    lines = [
        *disks.require_not_held(guest.name, action.volume),
        *define,
        *disks.mark_start(guest.name, action.volume, action.boots, touched=action.touched),
        *hypervisor.start(guest.name),
    ]
    return [_guest_step(action, lines, stdin, START_S)]


def _stop_guest(action: StopGuest, bench: Bench) -> list[Step]:
    lines = bench.hypervisor(action.container).stop(action.guest, force=action.force)
    return [_guest_step(action, lines)]


def _quarantine(action: Quarantine, bench: Bench) -> list[Step]:
    lines = bench.forget_why_off(action.container, action.guest)
    lines += bench.disks(action.container).quarantine(action.guest, action.volume, action.epoch, action.why)
    return [_guest_step(action, lines)]


def _restore(action: Restore, bench: Bench) -> list[Step]:
    lines = bench.disks(action.container).restore(action.guest, action.volume, touched=action.touched)
    return [_guest_step(action, lines)]


def _hold(action: Hold, bench: Bench) -> list[Step]:
    lines = bench.forget_why_off(action.container, action.guest)  # and nobody starts it by hand
    return [_guest_step(action, lines + bench.disks(action.container).hold(action.guest, action.volume, action.boots))]


def _release(action: Release, bench: Bench) -> list[Step]:
    off = bench.require_off(action.container, action.guest)
    return [_guest_step(action, bench.disks(action.container).release(action.guest, action.volume, off))]


def _discard(action: Discard, bench: Bench) -> list[Step]:
    lines = bench.forget_why_off(action.container, action.guest)
    return [_guest_step(action, lines + bench.disks(action.container).discard(action.volume))]


def _prune(action: Prune, bench: Bench) -> list[Step]:
    return [_guest_step(action, bench.disks(action.container).prune(action.volume))]


def _mark_touched(action: MarkTouched, bench: Bench) -> list[Step]:
    return [_guest_step(action, bench.disks(action.container).mark_touched(action.volume))]


def _activate_copy(action: ActivateCopy, bench: Bench) -> list[Step]:
    sighting = bench.world.on(action.container).get(action.guest)
    stamp = sighting.volume.copy_of if sighting and sighting.volume else None
    if stamp is None:
        raise Permanent(f"no proved copy of {action.guest} on {action.container}", kind="no-copy")
    lines = bench.disks(action.container).activate(
        action.volume, action.epoch, f"{stamp[0]}.{stamp[1]}", touched=action.touched
    )
    return [_guest_step(action, lines)]


_STEPS: dict[type[Action], Callable[..., list[Step]]] = {
    SetUpNetwork: _set_up_network,
    FetchImage: _fetch_image,
    CreateVolume: _create_volume,
    Contextualize: _contextualize,
    StartGuest: _start_guest,
    StopGuest: _stop_guest,
    Quarantine: _quarantine,
    Restore: _restore,
    Hold: _hold,
    Release: _release,
    Discard: _discard,
    Prune: _prune,
    MarkTouched: _mark_touched,
    ActivateCopy: _activate_copy,
}
