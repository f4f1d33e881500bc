"""What a world will look like once an action has succeeded. Pure; used to preview a whole plan, and in tests.

Only the preview believes this: the controller always looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vcrecon.core.actions import (
    Action,
    ActivateCopy,
    Contextualize,
    CopyDisk,
    CreateVolume,
    Discard,
    FetchImage,
    Hold,
    Install,
    MarkTouched,
    Prune,
    Quarantine,
    Release,
    Restore,
    SetUpNetwork,
    StartGuest,
    StopGuest,
)
from vcrecon.core.install_rules import forgotten, spent
from vcrecon.core.memory import Claim, Memory
from vcrecon.core.observation import Bridge, Domain, NetworkFacts, Seen, Storage, Volume
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World


def foresee(action: Action, wanted: Wanted, world: World, memory: Memory) -> None:
    """Change `world` and `memory` as if `action` had been carried out and looked at."""
    seen = world.current[action.container]
    if isinstance(action, Install):
        _installed(action, wanted, world, memory)
        return
    if not isinstance(seen, Seen):
        return
    if isinstance(action, Hold | Release):
        _rescued(action, memory)
    if isinstance(action, SetUpNetwork):
        world.observe(_network(action, wanted, world, seen))
    elif isinstance(action, FetchImage):
        world.observe(_image(action, wanted, seen))
    elif isinstance(action, StartGuest | StopGuest):
        world.observe(_domain(action, wanted, seen, memory))
    else:
        world.observe(_disk(action, wanted, seen, memory))


def _installed(action: Install, wanted: Wanted, world: World, memory: Memory) -> None:
    """A new system and an empty thin pool, and what lived there is forgotten."""
    name, spec = action.container, wanted.spec
    seen = world.current[name]
    for claim in forgotten(memory, name, spec):
        memory.claims[claim.guest] = claim
    for subject in spent(memory, name):
        del memory.consents["reinstall", subject]
    memory.tickets.pop(name, None)
    memory.seen[name] = memory.shown[name] = seen.at_s
    world.forget(name)
    system = spec.systems.get(action.system)
    release = {"hypervisor": spec.containers[name].hypervisor, "system": system.root.sha256 if system else ""}
    bare = NetworkFacts({}, "")
    if isinstance(seen, Seen):
        pool = seen.storage if isinstance(seen.storage, Storage) else Storage(True)
        pool = replace(pool, goldens=frozenset(), volumes=(), strangers=frozenset())
        seen = replace(seen, release=release, images=frozenset(), storage=pool, network=bare, domains=())
    else:
        disk_bytes = spec.containers[name].disk_bytes
        seen = Seen(name, seen.at_s, "", release, storage=Storage(True, 0, disk_bytes), network=bare, domains=())
    world.observe(seen)


def _rescued(action: Hold | Release, memory: Memory) -> None:
    """The person's wish is done, as the ledger notes it."""
    rescue = memory.rescues.get(action.guest)
    if rescue is not None and isinstance(action, Hold):
        memory.rescues[action.guest] = replace(rescue, done=True)
    else:
        memory.rescues.pop(action.guest, None)


def _network(action: SetUpNetwork, wanted: Wanted, world: World, seen: Seen) -> Seen:
    spec = wanted.spec
    names = set(spec.deployment.get(action.container, ()))
    names |= {g for g, s in world.on(action.container).items() if s.live and g in spec.guests}
    guests = [spec.guests[name] for name in sorted(names)]
    bridges = {
        vlan: Bridge(vlan, True, True, bridge.addresses, bridge.routes)
        for vlan, bridge in wanted.bridges(guests).items()
    }
    return replace(seen, network=NetworkFacts(bridges, wanted.firewall(action.container, guests).digest))


def _image(action: FetchImage, wanted: Wanted, seen: Seen) -> Seen:
    image = wanted.spec.images[action.image]
    boot_files = {a.sha256 for a in (image.kernel, image.initrd) if a is not None}
    if action.boot_only:
        return replace(seen, images=seen.images | boot_files)
    files = boot_files | {image.root.sha256}
    storage = seen.storage
    if isinstance(storage, Storage):
        storage = replace(storage, goldens=storage.goldens | {image.root.sha256})
    return replace(seen, images=seen.images | files, storage=storage)


def _domain(action: StartGuest | StopGuest, wanted: Wanted, seen: Seen, memory: Memory) -> Seen:
    before = seen.domains if isinstance(seen.domains, tuple) else ()
    others = tuple(domain for domain in before if domain.guest != action.guest)
    if isinstance(action, StopGuest):
        return replace(seen, domains=(*others, Domain(action.guest, "off", reason="shutdown")))
    memory.claims[action.guest] = Claim(action.guest, action.container, action.epoch, action.touched)
    serial = f"{seen.boot_id}/start-{action.boots}"
    memory.answered[action.guest] = serial
    running = Domain(action.guest, "running", serial, definition=wanted.definition(wanted.spec.guests[action.guest]))
    started = replace(seen, domains=(*others, running))
    return _change(
        started, action.volume, lambda v: replace(v, boots=action.boots, touched=v.touched or action.touched)
    )


def _forgotten(seen: Seen, guest: str) -> Seen:
    """The hypervisor forgets a guest whose disk is worked on, and with it why the guest went down."""
    domains = seen.domains if isinstance(seen.domains, tuple) else ()
    return replace(seen, domains=tuple(domain for domain in domains if domain.guest != guest))


def _change(seen: Seen, volume: str, change: Callable[[Volume], Volume | None]) -> Seen:
    if not isinstance(seen.storage, Storage):
        return seen
    volumes = (change(v) if v.name == volume else v for v in seen.storage.volumes)
    return replace(seen, storage=replace(seen.storage, volumes=tuple(v for v in volumes if v is not None)))


def _add(seen: Seen, volume: Volume) -> Seen:
    if not isinstance(seen.storage, Storage):
        return seen
    return replace(seen, storage=replace(seen.storage, volumes=(*seen.storage.volumes, volume)))


def _disk(action: Action, wanted: Wanted, seen: Seen, memory: Memory) -> Seen:
    match action:
        case CreateVolume():
            guest = wanted.spec.guests[action.guest]
            memory.claims[action.guest] = Claim(action.guest, action.container, action.epoch, touched=False)
            image = wanted.spec.images[guest.image].root.sha256
            name = f"vcg-{action.guest}"
            return _add(seen, Volume(name, action.guest, action.epoch, guest.disk_bytes, 0, image))
        case Contextualize():
            context = wanted.context(wanted.spec.guests[action.guest])
            return _change(_forgotten(seen, action.guest), action.volume, lambda v: replace(v, context=context))
        case CopyDisk():
            stamp = (action.epoch, action.boots)
            copied = Volume(
                f"vcg-{action.guest}", action.guest, 0, action.size_bytes, 0, action.image, action.context,
                action.boots, incoming=True, copy_of=stamp,
            )  # fmt: skip
            return _add(seen, copied)
        case ActivateCopy():
            memory.claims[action.guest] = Claim(action.guest, action.container, action.epoch, action.touched)
            return _change(
                seen,
                action.volume,
                lambda v: replace(v, incoming=False, copy_of=None, epoch=action.epoch, touched=action.touched),
            )
        case MarkTouched():
            return _change(seen, action.volume, lambda v: replace(v, touched=True))
        case Hold():
            return _change(
                _forgotten(seen, action.guest), action.volume, lambda v: replace(v, held=True, boots=action.boots)
            )
        case Release():
            return _change(seen, action.volume, lambda v: replace(v, held=False))
        case Quarantine():
            aside = f"vcq-{action.guest}-{action.epoch}"
            return _change(seen, action.volume, lambda v: replace(v, name=aside, quarantined=action.why))
        case Restore():
            live = f"vcg-{action.guest}"
            return _change(
                seen,
                action.volume,
                lambda v: replace(v, name=live, quarantined=None, touched=v.touched or action.touched),
            )
        case Discard() | Prune():
            return _change(seen, action.volume, lambda _: None)
    raise TypeError(f"no foresight for {action.kind}")
