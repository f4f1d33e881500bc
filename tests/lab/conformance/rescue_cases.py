"""Cases of rescue: a disk in a person's hands, the commands and recipes that work on it, and giving it back."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from tests.lab.conformance.case import Case, look_script, looked, output
from tests.lab.conformance.disk_cases import ASKED, LIVE, Builder
from tests.lab.conformance.place import GUEST, PASSWORD_HASH, Place

from vcrecon.core.actions import Hold, Release
from vcrecon.core.observation import Part
from vcrecon.host import rescue
from vcrecon.host.names import device, mount_point, rescue_point
from vcrecon.host.steps import locked

WHY = "conformance"
MOUNT = rescue_point(GUEST)
OPTIONS = f"findmnt -n -o OPTIONS -M {MOUNT} | tr , '\\n' | grep -x -e nosuid -e nodev -e noexec | sort"


def cases(place: Place) -> Iterator[Case]:
    yield from _hold(place)
    yield from _release(place)
    yield from _work(place)


def _hold(place: Place) -> Iterator[Case]:
    b = Builder(place, "hold")
    hold = b.step(Hold("here", WHY, GUEST, LIVE, 2))
    ours: dict[str, object] = {"needs": ASKED}
    yield b.case("a disk that is off", hold, b.filled(), **ours)
    yield b.case("twice", hold, [*b.filled(), hold.script], **ours)
    yield b.case("how it is mounted", OPTIONS, [*b.filled(), hold.script], then="", reduce=output, **ours)
    mounted = [*b.filled(), f"mount {device(place.group, LIVE)} {mount_point(LIVE)}"]
    yield b.case("a disk that is mounted where we mount", hold, mounted, **ours)
    yield b.case("no volume", hold, fails=True, **ours)
    # A mount that cannot be made leaves the mark: the disk stays in a person's hands until it is released.
    blank = f"dd if=/dev/zero of={device(place.group, LIVE)} bs=1M count=1 conv=notrunc status=none"
    yield b.case("no file system on the volume", hold, [b.ours(), blank], fails=True, **ours)


def _release(place: Place) -> Iterator[Case]:
    b = Builder(place, "release")
    held = [*b.filled(), b.step(Hold("here", WHY, GUEST, LIVE, 2)).script]
    release = b.step(Release("here", WHY, GUEST, LIVE))
    ours: dict[str, object] = {"needs": ASKED}
    yield b.case("a held disk", release, held, **ours)
    yield b.case("twice", release, [*held, release.script], **ours)
    yield b.case("a disk that lost its mount", release, [*held, f"umount {MOUNT}"], **ours)
    yield b.case("no volume", release, fails=True, **ours)
    stay = f"cd {MOUNT}\n{release.script}"
    yield b.case("a shell is still in it", stay, held, fails=True, **ours)
    opened = f"exec 9>{MOUNT}/root/open\n{release.script}"
    yield b.case("a file of it is still open", opened, held, fails=True, **ours)
    start = locked(GUEST, b.disks.mark_start(GUEST, LIVE, 3, touched=False))
    yield b.case("started while it is mounted for a person", start, held, **ours)


def _work(place: Place) -> Iterator[Case]:
    b = Builder(place, "rescue")
    held = [*b.filled(), b.step(Hold("here", WHY, GUEST, LIVE, 2)).script]
    plain: dict[str, object] = {"needs": ASKED, "then": "", "reduce": output}
    there = rescue.command(GUEST, "pwd; cat etc/hostname; echo mended > etc/hostname; cat etc/hostname")
    yield b.case("a command", there, held, **plain)
    yield b.case("a command that fails", rescue.command(GUEST, "exit 3"), held, **plain)
    yield b.case("a command, nothing is held", there, fails=True, **plain)
    yield b.case("a shell that reads its commands", rescue.shell_without_terminal(GUEST), held, stdin=b"pwd\n", **plain)
    run = rescue.recipe(GUEST)
    script = b'cd "$VCRECON_ROOT" && pwd && cat etc/hostname && cat "$VCRECON_FACTS" && cut -d : -f 1 && cd /'

    def parcel(text: bytes = script) -> bytes:
        return rescue.parcel(text, {"name": GUEST}, f"root:{PASSWORD_HASH}\n".encode())

    yield b.case("a recipe", run, held, stdin=parcel(), **plain)
    yield b.case("a recipe that fails", run, held, stdin=parcel(b"echo no >&2; exit 3"), **plain)
    yield b.case("a recipe cut off on its way", run, held, stdin=parcel()[:700], fails=True, **plain)
    yield b.case("a recipe, nothing is held", run, stdin=parcel(), fails=True, **plain)
    mended = [*held, f"echo {base64.b64encode(parcel()).decode()} | base64 -d | {{ {run} >/dev/null\n}}"]
    yield b.case("what a recipe leaves behind", "ls -d /run/vcrecon/fix.*", mended, **plain)
    look: dict[str, object] = {"then": "", "reduce": looked(Part.STORAGE, of="stdout"), "needs": ASKED}
    yield b.case("the look at a held disk", look_script(place, [Part.STORAGE]), held, **look)
