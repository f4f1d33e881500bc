"""Volume groups, thin pools and volumes of a simulated host, with the refusals of lvm2 2.03.

State and rules only: `sim.tools.lvm` reads options and prints reports. Sizes are bytes.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from vcrecon.sim.files import Directory, File, FileSystem, Link, Node, blocks_bytes, clone

EXTENT_BYTES = 4 << 20
CHUNK_BYTES = 64 << 10
MAGIC = b"XFSB"
HEAD_BYTES = len(MAGIC) + 8 + 32
TAG = re.compile(r"[A-Za-z0-9_+.\-/=!:&#]+\Z")
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.\-]*\Z")


RESERVED_PREFIXES = ("snapshot", "pvmove")
RESERVED_PARTS = (
    *("_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta"),
    *("_vdata", "_vorigin", "_cvol"),
)
NAME_BYTES_MAX = 127


def reserved_name(name: str) -> str:
    """Why lvm keeps this name for itself, in its words; empty when it does not."""
    advice = "are reserved. Please choose a different LV name."
    for prefix in RESERVED_PREFIXES:
        if name.startswith(prefix):
            return f'Names starting "{prefix}" {advice}'
    for part in RESERVED_PARTS:
        if part in name:
            return f'Names including "{part}" {advice}'
    return ""


def name_bytes_max(group: str) -> int:
    """The longest name of a volume: with its group's name it has to fit into a device-mapper name."""
    return 125 - len(group)


class LvmError(Exception):
    """A refusal: the text lvm prints (without its two-space indent) and the exit status (3 or 5).

    `said` is what it got done before, for standard output.
    """

    def __init__(self, message: str, status: int = 5, said: str = "") -> None:
        super().__init__(message)
        self.status, self.said = status, said


def lvm_uuid(seed: str) -> str:
    """An identifier in LVM's shape (6-4-4-4-4-4-6), the same for the same seed."""
    digest = hashlib.sha256(seed.encode()).hexdigest()
    cuts = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(digest[a:b] for a, b in itertools.pairwise(cuts))


def pack(filesystem: FileSystem) -> bytes:
    """A file system as a byte stream: canonical, so that equal trees give equal streams."""
    rows: list[list[object]] = []
    bodies: list[bytes] = []
    for path, node in [("", filesystem.root), *filesystem.walk()]:
        row: list[object] = [path, type(node).__name__, node.mode, node.uid, node.gid, node.mtime]
        if isinstance(node, File):
            bodies.append(node.content())
            row.append(len(bodies[-1]))
        elif isinstance(node, Link):
            row.append(node.target)
        rows.append(row)
    head = json.dumps([filesystem.uuid, filesystem.label, rows], separators=(",", ":")).encode()
    payload = len(head).to_bytes(8, "big") + head + b"".join(bodies)
    return MAGIC + len(payload).to_bytes(8, "big") + hashlib.sha256(payload).digest() + payload


def unpack(stream: bytes, capacity_bytes: int) -> FileSystem | None:
    """The file system in a stream made by `pack`; None when it is damaged, cut short or something else."""
    size = int.from_bytes(stream[4:12], "big")
    payload = stream[HEAD_BYTES : HEAD_BYTES + size]
    if not stream.startswith(MAGIC) or hashlib.sha256(payload).digest() != stream[12:HEAD_BYTES]:
        return None
    length = int.from_bytes(payload[:8], "big")
    uuid, label, rows = json.loads(payload[8 : 8 + length])
    position = 8 + length
    root = Directory()
    nodes: dict[str, Directory] = {"": root}
    for path, kind, mode, uid, gid, mtime, *more in rows:
        node: Node
        if kind == "Directory":
            directory = root if path == "" else Directory()
            nodes[path] = directory
            node = directory
        elif kind == "File":
            node = File(data=payload[position : position + more[0]])
            position += more[0]
        else:
            node = Link(target=more[0])
        node.mode, node.uid, node.gid, node.mtime = mode, uid, gid, mtime
        if path:
            above, _, name = path.rpartition("/")
            nodes[above].entries[name] = node
    return FileSystem("xfs", capacity_bytes=capacity_bytes, uuid=uuid, label=label, root=root)


@dataclass(eq=False)
class Volume:
    """A logical volume. `own_bytes` it holds of its pool alone; `shared_bytes` came with its origin."""

    group: VolumeGroup
    name: str
    size_bytes: int
    kind: Literal["thin", "thick", "pool"]
    pool: str = ""
    origin: str = ""
    tags: set[str] = field(default_factory=set)
    active: bool = True
    skip_activation: bool = False
    uuid: str = ""
    created_at: int = 0
    thin_id: int = 0
    own_bytes: int = 0
    shared_bytes: int = 0
    ever_booted: bool = False
    filler_data_bytes: int = 0  # a pool filled from outside by the breakage API
    filler_metadata_percent: float = 0.0
    out_of_data: bool = False  # a pool to which a write has failed for want of room
    mounted_at: list[str] = field(default_factory=list)
    opened_by: set[str] = field(default_factory=set)
    filesystem: FileSystem | None = None
    raw: bytearray | None = None

    @property
    def path(self) -> str:
        return f"/dev/{self.group.name}/{self.name}"

    @property
    def full_name(self) -> str:
        return f"{self.group.name}/{self.name}"

    @property
    def mapped_bytes(self) -> int:
        return min(self.size_bytes, self.own_bytes + self.shared_bytes)

    def grow(self, count: int) -> None:
        """Use `count` more bytes of the pool. Raises OSError(ENOSPC) when it is full."""
        if self.kind != "thin":
            return
        room = self.size_bytes - self.own_bytes
        count = min(count, room)
        if count > self.group.pool_free_bytes(self.pool):
            self.group.volumes[self.pool].out_of_data = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self.own_bytes += count

    def format(self, filesystem: FileSystem) -> None:
        """Put a new file system on the volume (mkfs)."""
        self.grow(max(1 << 20, blocks_bytes(filesystem.used_bytes)))
        self.raw = None
        self._adopt(filesystem)

    def _adopt(self, filesystem: FileSystem) -> None:
        filesystem.on_grow = self.grow
        filesystem.on_write = self._written
        self.filesystem = filesystem

    def _written(self, path: str) -> None:
        if self.ever_booted:
            self.group.audit("write", self, path)

    def look(self) -> FileSystem | None:
        """The file system on the volume, if a whole one is there."""
        if self.filesystem is None and self.raw is not None:
            found = unpack(bytes(self.raw), int(self.size_bytes * 0.96))
            if found is not None and blocks_bytes(found.used_bytes) <= self.size_bytes:
                self._adopt(found)
                self.raw = None
        return self.filesystem

    def signature(self) -> str:
        """What blkid finds: `xfs`, or nothing. A stream cut short still has its superblock."""
        if self.filesystem is not None or (self.raw is not None and self.raw.startswith(MAGIC)):
            return "xfs"
        return ""

    def read_device(self) -> bytes:
        """The content as a stream. Unused space is left out: it would be zeros to the volume's size."""
        filesystem = self.look()
        if filesystem is not None:
            return pack(filesystem)
        return bytes(self.raw) if self.raw is not None else b""

    def write_device(self, data: bytes, *, append: bool) -> None:
        """Overwrite from the start, or go on. Raises OSError(ENOSPC) past the end of the device."""
        content = self.raw if append else bytearray()
        if content is None:
            content = bytearray(self.read_device())
        if len(content) + len(data) > self.size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        if data or not append:
            if self.ever_booted:
                self.group.audit("device-write", self, "")
            self.grow(blocks_bytes(len(data)))
            content += data
            self.raw = content
            self.filesystem = None


class VolumeGroup:
    """One volume group on one physical volume; extents of 4 MiB."""

    def __init__(self, name: str, size_bytes: int, audit: Callable[[str, Volume, str], None]) -> None:
        self.name = name
        self.extents = max(1, size_bytes // EXTENT_BYTES)
        self.volumes: dict[str, Volume] = {}
        self.audit = audit
        self.seqno = 1
        self.missing = False

    @property
    def size_bytes(self) -> int:
        return self.extents * EXTENT_BYTES

    def metadata_bytes(self, pool: Volume) -> int:
        """Size of a pool's metadata volume: 64 bytes a chunk, at least one extent."""
        need = pool.size_bytes // CHUNK_BYTES * 64
        return max(EXTENT_BYTES, round_up(need))

    @property
    def free_bytes(self) -> int:
        used = 0
        for volume in self.volumes.values():
            if volume.kind == "pool":
                used += volume.size_bytes + 2 * self.metadata_bytes(volume)  # one spare for repair
            elif volume.kind == "thick":
                used += volume.size_bytes
        return self.size_bytes - used

    def thins(self, pool: str) -> Iterator[Volume]:
        return (v for v in self.volumes.values() if v.kind == "thin" and v.pool == pool)

    def pool_used_bytes(self, pool: str) -> int:
        return sum(v.own_bytes for v in self.thins(pool)) + self.volumes[pool].filler_data_bytes

    def pool_free_bytes(self, pool: str) -> int:
        return max(0, self.volumes[pool].size_bytes - self.pool_used_bytes(pool))

    def data_percent(self, volume: Volume) -> float | None:
        """Percentage as lvs shows it; None where lvs shows nothing."""
        if volume.kind == "thick" or not volume.active:
            return None
        if volume.kind == "pool":
            return min(100.0, 100.0 * self.pool_used_bytes(volume.name) / volume.size_bytes)
        return min(100.0, 100.0 * volume.mapped_bytes / volume.size_bytes)

    def metadata_percent(self, volume: Volume) -> float | None:
        if volume.kind != "pool":
            return None
        count = sum(1 for _ in self.thins(volume.name))
        mapped = sum(v.mapped_bytes for v in self.thins(volume.name)) // CHUNK_BYTES
        used = (64 << 10) + count * 4096 + mapped * 16
        percent = 100.0 * used / self.metadata_bytes(volume) + volume.filler_metadata_percent
        return min(100.0, percent)


def round_up(size_bytes: int) -> int:
    """Bytes rounded up to whole extents."""
    return -(-size_bytes // EXTENT_BYTES) * EXTENT_BYTES


class Lvm:
    """All volume groups of a host. Every refusal is an LvmError with lvm's own words."""

    def __init__(self, *, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self.groups: dict[str, VolumeGroup] = {}
        self._clock = clock
        self._on_change = on_change  # the device nodes follow what is active

    def group(self, name: str) -> VolumeGroup:
        if not NAME.match(name):
            raise LvmError(f'Volume group name "{name}" has invalid characters.\n  Cannot process volume group {name}')
        group = self.groups.get(name)
        if group is None or group.missing:
            raise LvmError(f'Volume group "{name}" not found\n  Cannot process volume group {name}')
        return group

    def find(self, full_name: str) -> Volume:
        """The volume of `VG/LV` or `/dev/VG/LV`."""
        name = full_name.removeprefix("/dev/")
        group_name, slash, volume_name = name.partition("/")
        if not slash or "/" in volume_name:
            raise LvmError(f'"{full_name}": Invalid path for Logical Volume.')
        volume = self.group(group_name).volumes.get(volume_name)
        if volume is None:
            raise LvmError(f'Failed to find logical volume "{group_name}/{volume_name}"')
        return volume

    def changed(self, group: VolumeGroup) -> None:
        group.seqno += 1
        self._on_change()

    @staticmethod
    def check_tag(option: str, tag: str) -> str:
        text = tag.removeprefix("@")
        if not TAG.match(text):  # of any length, whatever lvm(8) says
            raise LvmError(f"Invalid argument for {option}: {tag}\n  Error during parsing of command line.", 3)
        return text

    def _new(self, group: VolumeGroup, volume: Volume) -> Volume:
        name = volume.name
        usage = "\n  Run `lvcreate --help' for more information."
        if not NAME.match(name) or name in (".", "..") or len(name) > NAME_BYTES_MAX:
            raise LvmError(f'Logical volume name "{name}" is invalid.{usage}', 3)
        if reserved := reserved_name(name):
            raise LvmError(f"{reserved}{usage}", 3)
        if len(name) > name_bytes_max(group.name):
            full_name = f"{group.name}/{name}"
            raise LvmError(f'Internal error: LV name "{full_name}" length {len(full_name) + 2} is not supported.')
        if name in group.volumes:
            message = f'Logical Volume "{name}" already exists in volume group "{group.name}"'
            raise LvmError(message)
        volume.created_at = int(self._clock())
        volume.uuid = lvm_uuid(f"{group.name}/{name}/{group.seqno}")
        if volume.kind == "thin":
            volume.thin_id = 1 + max((v.thin_id for v in group.thins(volume.pool)), default=0)
        group.volumes[name] = volume
        self.changed(group)
        return volume

    def _require_extents(self, group: VolumeGroup, size_bytes: int) -> None:
        free, need = group.free_bytes // EXTENT_BYTES, size_bytes // EXTENT_BYTES
        if need > free:
            raise LvmError(
                f'Volume group "{group.name}" has insufficient free space ({free} extents): {need} required.'
            )

    def create_pool(self, group_name: str, name: str, size_bytes: int) -> Volume:
        group = self.group(group_name)
        volume = Volume(group, name, round_up(size_bytes), "pool")
        self._require_extents(group, volume.size_bytes + 2 * group.metadata_bytes(volume))
        return self._new(group, volume)

    def create_thick(self, group_name: str, name: str, size_bytes: int, tags: set[str]) -> Volume:
        group = self.group(group_name)
        volume = Volume(group, name, round_up(size_bytes), "thick", tags=tags)
        if name not in group.volumes:
            self._require_extents(group, volume.size_bytes)
        return self._new(group, volume)

    def _pool(self, group: VolumeGroup, name: str) -> Volume:
        pool = group.volumes.get(name)
        if pool is None:
            raise LvmError(f"Pool {name} not found in Volume group {group.name}.")
        if pool.kind != "pool":
            raise LvmError(f"Logical volume {group.name}/{name} is not a thin pool.")
        pool_name = f"{group.name}/{name}"
        refused = "Cannot create new thin volume, free {} in thin pool {} reached threshold."
        pool.out_of_data = pool.out_of_data and group.pool_free_bytes(name) == 0
        # As long as no write has failed, a full pool takes new volumes all the same.
        if pool.out_of_data:
            what = refused.format("space", pool_name)
            raise LvmError(f"WARNING: Thin pool {pool_name} is out of data space.\n  {what}")
        if (group.metadata_percent(pool) or 0.0) >= 95.0:
            raise LvmError(refused.format("metadata space", pool_name))
        return pool

    def create_thin(self, group_name: str, pool: str, name: str, size_bytes: int, tags: set[str]) -> Volume:
        group = self.group(group_name)
        self._pool(group, pool)
        return self._new(group, Volume(group, name, round_up(size_bytes), "thin", pool=pool, tags=tags))

    def create_snapshot(self, origin_name: str, name: str, tags: set[str], *, skip_activation: bool) -> Volume:
        group_name, _, volume_name = origin_name.partition("/")
        group = self.group(group_name)
        origin = group.volumes.get(volume_name)
        if origin is None:
            raise LvmError(f"Snapshot origin LV {volume_name} not found in Volume group {group_name}.")
        if origin.kind != "thin":
            raise LvmError("Please specify either size or extents with snapshots.")
        self._pool(group, origin.pool)
        volume = Volume(group, name, origin.size_bytes, "thin", pool=origin.pool, origin=origin.name, tags=tags)
        self._new(group, volume)
        volume.skip_activation = skip_activation
        volume.active = not skip_activation
        volume.shared_bytes = origin.mapped_bytes
        filesystem = origin.look()
        if filesystem is not None:
            root = clone(filesystem.root)
            assert isinstance(root, Directory)
            copy = FileSystem(
                filesystem.kind,
                capacity_bytes=filesystem.capacity_bytes,
                uuid=filesystem.uuid,
                label=filesystem.label,
                root=root,
            )
            volume._adopt(copy)
        elif origin.raw is not None:
            volume.raw = bytearray(origin.raw)
        self.changed(group)
        return volume

    @staticmethod
    def require_idle(volume: Volume) -> None:
        if volume.mounted_at:
            raise LvmError(f"Logical volume {volume.full_name} contains a filesystem in use.")
        if volume.opened_by:
            raise LvmError(f"Logical volume {volume.full_name} in use.")

    def remove(self, volume: Volume) -> list[str]:
        """Remove a volume (a pool with its thin volumes); returns the names that went."""
        group = volume.group
        gone = [volume]
        if volume.kind == "pool":
            gone = [*group.thins(volume.name), volume]
        for each in gone:
            self.require_idle(each)
        for each in gone:
            if each.ever_booted:
                group.audit("remove", each, "")
            self._bequeath(each)
            del group.volumes[each.name]
        self.changed(group)
        return [each.name for each in gone]

    @staticmethod
    def _bequeath(volume: Volume) -> None:
        """Blocks that snapshots still share outlive their origin: the first heir accounts for them."""
        heirs = [v for v in volume.group.volumes.values() if v.origin == volume.name]
        for index, heir in enumerate(heirs):
            heir.origin = ""
            if index == 0:
                heir.own_bytes += min(volume.own_bytes, heir.shared_bytes)
                heir.shared_bytes = max(0, heir.shared_bytes - volume.own_bytes)

    def rename(self, group_name: str, old: str, new: str) -> None:
        usage = "\n  Run `lvrename --help' for more information."
        if old == new:
            raise LvmError(f"Old and new logical volume names must differ{usage}", 3)
        if len(new) > name_bytes_max(group_name):
            limit = name_bytes_max(group_name)
            raise LvmError(f'New logical volume name "{new}" may not exceed {limit} characters.{usage}', 3)
        if not NAME.match(new) or new in (".", ".."):
            raise LvmError(f'New logical volume name "{new}" is invalid{usage}', 3)
        if reserved := reserved_name(new):
            raise LvmError(f"{reserved}{usage}", 3)
        group = self.group(group_name)
        volume = group.volumes.get(old)
        if volume is None:
            raise LvmError(f'Existing logical volume "{old}" not found in volume group "{group_name}"')
        if new in group.volumes:
            raise LvmError(f'Logical Volume "{new}" already exists in volume group "{group_name}"')
        del group.volumes[old]
        volume.name = new
        group.volumes[new] = volume
        for other in group.volumes.values():
            other.origin = new if other.origin == old else other.origin
            other.pool = new if other.pool == old else other.pool
        self.changed(group)

    def activate(self, volume: Volume, *, on: bool, ignore_skip: bool = False) -> None:
        if on and volume.skip_activation and not ignore_skip:
            return  # lvm says nothing either: the volume simply stays inactive
        if not on:
            self.require_idle(volume)
        volume.active = on
        self._on_change()

    def extend(self, volume: Volume, size_bytes: int) -> None:
        new = round_up(size_bytes)
        if new == volume.size_bytes:
            raise LvmError(
                f"New size ({new // EXTENT_BYTES} extents) matches existing size ({new // EXTENT_BYTES} extents)."
            )
        if new < volume.size_bytes:
            raise LvmError(
                f"New size given ({new // EXTENT_BYTES} extents) not larger than existing size "
                f"({volume.size_bytes // EXTENT_BYTES} extents)"
            )
        more, free = (new - volume.size_bytes) // EXTENT_BYTES, volume.group.free_bytes // EXTENT_BYTES
        if volume.kind != "thin" and more > free:
            raise LvmError(f"Insufficient free space: {more} extents needed, but only {free} available")
        volume.size_bytes = new
        self.changed(volume.group)

    def restart(self) -> None:
        """What a boot does: nothing is open, and all volumes are active but those that skip activation."""
        for group in self.groups.values():
            for volume in group.volumes.values():
                volume.mounted_at.clear()
                volume.opened_by.clear()
                volume.active = not volume.skip_activation
        self._on_change()
