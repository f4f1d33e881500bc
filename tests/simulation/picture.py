"""What a site and a record hold, as values that can be compared. Called by `stage`.

`remains` is all that a controller that dies at once leaves behind: two crashes that leave the same are the same crash.
`end` is what two runs of one workflow must agree in once all is at rest. It leaves out what a repeat may change and
nobody can see from outside:

- times, and the order in which things were made (indexes, handles, identifiers, names of taps);
- `vc.boots`, and a guest's own log of its boots: one more when a start is tried again, or when the guest runs on where
  it was until its new host answers;
- which number a disk has (`vc.epoch`): a disk that was begun is given up for the next number, or begun anew. How a
  guest's disks are ordered, and which of them the record claims, is compared;
- the bytes that a thin volume holds of its pool;
- locks' empty files in /run/lock, the hosts' own logs, and what is only in /proc and /dev;
- the number of the install that made a container;
- history, metrics and last states in the record.

The digests of images and contexts, all other tags, what is active, defined, mounted, running
and connected, every file of every file system, and the rest of the record are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tests.simulation.disks import epoch_of

from vcrecon.core.memory import Memory
from vcrecon.sim.files import Directory, File, FileSystem, Link, Node
from vcrecon.sim.lvm import Volume

if TYPE_CHECKING:
    from tests.simulation.classroom import Classroom

Picture = dict[str, object]
_NOT_REAL = ("/proc", "/dev")
_BOOTS = "var/log/boots"


def end(room: Classroom) -> Picture:
    """By words that say where; equal for two runs that ended alike."""
    found: Picture = {}
    memory = room.main.record.memory
    ranks = _ranks(room)
    for name, host in room.site.hosts.items():
        for key, value in _host(host.machine, room.loop.time()).items():
            if key.startswith("volume "):
                assert isinstance(value, tuple)
                guest = next((tag.removeprefix("vc.guest=") for tag in value[0] if tag.startswith("vc.guest=")), "")
                if guest in ranks and "vc.site=elsewhere" not in value[0]:
                    key, value = _ranked(key, value, guest, ranks[guest])
            if not key.startswith(("file run/lock/", "file var/log/", "boots")):
                found[f"{name} {key}"] = value
    found |= {f"record {key}": value for key, value in _record(memory, ranks).items()}
    found |= {f"record attempts {subject}": "failed" for subject in memory.attempts}
    found["record intents"] = sorted(memory.intents)
    return found


def _ranks(room: Classroom) -> dict[str, dict[int, int]]:
    """By guest: the number of each disk that is there, or claimed, to its place among them."""
    numbers = {guest: {claim.epoch} for guest, claim in room.main.record.memory.claims.items()}
    for guest in room.known_guests:
        numbers.setdefault(guest, set()).update(epoch_of(volume) for _, _, volume in room.disks(guest))
    return {guest: {epoch: rank for rank, epoch in enumerate(sorted(found))} for guest, found in numbers.items()}


def _ranked(
    key: str, value: tuple[Any, ...], guest: str, rank: dict[int, int]
) -> tuple[str, tuple[object, ...]]:  # fmt: skip
    tags: list[str] = []
    for tag in value[0]:
        if tag.startswith("vc.epoch="):
            epoch = int(tag.removeprefix("vc.epoch="))
            key = key.replace(f"-{guest}-{epoch}", f"-{guest}-#{rank[epoch]}")
            tags.append(f"vc.epoch=#{rank[epoch]}")
        elif not tag.startswith("vc.boots="):
            tags.append(tag)
    return key, (tuple(tags), *value[1:])


def remains(room: Classroom) -> tuple[object, ...]:
    """Hosts, commands under way, machines and what the record has on disk when nothing of it is lost."""
    now_s = room.loop.time()
    hosts = tuple((name, _frozen(_host(host.machine, now_s))) for name, host in room.site.hosts.items())
    machines = tuple((name, machine.busy, machine.step, machine.blank) for name, machine in room.machines.items())
    return hosts, under_way(room), machines


def kept(memory: Memory) -> tuple[object, ...]:
    """What a new life reads from the record, without its times."""
    states = sorted((subject, state.state) for subject, state in memory.states.items())
    attempts = sorted((subject, tries.count, tries.error) for subject, tries in memory.attempts.items())
    intents = sorted((subject, intent.action) for subject, intent in memory.intents.items())
    told = (sorted(memory.seen), sorted(memory.answered.items()))
    return _frozen(_record(memory)), repr((states, attempts, intents, told))


def under_way(room: Classroom) -> tuple[object, ...]:
    """The commands that go on without their controller: which, what of their input is there, and how far they are."""
    found: list[object] = []
    for name, host in room.site.hosts.items():
        sessions = [
            (ends.command, ends.session._input_open, len(ends.session._input))
            for link in room.site.servers[name].links
            for ends in link.channels
            if ends.session is not None and not ends.server_over and not stays(ends.command)
        ]
        locks = tuple(sorted(host.programs.held_locks))
        began = sum(host.programs.counts.values()) if sessions or locks else 0
        found.append((name, tuple(sorted(sessions)), locks, began))
    return tuple(found)


def stays(command: str) -> bool:
    """Whether a command only answers questions or tells events: it does nothing once nobody asks."""
    return command == "exec sh" or "virsh -q" in command or is_events(command)


def is_events(command: str) -> bool:
    return "virsh event" in command or "xenstore-watch" in command


def difference(one: Picture, other: Picture) -> list[str]:
    """Words for each place where they differ."""
    return [
        f"{key}: {' became '.join(map(_brief, _apart(one.get(key), other.get(key))))}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]


def _apart(one: object, other: object) -> tuple[object, object]:
    """Only the members in which two tuples of one shape differ, and of those the same."""
    if not (isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other)):
        return one, other
    pairs = [_apart(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return pairs[0] if len(pairs) == 1 else (tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _host(machine: Any, now_s: float) -> Picture:
    found: Picture = {
        "power": machine.up,
        "boots": machine.boots,
        "libvirtd": machine.libvirtd,
        "sysctl": tuple(sorted(machine.sysctl.items())),
        "mounts": tuple(sorted((m.target, m.filesystem.kind, m.options) for m in machine.files.mounts)),
    }
    for volume in machine.all_volumes():
        found[f"volume {volume.name}"] = _volume(volume)
    for mount in machine.files.mounts:
        if mount.target not in _NOT_REAL and not isinstance(mount.device, Volume):
            inside = mount.target.strip("/")
            for path, node in mount.filesystem.walk():
                place = f"{inside}/{path}" if inside else path
                found[f"file {place}"] = _NOT_COMPARED_WHOLE.get(place, _node)(node)
    for domain in machine.domains.by_name.values():
        found[f"domain {domain.name}"] = (
            domain.title, domain.live, domain.state, domain.live and domain.answers_at <= now_s, domain.memory_bytes,
            domain.vcpus, domain.disks, domain.nics, domain.kernel, domain.cmdline, domain.persistent,
        )  # fmt: skip
    for link in machine.network.links.values():
        if link.kind != "tun":
            found[f"link {link.name}"] = (
                link.kind, link.mac, link.mtu, link.up, link.master, link.lower, link.vlan_id, link.alias,
                tuple(sorted(link.bridge.items())), tuple(link.addresses),
            )  # fmt: skip
    for (family, name), table in machine.nft.tables.items():
        found[f"rules {family} {name}"] = table.text()
    return found


def _volume(volume: Volume) -> tuple[object, ...]:
    raw = hash(bytes(volume.raw)) if volume.raw is not None and volume.filesystem is None else 0
    return (
        tuple(sorted(volume.tags)), volume.kind, volume.size_bytes, volume.pool, volume.origin, volume.active,
        volume.skip_activation, tuple(volume.mounted_at), tuple(sorted(volume.opened_by)), volume.ever_booted,
        raw or _tree(volume.filesystem),
    )  # fmt: skip


def _tree(filesystem: FileSystem | None) -> int:
    """Of its files in one number, which is the same in every process with the same PYTHONHASHSEED."""
    if filesystem is None:
        return 0
    return hash(tuple((path, _node(node)) for path, node in filesystem.walk() if path.lstrip("/") != _BOOTS))


def _node(node: Node) -> tuple[object, ...]:
    about = (type(node).__name__, node.mode, node.uid, node.gid)
    if isinstance(node, File):
        return (*about, hash(node.data))
    if isinstance(node, Link):
        return (*about, node.target)
    return (*about, len(node.entries)) if isinstance(node, Directory) else about


def _lease(node: Node) -> tuple[object, ...]:
    """Whose it is; when it was renewed is a time."""
    words = node.data.split() if isinstance(node, File) else []
    return tuple(words[:2])


def _release(node: Node) -> tuple[object, ...]:
    """Which system it has; the number of its install is drawn."""
    lines = node.data.splitlines() if isinstance(node, File) else []
    return tuple(line for line in lines if not line.startswith(b"install="))


_NOT_COMPARED_WHOLE = {"run/vcrecon/master": _lease, "etc/vcrecon/release": _release}


def _record(memory: Memory, ranks: Mapping[str, Mapping[int, int]] = MappingProxyType({})) -> Picture:
    return {
        "claims": tuple(
            sorted(
                (c.guest, c.container, ranks.get(c.guest, {}).get(c.epoch, c.epoch), c.touched)
                for c in memory.claims.values()
            )
        ),
        "consents": tuple(sorted((c.kind, c.subject, c.epoch) for c in memory.consents.values())),
        "fences": tuple(sorted(memory.fences)),
        "paused": tuple(sorted(memory.paused)),
        "rescues": tuple(sorted((r.guest, r.wish, r.done) for r in memory.rescues.values())),
        "tickets": tuple(sorted((t.container, t.state) for t in memory.tickets.values())),
        "confirmed": memory.confirmed_digest,
        "claims are complete": memory.claims_complete,
    }


def _frozen(picture: Picture) -> int:
    return hash(tuple(sorted((key, repr(value)) for key, value in picture.items())))
