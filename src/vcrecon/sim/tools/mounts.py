"""File systems on a simulated host: mkfs.xfs, mount, umount, findmnt, blkid, the xfs_* tools."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import uuid
from collections.abc import Sequence

from vcrecon.sim.files import Directory, FileSystem, Mount
from vcrecon.sim.lvm import Volume
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import full, given, last, options, reason, tool

TOOLS: dict[str, Tool] = {}
XFS_FATAL = "fatal error -- couldn't initialize XFS library"
XFS_BYTES_MIN = 300 << 20
MOUNT_FAILED = 32
DMESG = "\n       dmesg(1) may have more information after failed mount system call."


def _volume(process: Process, path: str) -> Volume | None:
    return process.machine.volume_at(full(process, path))


def new_uuid(volume: Volume) -> str:
    """A file system identifier, different each time one is made on the volume."""
    seed = f"{volume.uuid}/{volume.own_bytes}/{volume.filesystem.uuid if volume.filesystem else ''}"
    return str(uuid.UUID(hashlib.md5(seed.encode(), usedforsecurity=False).hexdigest()))


@tool(TOOLS, "mkfs.xfs")
async def mkfs_xfs(process: Process, args: Sequence[str]) -> int:
    found, rest = options("mkfs.xfs", args, "qfL:m:d:i:l:n:s:b:KN")
    if not rest:
        return await process.fail("no device name given in argument list\nUsage: mkfs.xfs")
    path = rest[0]
    label = last(found, "-L") or ""
    if len(label) > 12:
        return await process.fail(f"Invalid value {label} for -L option\nUsage: mkfs.xfs")
    volume = _volume(process, path)
    if volume is None:
        return await process.fail(
            f"Error accessing specified device {path}: No such file or directory\nUsage: mkfs.xfs"
        )
    if volume.signature() and not given(found, "-f"):
        return await process.fail(
            f"mkfs.xfs: {path} appears to contain an existing filesystem (xfs).\n"
            "mkfs.xfs: Use the -f option to force overwrite."
        )
    if volume.mounted_at:
        return await process.fail(f"mkfs.xfs: {path} contains a mounted filesystem\nUsage: mkfs.xfs")
    if volume.opened_by:
        return await process.fail(f"mkfs.xfs: cannot open {path}: Device or resource busy")
    if volume.size_bytes < XFS_BYTES_MIN:
        return await process.fail("Filesystem must be larger than 300MB.\nUsage: mkfs.xfs")
    await process.machine.work("mkfs")
    if volume.ever_booted:
        process.machine.audit("mkfs", volume, "")
    wanted = re.search(r"uuid=([0-9a-f-]{36})", last(found, "-m") or "")
    filesystem = FileSystem(
        "xfs",
        capacity_bytes=int(volume.size_bytes * 0.96),
        uuid=wanted[1] if wanted else new_uuid(volume),
        label=label,
    )
    try:
        volume.format(filesystem)
    except OSError as error:
        return await process.fail(f"mkfs.xfs: pwrite failed: {reason(error)}")
    if not given(found, "-q"):
        await process.say(f"meta-data={path}  isize=512  blocks={volume.size_bytes // 4096}\n")
    return 0


def _mount_options(found: dict[str, list[str]]) -> list[str]:
    return [word for text in found.get("-o", []) + found.get("--options", []) for word in text.split(",") if word]


@tool(TOOLS, "mount")
async def mount(process: Process, args: Sequence[str]) -> int:
    found, rest = options("mount", args, "t:o:rvna", ["options=", "types=", "bind", "make-private", "mkdir"])
    files = process.machine.files
    if not rest:
        for each in files.mounts:
            shown = ",".join(each.options)
            await process.say(f"{each.source} on {each.target} type {each.filesystem.kind} ({shown})\n")
        return 0
    if len(rest) == 1:
        return await process.fail(f"mount: {rest[0]}: can't find in /etc/fstab.", 1)
    source, target = rest[0], full(process, rest[1])
    words = _mount_options(found) + (["ro"] if given(found, "-r") else [])
    if "X-mount.mkdir" in words and not files.exists(target):
        files.mkdir(target, parents=True)
    if not files.exists(target):
        return await process.fail(f"mount: {target}: mount point does not exist.{DMESG}", MOUNT_FAILED)
    if not files.is_dir(target):
        return await process.fail(f"mount: {target}: mount point is not a directory.{DMESG}", MOUNT_FAILED)
    target = files.realpath(target)
    await process.machine.work("mount")
    if given(found, "--bind") or "bind" in words:
        return await _bind(process, full(process, source), target, words)
    kind = last(found, "-t", "--types")
    if kind == "tmpfs":
        tmpfs = FileSystem("tmpfs", capacity_bytes=_tmpfs_bytes(words, process.machine.memory_bytes // 2))
        files.attach(Mount(target, tmpfs, source, ("ro" if "ro" in words else "rw", "relatime")))
        return 0
    return await _mount_device(process, source, target, kind, words)


def _tmpfs_bytes(words: list[str], default_bytes: int) -> int:
    """The `size=` option in bytes, whole pages, or the default."""
    for word in words:
        match = re.fullmatch(r"size=(\d+)([kmg]?)", word.lower())
        if match is not None:
            size = int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[match[2]]
            return -(-size // 4096) * 4096
    return default_bytes


async def _bind(process: Process, source: str, target: str, words: list[str]) -> int:
    files = process.machine.files
    place = files.place(source)
    if not isinstance(place.node, Directory):
        return await process.fail(f"mount: {target}: special device {source} does not exist.{DMESG}", MOUNT_FAILED)
    inner = place.mount
    files.attach(Mount(target, inner.filesystem, inner.source, inner.options, inner.device, place.node))
    if isinstance(inner.device, Volume):
        inner.device.mounted_at.append(target)
    return 0


async def _mount_device(process: Process, source: str, target: str, kind: str | None, words: list[str]) -> int:
    files = process.machine.files
    volume = _volume(process, source)
    if volume is None:
        if files.exists(full(process, source)):
            return await process.fail(f"mount: {target}: {source} is not a block device.{DMESG}", MOUNT_FAILED)
        message = f"mount: {target}: special device {source} does not exist.{DMESG}"
        return await process.fail(message, MOUNT_FAILED)
    signature = volume.signature()
    filesystem = volume.look()
    wrong = (
        f"mount: {target}: wrong fs type, bad option, bad superblock on {source}, "
        f"missing codepage or helper program, or other error.{DMESG}"
    )
    if not signature or (kind not in (None, "auto", "xfs")):
        return await process.fail(wrong, MOUNT_FAILED)
    if filesystem is None:
        return await process.fail(
            f"mount: {target}: mount(2) system call failed: Structure needs cleaning.{DMESG}", MOUNT_FAILED
        )
    known = {
        "rw",
        "ro",
        "nouuid",
        "relatime",
        "noatime",
        "defaults",
        "discard",
        "nosuid",
        "nodev",
        "noexec",
        "norecovery",
        "X-mount.mkdir",
        "inode64",
        "prjquota",
        "noquota",
        "sync",
        "nodiratime",
        "logbufs",
    }
    if any(word.split("=")[0] not in known for word in words):
        return await process.fail(wrong, MOUNT_FAILED)
    if volume.opened_by:
        return await process.fail(
            f"mount: {target}: {source} already mounted or mount point busy.{DMESG}", MOUNT_FAILED
        )
    if target in volume.mounted_at:
        return await process.fail(f"mount: {target}: {source} already mounted on {target}.{DMESG}", MOUNT_FAILED)
    twin = any(
        each.filesystem.kind == "xfs" and each.filesystem is not filesystem and each.filesystem.uuid == filesystem.uuid
        for each in files.mounts
    )
    if twin and "nouuid" not in words:
        return await process.fail(wrong, MOUNT_FAILED)
    shown = ["ro" if "ro" in words else "rw"]
    shown += [word for word in ("nosuid", "nodev", "noexec", "noatime") if word in words]
    shown += [] if "noatime" in words else ["relatime"]
    shown += [word for word in words if word in ("nouuid", "discard")]
    mapper = f"/dev/mapper/{volume.group.name.replace('-', '--')}-{volume.name.replace('-', '--')}"
    options_ = (*shown, "attr2", "inode64", "logbufs=8", "logbsize=32k", "noquota")
    files.attach(Mount(target, filesystem, mapper, options_, volume))
    volume.mounted_at.append(target)
    return 0


@tool(TOOLS, "umount")
async def umount(process: Process, args: Sequence[str]) -> int:
    found, rest = options("umount", args, "lfRqd", ["lazy", "force", "recursive", "quiet"])
    files = process.machine.files
    status = 0
    for path in rest:
        place = full(process, path)
        volume = _volume(process, path)
        if volume is not None and volume.mounted_at:
            place = volume.mounted_at[-1]
        if not files.exists(place):
            status = await process.fail(f"umount: {path}: no mount point specified.", MOUNT_FAILED)
            continue
        place = files.realpath(place)
        targets = [place]
        if given(found, "-R", "--recursive"):
            targets = [m.target for m in reversed(files.mounts) if m.target.startswith(place + "/")] + targets
        for target in targets:
            if not given(found, "-l", "--lazy") and process.machine.in_use(target):
                status = await process.fail(f"umount: {path}: target is busy.", MOUNT_FAILED)
                break
            try:
                gone = files.detach(target)
            except OSError:
                status = await process.fail(f"umount: {path}: target is busy.", MOUNT_FAILED)
                break
            if gone is None:
                status = await process.fail(f"umount: {path}: not mounted.", MOUNT_FAILED)
            elif isinstance(gone.device, Volume) and target in gone.device.mounted_at:
                gone.device.mounted_at.remove(target)
    return status


@tool(TOOLS, "mountpoint")
async def mountpoint(process: Process, args: Sequence[str]) -> int:
    found, rest = options("mountpoint", args, "qd", ["quiet"])
    quiet = given(found, "-q", "--quiet")
    files = process.machine.files
    place = full(process, rest[0]) if rest else "/"
    if not files.exists(place):
        return 1 if quiet else await process.fail(f"mountpoint: {rest[0]}: No such file or directory")
    mounted = any(m.target == files.realpath(place) for m in files.mounts)
    if not quiet:
        await process.say(f"{rest[0]} is {'' if mounted else 'not '}a mountpoint\n")
    return 0 if mounted else 32


@tool(TOOLS, "findmnt")
async def findmnt(process: Process, args: Sequence[str]) -> int:
    found, rest = options(
        "findmnt",
        args,
        "JnrlfT:o:M:S:t:",
        ["json", "first-only", "noheadings", "raw", "list", "output=", "target=", "mountpoint=", "source=", "types="],
    )
    files = process.machine.files
    chosen = list(files.mounts)
    where = last(found, "-M", "--mountpoint") or (rest[0] if rest else None)
    if where is not None:
        place = full(process, where)
        volume = _volume(process, where)
        chosen = [m for m in chosen if place in (m.target, m.source) or (volume is not None and m.device is volume)]
    containing = last(found, "-T", "--target")
    if containing is not None:
        chosen = [files.mount_of(full(process, containing))]
    source = last(found, "-S", "--source")
    if source is not None:
        volume = _volume(process, source)
        chosen = [m for m in chosen if m.source == source or (volume is not None and m.device is volume)]
    kinds = (last(found, "-t", "--types") or "").split(",")
    chosen = [m for m in chosen if kinds == [""] or m.filesystem.kind in kinds]
    if not chosen:
        return 1
    if given(found, "-f", "--first-only"):
        chosen = chosen[:1]
    columns = (last(found, "-o", "--output") or "TARGET,SOURCE,FSTYPE,OPTIONS").upper().split(",")
    rows = [
        {
            "TARGET": m.target,
            "SOURCE": m.source,
            "FSTYPE": m.filesystem.kind,
            "OPTIONS": ",".join(m.options),
            "UUID": m.filesystem.uuid,
        }
        for m in chosen
    ]
    if given(found, "-J", "--json"):
        entries = [{c.lower(): row.get(c, "") for c in columns} for row in rows]
        await process.say(json.dumps({"filesystems": entries}, indent=3) + "\n")
        return 0
    cells = [[row.get(c, "") for c in columns] for row in rows]
    if not given(found, "-n", "--noheadings"):
        cells.insert(0, columns)
    widths = [0 if given(found, "-r", "--raw") else max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        text = " ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        await process.say(text.rstrip() + "\n")
    return 0


@tool(TOOLS, "blkid")
async def blkid(process: Process, args: Sequence[str]) -> int:
    found, rest = options("blkid", args, "o:s:p")
    tags = found.get("-s")
    status = 2
    for path in rest:
        volume = _volume(process, path)
        if volume is None or not volume.signature():
            continue
        filesystem = volume.look()
        values = {
            "LABEL": filesystem.label if filesystem else "",
            "UUID": filesystem.uuid if filesystem else "",
        }
        values |= {"BLOCK_SIZE": "512", "TYPE": "xfs"}
        values = {k: v for k, v in values.items() if v and (tags is None or k in tags)}
        if values:
            status = 0
        form = last(found, "-o")
        if form == "value":
            await process.say("".join(f"{value}\n" for value in values.values()))
        elif form == "export":
            await process.say(f"DEVNAME={path}\n" + "".join(f"{k}={v}\n" for k, v in values.items()))
        elif values:
            await process.say(f"{path}: " + " ".join(f'{k}="{v}"' for k, v in values.items()) + "\n")
    return status


@tool(TOOLS, "blockdev")
async def blockdev(process: Process, args: Sequence[str]) -> int:
    found, rest = options("blockdev", args, "", ["getsize64", "flushbufs", "setro", "setrw"])
    for path in rest:
        volume = _volume(process, path)
        if volume is None:
            return await process.fail(f"blockdev: cannot open {path}: No such file or directory")
        if given(found, "--getsize64"):
            await process.say(f"{volume.size_bytes}\n")
    return 0


@tool(TOOLS, "wipefs")
async def wipefs(process: Process, args: Sequence[str]) -> int:
    found, rest = options("wipefs", args, "afq", ["all", "force", "quiet"])
    for path in rest:
        volume = _volume(process, path)
        if volume is None:
            return await process.fail(
                f"wipefs: error: {path}: probing initialization failed: No such file or directory"
            )
        if volume.mounted_at or volume.opened_by:
            return await process.fail(f"wipefs: error: {path}: probing initialization failed: Device or resource busy")
        if given(found, "-a", "--all"):
            if volume.ever_booted:
                process.machine.audit("mkfs", volume, "wipefs")
            volume.filesystem, volume.raw = None, None
    return 0


@tool(TOOLS, "xfs_growfs")
async def xfs_growfs(process: Process, args: Sequence[str]) -> int:
    _, rest = options("xfs_growfs", args, "d")
    place = full(process, rest[0]) if rest else ""
    for each in process.machine.files.mounts:
        if each.target == place and isinstance(each.device, Volume):
            each.filesystem.capacity_bytes = int(each.device.size_bytes * 0.96)
            await process.say(f"data blocks changed to {each.device.size_bytes // 4096}\n")
            return 0
    return await process.fail(f"xfs_growfs: {posixpath.normpath(place)} is not a mounted XFS filesystem")


@tool(TOOLS, "xfs_admin")
async def xfs_admin(process: Process, args: Sequence[str]) -> int:
    found, rest = options("xfs_admin", args, "U:L:lu")
    volume = _volume(process, rest[0]) if rest else None
    filesystem = volume.look() if volume is not None else None
    if volume is None or filesystem is None:
        shown = rest[0] if rest else ""
        if volume is None:
            return await process.fail(f"{shown}: No such file or directory\n\n{XFS_FATAL}")
        return await process.fail(
            f"xfs_admin: {shown} is not a valid XFS filesystem (unexpected SB magic number 0x00000000)"
        )
    if given(found, "-u"):
        await process.say(f"UUID = {filesystem.uuid}\n")
        return 0
    if volume.mounted_at:
        return await process.fail(f"xfs_admin: {rest[0]} contains a mounted filesystem\n\n{XFS_FATAL}")
    wanted = last(found, "-U")
    if wanted is not None:
        volume.grow(4096)
        filesystem.uuid = new_uuid(volume) if wanted == "generate" else wanted
        await process.say(f"Clearing log and setting UUID\nwriting all SBs\nnew UUID = {filesystem.uuid}\n")
    if given(found, "-L"):
        filesystem.label = last(found, "-L") or ""
        await process.say(f'writing all SBs\nnew label = "{filesystem.label}"\n')
    return 0


@tool(TOOLS, "xfs_repair")
async def xfs_repair(process: Process, args: Sequence[str]) -> int:
    _, rest = options("xfs_repair", args, "nvLf")
    volume = _volume(process, rest[0]) if rest else None
    if volume is None:
        return await process.fail(f"{rest[0] if rest else ''}: No such file or directory\n\n{XFS_FATAL}")
    if volume.mounted_at:
        return await process.fail(f"xfs_repair: {rest[0]} contains a mounted filesystem\n\n{XFS_FATAL}")
    await process.say("Phase 1 - find and verify superblock...\n")
    if volume.look() is None:
        await process.say(
            "bad primary superblock - bad magic number !!!\n\nattempting to find secondary superblock...\n"
            "..Sorry, could not find valid secondary superblock\nExiting now.\n"
        )
        return 1
    await process.say("Phase 7 - verify link counts...\nNo modify flag set, skipping filesystem flush and exiting.\n")
    return 0
