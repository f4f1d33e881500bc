"""Cases of disks: every script that makes, fills, marks, copies, puts aside or removes a volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.lab.conformance.case import Case, look_script, looked, nothing, shape
from tests.lab.conformance.place import DISK_BYTES, GUEST, IMAGE_BYTES, OTHER, SITE, THICK, Place, nowhere_else

from vcrecon.core.actions import (
    Action,
    ActivateCopy,
    CopyDisk,
    CreateVolume,
    Discard,
    FetchImage,
    MarkTouched,
    Prune,
    Quarantine,
    Restore,
)
from vcrecon.core.observation import Part, Volume
from vcrecon.host import scripts
from vcrecon.host.names import (
    IMAGE_DIR,
    device,
    golden_volume,
    guest_volume,
    mount_point,
    quarantined_volume,
    rescue_point,
)
from vcrecon.host.steps import Step, locked

WHY = "conformance"
LIVE, ASIDE = guest_volume(GUEST), quarantined_volume(GUEST, 1)
THICK_LIVE = guest_volume(THICK)
VOLUMES = (LIVE, ASIDE, guest_volume(OTHER), THICK_LIVE)
MAPPED = frozenset({"device-mapper"})
ASKED = frozenset({"hypervisor"})
SMALL_BYTES = 8 << 20


class Builder:
    """Makes the cases of one family: they all look at the storage afterwards and sweep what they made."""

    def __init__(self, place: Place, family: str) -> None:
        self.place, self.family, self.disks = place, family, place.disks
        self.golden = golden_volume(place.files.sha256("root.tar"))
        self.sweep = sweep(place)

    def step(self, action: Action, *volumes: Volume) -> Step:
        (step,) = scripts.steps(action, self.place.bench(volumes))
        return step

    def case(self, situation: str, step: Step | str, given: list[str] | tuple[str, ...] = (), **more: object) -> Case:
        command, stdin = (step.script, step.stdin or b"") if isinstance(step, Step) else (step, b"")
        defaults: dict[str, object] = {
            "stdin": stdin,
            "then": look_script(self.place, [Part.STORAGE]),
            "reduce": looked(Part.STORAGE),
            "cleanup": self.sweep,
        }
        return Case(self.family, situation, command, given=tuple(given), **(defaults | more))  # type: ignore[arg-type]

    def volume(self, name: str, *tags: str, size_bytes: int = SMALL_BYTES) -> str:
        """A line that makes a volume of the site with these tags."""
        marks = self.disks.marks(*tags)
        return f"lvcreate -y -Wy -L {size_bytes}b -n {name} {marks} {self.place.group} >/dev/null"

    def ours(self, name: str = LIVE, *tags: str, size_bytes: int = SMALL_BYTES) -> str:
        """A complete disk of GUEST."""
        return self.volume(
            name, f"vc.guest={GUEST}", "vc.epoch=1", "vc.boots=1", "vc.image=abc", *tags, size_bytes=size_bytes
        )

    def filled(self, name: str = LIVE, archive: str = "root.tar") -> list[str]:
        """A disk of GUEST with the image's tree on it, as the product unpacks it."""
        image = self.place.image(archive)
        return [
            *self.fetched(archive),
            self.ours(name, size_bytes=IMAGE_BYTES),
            *self.disks._unpack(name, f"{IMAGE_DIR}/{image.root.sha256}", image),
        ]

    def fetched(self, name: str = "root.tar") -> list[str]:
        image = replace(self.place.image(name), kernel=None)
        return self.disks.fetch(image, golden=False)


def sweep(place: Place) -> tuple[str, ...]:
    """Takes away everything of the suite's that can be on the disks; quick where there is nothing."""
    golden = golden_volume(place.files.sha256("root.tar"))
    files = " ".join(f"{IMAGE_DIR}/{place.files.sha256(name)}*" for name in place.files.contents)
    names = (*VOLUMES, golden, "cf-pool", "cf-foreign", "cf-big")
    mounts = " ".join((*(mount_point(name) for name in names), rescue_point(GUEST)))
    return (
        f"for mount in {mounts}; do",
        "  if [ -d $mount ]; then",
        "    while mountpoint -q $mount; do umount $mount || break; done",
        "    rmdir $mount",
        "  fi",
        "done",
        "gone=",
        f"for volume in $(lvs --noheadings -o lv_name {place.group}); do",
        f'  case $volume in {" | ".join(names)}) gone="$gone {place.group}/$volume" ;; esac',
        "done",
        'if [ "$gone" ]; then lvremove -y $gone >/dev/null; fi',
        f"rm -f {files}",
    )


def cases(place: Place) -> Iterator[Case]:
    yield from _fetch(place)
    yield from _create(place)
    yield from _thin(place)
    yield from _marks(place)
    yield from _aside(place)
    yield from _remove(place)
    yield from _copy(place)


def _fetch(place: Place) -> Iterator[Case]:
    b = Builder(place, "fetch-image")
    boot_only = b.step(FetchImage("here", WHY, "root.tar", boot_only=True))
    whole = b.step(FetchImage("here", WHY, "root.tar"))
    look = {"then": look_script(place, [Part.SYSTEM, Part.STORAGE]), "reduce": looked(Part.SYSTEM, Part.STORAGE)}
    yield b.case("boot files, nothing there", boot_only, **look)
    yield b.case("boot files, twice", boot_only, [boot_only.script], **look)
    golden_there = [boot_only.script, *b.fetched()]
    yield b.case("golden volume, nothing there", whole, needs=MAPPED, **look)
    yield b.case("golden volume, twice", whole, [whole.script], needs=MAPPED, **look)
    unfinished = (
        f"lvcreate -y --thin -V {IMAGE_BYTES}b -n {b.golden} {b.disks.marks('vc.building')} {place.group}/{place.pool}"
    )
    yield b.case("golden volume, half made", whole, [*golden_there, unfinished], needs=MAPPED, **look)
    mounted = [
        *golden_there,
        unfinished,
        f"mkfs.xfs -q -f {device(place.group, b.golden)}",
        f"mkdir -p {mount_point(b.golden)}",
        f"mount {device(place.group, b.golden)} {mount_point(b.golden)}",
    ]
    yield b.case("golden volume, half made and mounted", whole, mounted, needs=MAPPED, **look)
    nowhere = replace(place, pool="nopool")
    step = Builder(nowhere, "").step(FetchImage("here", WHY, "root.tar"))
    yield b.case("golden volume, no thin pool", step, **look)
    step = Builder(replace(place, group="nogroup"), "").step(FetchImage("here", WHY, "root.tar"))
    yield b.case("golden volume, no volume group", step, **look)


def _create(place: Place) -> Iterator[Case]:
    b = Builder(place, "create-volume")
    thick = b.step(CreateVolume("here", WHY, THICK, 1, elsewhere=nowhere_else(b.place, THICK)))
    fetched = b.fetched()
    yield b.case("thick", thick, fetched)
    yield b.case("thick, complete one there", thick, [*fetched, b.volume(THICK_LIVE, "vc.epoch=1")])
    yield b.case("thick, half made one there", thick, [*fetched, b.volume(THICK_LIVE, "vc.building")])
    yield b.case("thick, incoming one there", thick, [*fetched, b.volume(THICK_LIVE, "vc.incoming")])
    yield b.case(
        "thick, one of the name without our tags",
        thick,
        [*fetched, f"lvcreate -y -Wy -L {SMALL_BYTES}b -n {THICK_LIVE} {place.group} >/dev/null"],
    )
    yield b.case("thick, no image file", thick)
    for kind in ("tar.gz", "tar.xz", "tar.zst"):
        image = place.image(f"root.{kind}")
        lines = b.disks.create_thick(THICK, image, 1, IMAGE_BYTES)
        needs = frozenset({"xz"} if kind == "tar.xz" else ())
        yield b.case(f"thick from {kind}", locked(THICK, lines), b.fetched(f"root.{kind}"), needs=needs)
    lines = b.disks.create_thick(THICK, place.image("no-archive"), 1, IMAGE_BYTES)
    yield b.case("thick from what is no archive", locked(THICK, lines), b.fetched("no-archive"))
    image = place.image("root.tar")
    file = f"{IMAGE_DIR}/{image.root.sha256}"
    for name, why in (("no-init.tar", "a tree without an init"), ("nested.tar", "a tree in a directory of its own")):
        lines = b.disks.create_thick(THICK, place.image(name), 1, IMAGE_BYTES)
        yield b.case(f"thick from {why}", locked(THICK, lines), b.fetched(name), fails=True)
    cut = [*fetched, f"head -c 300000 {file} > {file}.cut", f"mv {file}.cut {file}"]
    yield b.case("thick from an archive cut short", thick, cut)
    yield b.case("thick, group without space", locked(THICK, b.disks.create_thick(THICK, image, 1, 1 << 50)), fetched)
    yield b.case(
        "thick, too small for XFS",
        locked(THICK, b.disks.create_thick(THICK, image, 1, SMALL_BYTES)),
        fetched,
        needs=MAPPED,
    )
    yield b.case(
        "thick, size no multiple of a sector", locked(THICK, b.disks.create_thick(THICK, image, 1, 1000)), fetched
    )
    odd = b.disks.create_thick("bad name", image, 1, SMALL_BYTES)
    yield b.case("thick, garbage name", locked(THICK, odd), fetched)
    elsewhere = replace(b.disks, group="nogroup")
    yield b.case("thick, no volume group", locked(THICK, elsewhere.create_thick(THICK, image, 1, SMALL_BYTES)), fetched)
    yield b.case(
        "thick, locked by an earlier step", f"flock /run/lock/vcrecon.{THICK} sh -c '{_escaped(thick.script)}'", fetched
    )


def _thin(place: Place) -> Iterator[Case]:
    b = Builder(place, "create-volume")
    thin = b.step(CreateVolume("here", WHY, GUEST, 3, elsewhere=nowhere_else(b.place, GUEST)))
    golden = [b.step(FetchImage("here", WHY, "root.tar")).script]
    yield b.case("thin", thin, golden, needs=MAPPED)
    yield b.case("thin, complete one there", thin, [*golden, thin.script], needs=MAPPED)
    yield b.case("thin, half made one there", thin, [*golden, b.volume(LIVE, "vc.building")], needs=MAPPED)
    yield b.case("thin, no golden volume", thin)
    yield b.case("thin, golden volume is thick", thin, [b.volume(b.golden)], needs=MAPPED)
    image = place.image("root.tar")
    same = b.disks.create_thin(GUEST, image, 1, IMAGE_BYTES)
    yield b.case("thin, as large as the image", locked(GUEST, same), golden, needs=MAPPED)
    odd = b.disks.create_thin(GUEST, image, 1, IMAGE_BYTES + 512)
    yield b.case("thin, grown by less than an extent", locked(GUEST, odd), golden, needs=MAPPED)
    # Without the option, dm-thin lets whoever writes wait for a minute before it fails.
    pool = [
        f"lvcreate -y -q -L 64m --type thin-pool -n cf-pool {place.group} >/dev/null",
        f"lvchange --errorwhenfull y {place.group}/cf-pool >/dev/null",
    ]
    full = [
        *pool,
        f"lvcreate -y --thin -V 64m -n cf-big {b.disks.marks()} {place.group}/cf-pool >/dev/null",
        f"dd if=/dev/zero of={device(place.group, 'cf-big')} bs=1M count=64 conv=fsync status=none",
    ]
    tiny = Builder(replace(place, pool="cf-pool"), "")
    fetch = tiny.step(FetchImage("here", WHY, "root.tar"))
    yield b.case("golden volume, pool full", fetch, [*b.fetched(), *full], needs=MAPPED)
    receive = locked(GUEST, tiny.disks.receive(GUEST, DISK_BYTES, thick=False))
    yield b.case("incoming thin volume, pool full", receive, full, needs=MAPPED)
    failed = f"dd if=/dev/zero of={device(place.group, LIVE)} bs=1M count=1 conv=fsync status=none 2>/dev/null || true"
    more = [*full, receive, failed, f"lvremove -y {place.group}/{LIVE} >/dev/null"]
    yield b.case("incoming thin volume, pool full and a write failed", receive, more, needs=MAPPED)
    yield b.case(
        "the look at a full pool",
        look_script(replace(place, pool="cf-pool"), [Part.STORAGE]),
        full,
        then="",
        reduce=_pool_fill,
        needs=MAPPED,
    )


def _pool_fill(answer: object, place: Place) -> object:
    import json

    text = str(answer.stdout)  # type: ignore[attr-defined]
    report = json.loads(text[text.index("{") : text.rindex("}") + 1])["report"]
    rows = [row for entry in report for row in entry["lv"] if row["lv_name"] == "cf-pool"]
    return [float(row["data_percent"]) for row in rows]


def _marks(place: Place) -> Iterator[Case]:
    b = Builder(place, "marks")
    start = locked(GUEST, b.disks.mark_start(GUEST, LIVE, 2, touched=True))
    yield b.case("start of a disk", start, [b.ours()])
    yield b.case("start, twice", start, [b.ours(), start])
    yield b.case("start, no volume", start)
    yield b.case("start, mounted", start, [*b.filled(), f"mount {device(place.group, LIVE)} {mount_point(LIVE)}"])
    touched = b.step(MarkTouched("here", WHY, GUEST, LIVE))
    yield b.case("touched", touched, [b.ours()])
    yield b.case("touched, twice", touched, [b.ours(), touched.script])
    yield b.case("touched, no volume", touched)
    elsewhere = replace(b.disks, group="nogroup")
    yield b.case("touched, no volume group", locked(GUEST, elsewhere.mark_touched(LIVE)))
    yield b.case("touched, garbage name", locked(GUEST, b.disks.mark_touched("a b;c")))
    yield b.case("a tag that lvm does not take", f"lvchange --addtag 'vc.x=a b' {place.group}/{LIVE}", [b.ours()])
    long = "x" * 1100
    yield b.case("a tag that is too long", f"lvchange --addtag vc.{long} {place.group}/{LIVE}", [b.ours()])
    yield b.case("a tag taken off that is not there", f"lvchange --deltag vc.none {place.group}/{LIVE}", [b.ours()])


def _aside(place: Place) -> Iterator[Case]:
    b = Builder(place, "put aside")
    aside = b.step(Quarantine("here", WHY, GUEST, LIVE, 1, "moved"))
    again = b.step(Quarantine("here", WHY, GUEST, ASIDE, 1, "moved"))
    yield b.case("a live disk", aside, [b.ours()], needs=ASKED)
    yield b.case("one that was renamed and not marked", again, [b.ours(ASIDE)], needs=ASKED)
    yield b.case("no volume", aside, needs=ASKED)
    yield b.case("the name is taken", aside, [b.ours(), b.ours(ASIDE)], needs=ASKED)
    yield b.case("mounted", aside, [*b.filled(), f"mount {device(place.group, LIVE)} {mount_point(LIVE)}"], needs=ASKED)
    back = b.step(Restore("here", WHY, GUEST, ASIDE, 1, True, elsewhere=nowhere_else(b.place, GUEST)))
    yield b.case("taken back", back, [b.ours(ASIDE, "vc.quarantined=removed")])
    yield b.case("taken back, no volume", back)
    yield b.case("taken back, a live one is there", back, [b.ours(ASIDE, "vc.quarantined=removed"), b.ours()])
    yield b.case(
        "taken back, without rename",
        b.step(Restore("here", WHY, GUEST, LIVE, 1, False, elsewhere=nowhere_else(b.place, GUEST))),
        [b.ours(LIVE, "vc.quarantined=removed")],
    )


def _remove(place: Place) -> Iterator[Case]:
    b = Builder(place, "remove")
    discard, prune = b.step(Discard("here", WHY, GUEST, LIVE)), b.step(Prune("here", WHY, GUEST, ASIDE, 1))
    kept = b.ours(ASIDE, "vc.quarantined=removed")
    mounted = [*b.filled(), f"mount {device(place.group, LIVE)} {mount_point(LIVE)}"]
    busy = [
        *b.filled(),
        "mkdir -p /run/vcrecon/mnt/cf-busy",
        f"mount {device(place.group, LIVE)} /run/vcrecon/mnt/cf-busy",
    ]
    leave = ("umount /run/vcrecon/mnt/cf-busy",)
    yield b.case("an untouched disk", discard, [b.ours()], needs=ASKED)
    yield b.case("a touched disk", discard, [b.ours(LIVE, "vc.touched")], needs=ASKED)
    yield b.case("a disk that is not there", discard, needs=ASKED)
    yield b.case("a mounted disk", discard, mounted, needs=ASKED)
    yield b.case("a disk mounted by somebody else", discard, busy, cleanup=(*leave, *b.sweep), needs=ASKED | MAPPED)
    yield b.case("a kept disk", prune, [kept])
    yield b.case("a kept disk, twice", prune, [kept, prune.script])
    yield b.case("a live disk by prune", b.step(Prune("here", WHY, GUEST, LIVE, 1)), [b.ours()])
    origin = [
        b.step(FetchImage("here", WHY, "root.tar")).script,
        b.step(CreateVolume("here", WHY, GUEST, 1, elsewhere=nowhere_else(b.place, GUEST))).script,
    ]
    yield b.case(
        "a golden volume with snapshots", f"lvremove -y {place.group}/{b.golden} >/dev/null", origin, needs=MAPPED
    )
    yield b.case(
        "a volume that is open",
        f"exec 3<{device(place.group, LIVE)}; lvremove -y {place.group}/{LIVE} >/dev/null",
        [b.ours()],
        needs=MAPPED,
    )


def _copy(place: Place) -> Iterator[Case]:
    b = Builder(place, "copy")
    # Both ends are this host: the source is a disk under another name.
    action = CopyDisk("here", WHY, GUEST, "there", ASIDE, SMALL_BYTES, 1, 2, True, "c" * 64, "e" * 32)
    steps = scripts.copy(action, place.bench())
    content = f"printf 'DISK' | dd of={device(place.group, ASIDE)} conv=notrunc,fsync status=none"
    source = [b.ours(ASIDE), content]
    thick = b.disks.receive(GUEST, SMALL_BYTES, thick=True)
    # The thick way, which needs no device mapper; the thin one below.
    into = locked(OTHER, b.disks.write(GUEST, thick=True))
    carried = [*source, *thick, f"{_quiet(b.disks.send(ASIDE))} | {{ {into}\n}}"]
    yield b.case("incoming thin volume", steps.prepare, needs=MAPPED)
    yield b.case(
        "incoming thin volume, no pool",
        locked(GUEST, replace(b.disks, pool="nopool").receive(GUEST, DISK_BYTES, thick=False)),
    )
    yield b.case("incoming thick volume", locked(GUEST, thick))
    yield b.case("incoming thick volume, half written one there", locked(GUEST, thick), [b.volume(LIVE, "vc.incoming")])
    yield b.case("incoming thick volume, a complete one there", locked(GUEST, thick), [b.ours()])
    yield b.case(
        "sent", f"{steps.send.script} | zstd -q -d -c | head -c 4", source, reduce=lambda a, p: a.stdout, needs=ASKED
    )
    yield b.case("sent, no volume", steps.send, needs=ASKED | MAPPED, reduce=nothing)
    yield b.case("written from what is not zstd", into, thick, stdin=b"garbage, not a frame")
    yield b.case("written from nothing", into, thick, stdin=b"")
    import zstandard

    frame = zstandard.ZstdCompressor().compress(b"\0" * (1 << 20))
    yield b.case("written from a stream cut short", into, thick, stdin=frame[:-7])
    # Another volume keeps the group's directory in /dev: what is written there goes into memory.
    node = device(place.group, LIVE)
    gone = (f"if [ ! -b {node} ]; then rm -f {node}; fi", *b.sweep)
    yield b.case("written without a volume", into, [b.ours(ASIDE)], stdin=frame, needs=MAPPED, cleanup=gone)
    big = zstandard.ZstdCompressor().compress(b"\1" * (16 << 20))
    yield b.case("written past the end of the volume", into, thick, stdin=big, needs=MAPPED)
    yield b.case("digest", steps.digest, source, reduce=shape("[0-9a-f]{64}"), needs=ASKED)
    yield b.case("digest, no volume", steps.digest, reduce=shape("[0-9a-f]{64}"), needs=ASKED | MAPPED)
    good = f"sum=$(sha256sum {device(place.group, LIVE)} | cut -d ' ' -f 1)\n"
    template = "f" * 64
    prove = steps.prove(template).script
    yield b.case("proved by the right digest", good + prove.replace(template, "'\"$sum\"'"), carried)
    yield b.case("proved by another digest", prove, carried)
    yield b.case("proved, no volume", prove, needs=MAPPED)
    copied = Volume(LIVE, GUEST, 0, IMAGE_BYTES, boots=2, incoming=True, copy_of=(1, 2))
    activate = b.step(ActivateCopy("here", WHY, GUEST, LIVE, 2, True, elsewhere=nowhere_else(b.place, GUEST)), copied)
    proved = b.volume(LIVE, "vc.incoming", f"vc.guest={GUEST}", "vc.boots=2", "vc.copy=1.2")
    yield b.case("activated", activate, [proved])
    yield b.case("activated, twice", activate, [proved, activate.script])
    yield b.case("activated, no volume", activate)


def _quiet(lines: list[str]) -> str:
    return "{ " + "; ".join(lines) + "; }"


def _escaped(script: str) -> str:
    return script.replace("'", "'\\''")


__all__ = ["SITE", "VOLUMES", "cases"]
