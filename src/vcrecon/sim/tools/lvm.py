"""lvm2 2.03.16 on a simulated host: lvcreate, lvremove, lvrename, lvchange, lvextend, vgchange, reports."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from vcrecon.sim.lvm import EXTENT_BYTES, LvmError, VolumeGroup
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import Failure, given, last, tool
from vcrecon.sim.tools._lvm_reports import UNITS, USAGE_STATUS, parse, report_text

TOOLS: dict[str, Tool] = {}
SIZE = re.compile(r"(\d+(?:\.\d+)?)([bBsSkKmMgGtT]?)i?B?\Z")
Body = Callable[[Process, str, Sequence[str]], str]


def parse_size(option: str, text: str, default: str = "m") -> int:
    """Bytes of an lvm size. Raises LvmError with status 3."""
    match = SIZE.match(text)
    error = f"Invalid argument for {option}: {text}\n  Error during parsing of command line."
    if match is None:
        raise LvmError(error, USAGE_STATUS)
    size = int(float(match[1]) * UNITS[(match[2] or default).lower()])
    if size % 512:
        raise LvmError(
            f"Size is not a multiple of 512. Try using {size // 512 * 512} or {size // 512 * 512 + 512}.\n  {error}",
            USAGE_STATUS,
        )
    return size


def _tags(found: dict[str, list[str]], process: Process, option: str = "--addtag") -> set[str]:
    return {process.machine.lvm.check_tag(option, tag) for tag in found.get(option, [])}


def lvcreate(process: Process, command: str, args: Sequence[str]) -> str:
    long = [
        "thin",
        "type=",
        "virtualsize=",
        "size=",
        "extents=",
        "name=",
        "addtag=",
        "snapshot",
        "thinpool=",
        "setactivationskip=",
        "wipesignatures=",
        "zero=",
        "activate=",
        "poolmetadatasize=",
        "chunksize=",
        "ignoreactivationskip",
        "poolmetadataspare=",
        "discards=",
    ]
    found, rest = parse(command, args, "TV:L:l:n:k:sW:Z:a:Kc:", long)
    lvm = process.machine.lvm
    name = last(found, "-n", "--name")
    tags = _tags(found, process)
    if not rest:
        raise LvmError("Please provide a volume group name\n  Run `lvcreate --help' for more information.", 3)
    target = rest[0].removeprefix("/dev/")
    group, _, object_name = target.partition("/")
    size_text = last(found, "-V", "--virtualsize") or last(found, "-L", "--size")
    if name is None:
        if "thin-pool" in found.get("--type", []) and object_name:
            name = object_name
        else:
            raise LvmError("Please specify a name with -n.", 3)
    if given(found, "-s", "--snapshot"):
        skip = last(found, "-k", "--setactivationskip") != "n"
        lvm.create_snapshot(target, name, tags, skip_activation=skip)
    elif last(found, "--type") == "thin-pool":
        extents = last(found, "-l", "--extents")
        lvm.create_pool(group, name, _pool_size(lvm.group(group), extents, last(found, "-L", "--size")))
        return f'Logical volume "{name}" created.'
    elif given(found, "-T", "--thin", "-V", "--virtualsize"):
        pool = object_name or last(found, "--thinpool") or ""
        if size_text is None:
            raise LvmError("Please specify a virtual size (-V).", 3)
        lvm.create_thin(group, pool, name, parse_size("--virtualsize", size_text), tags)
    else:
        if size_text is None:
            raise LvmError("Please specify either size or extents (not both).", 3)
        lvm.create_thick(group, name, parse_size("--size", size_text), tags)
    return f'Logical volume "{name}" created.'


def _pool_size(group: VolumeGroup, extents: str | None, size: str | None) -> int:
    if size is not None:
        return parse_size("--size", size)
    match = re.fullmatch(r"(\d+)(?:%(FREE|VG))?", extents or "")
    if match is None:
        raise LvmError(f"Invalid argument for --extents: {extents}\n  Error during parsing of command line.", 3)
    count = int(match[1])
    if match[2]:
        whole = group.free_bytes if match[2] == "FREE" else group.size_bytes
        count = whole // EXTENT_BYTES * count // 100
        while count > 1 and count * EXTENT_BYTES + 2 * EXTENT_BYTES > group.free_bytes:
            count -= 1  # room for the metadata and its spare
    return count * EXTENT_BYTES


def lvremove(process: Process, command: str, args: Sequence[str]) -> str:
    found, rest = parse(command, args, "", ["noudevsync"])
    if not rest:
        raise LvmError("Please enter one or more logical volume paths", USAGE_STATUS)
    volumes, missing = [], ""
    for path in rest:
        try:
            volumes.append(process.machine.lvm.find(path))
        except LvmError as error:
            if len(rest) == 1:
                raise
            missing = str(error)
    sure = given(found, "-y", "--yes", "-f", "--force")
    gone: list[str] = []
    for volume in volumes:
        if volume.name in gone:
            continue  # with its pool
        if volume.active and not sure:
            # Standard input is not a terminal: the question gets no answer.
            raise LvmError(
                f"Do you really want to remove active logical volume {volume.full_name}? [y/n]: [n]\n"
                f"  Logical volume {volume.full_name} not removed."
            )
        if volume in process.machine.volumes_in_use():
            raise LvmError(f"Logical volume {volume.full_name} in use.")
        gone += process.machine.lvm.remove(volume)
    text = "\n  ".join(f'Logical volume "{name}" successfully removed.' for name in gone)
    if missing:
        raise LvmError(missing, said=text)
    return text


def lvrename(process: Process, command: str, args: Sequence[str]) -> str:
    _, rest = parse(command, args, "", [])
    if len(rest) == 2:
        group, _, old = rest[0].removeprefix("/dev/").partition("/")
        rest = [group, old, rest[1].rsplit("/", 1)[-1]]
    if len(rest) != 3:
        raise LvmError("Old and new logical volume names required", USAGE_STATUS)
    group, old, new = rest[0], rest[1].rsplit("/", 1)[-1], rest[2].rsplit("/", 1)[-1]
    process.machine.lvm.rename(group, old, new)
    return f'Renamed "{old}" to "{new}" in volume group "{group}"'


def lvchange(process: Process, command: str, args: Sequence[str]) -> str:
    long = ["addtag=", "deltag=", "activate=", "setactivationskip=", "ignoreactivationskip", "permission="]
    long += ["errorwhenfull="]
    found, rest = parse(command, args, "a:k:Kp:", long)
    lvm = process.machine.lvm
    add, remove = _tags(found, process), _tags(found, process, "--deltag")
    if not rest:
        raise LvmError("Please give logical volume path(s)", USAGE_STATUS)
    changes = add or remove or given(found, "-a", "--activate", "-k", "--setactivationskip", "-p", "--errorwhenfull")
    if not changes:
        raise LvmError("Please specify an option that changes the volume.", USAGE_STATUS)
    lines = []
    for volume in [lvm.find(path) for path in rest]:
        volume.tags = (volume.tags | add) - remove
        skip = last(found, "-k", "--setactivationskip")
        if skip is not None:
            volume.skip_activation = skip == "y"
        activate = last(found, "-a", "--activate")
        if activate is not None:
            ignore = given(found, "-K", "--ignoreactivationskip")
            lvm.activate(volume, on=not activate.endswith("n"), ignore_skip=ignore)
        if add or remove or skip is not None or given(found, "--errorwhenfull"):
            lvm.changed(volume.group)
            lines.append(f"Logical volume {volume.full_name} changed.")
    return "\n  ".join(lines)


def lvextend(process: Process, command: str, args: Sequence[str]) -> str:
    found, rest = parse(command, args, "L:l:r", ["size=", "resizefs"])
    size = last(found, "-L", "--size")
    if size is None or not rest:
        raise LvmError("Please specify either size or extents but not both.", USAGE_STATUS)
    volume = process.machine.lvm.find(rest[0])
    old = volume.size_bytes
    wanted = parse_size("--size", size.lstrip("+")) + (old if size.startswith("+") else 0)
    process.machine.lvm.extend(volume, wanted)
    return (
        f"Size of logical volume {volume.full_name} changed from "
        f"{human(old)} ({old // EXTENT_BYTES} extents) to "
        f"{human(volume.size_bytes)} ({volume.size_bytes // EXTENT_BYTES} extents).\n"
        f"  Logical volume {volume.full_name} successfully resized."
    )


def human(size: int) -> str:
    for letter in ("TiB", "GiB", "MiB", "KiB"):
        unit = UNITS[letter[0].lower()]
        if size >= unit:
            return f"{size / unit:.2f} {letter}"
    return f"{size} B"


def vgchange(process: Process, command: str, args: Sequence[str]) -> str:
    found, rest = parse(command, args, "a:K", ["activate=", "addtag=", "deltag=", "sysinit", "ignoreactivationskip"])
    lvm = process.machine.lvm
    activate = last(found, "-a", "--activate")
    lines = []
    for group in [lvm.group(name) for name in rest] or list(lvm.groups.values()):
        on = activate is None or not activate.endswith("n")
        for volume in group.volumes.values():
            if activate is not None:
                lvm.activate(volume, on=on, ignore_skip=given(found, "-K"))
        count = sum(1 for v in group.volumes.values() if v.active)
        lines.append(f'{count} logical volume(s) in volume group "{group.name}" now active')
    return "\n  ".join(lines)


COMMANDS: dict[str, tuple[Body, str]] = {
    "lvcreate": (lvcreate, "lvcreate"),
    "lvremove": (lvremove, "lvremove"),
    "lvrename": (lvrename, "lvchange"),
    "lvchange": (lvchange, "lvchange"),
    "lvextend": (lvextend, "lvchange"),
    "vgchange": (vgchange, "lvchange"),
    "lvs": (report_text, "lvreport"),
    "vgs": (report_text, "lvreport"),
    "pvs": (report_text, "lvreport"),
    "fullreport": (report_text, "lvreport"),
}


@tool(TOOLS, "lvm", *(name for name in COMMANDS if name != "fullreport"), status=5)
async def lvm(process: Process, args: Sequence[str]) -> int:
    command = posixpath.basename(process.argv[0])
    if command == "lvm":
        if not args or args[0] not in (*COMMANDS, "version"):
            raise Failure("  No such command.  Try 'lvm help'.", 2)
        command, args = args[0], args[1:]
    if command == "version":
        await process.say("  LVM version:     2.03.16(2) (2022-05-18)\n")
        return 0
    body, operation = COMMANDS[command]
    await process.machine.work(operation)
    try:
        text = body(process, command, args)
    except LvmError as error:
        if error.said:
            await process.say(f"  {error.said}\n")
        return await process.fail(f"  {error}", error.status)
    if body is report_text:
        await process.say(text)
    elif text:
        await process.say(f"  {text}\n")
    return 0
