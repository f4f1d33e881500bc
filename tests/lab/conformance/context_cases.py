"""Cases of contextualization: a context that is whole, cut off, or unwelcome on the disk; and a site's own hooks."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

from tests.lab.conformance.case import Case
from tests.lab.conformance.disk_cases import ASKED, LIVE, MAPPED, Builder
from tests.lab.conformance.place import GUEST, IMAGE_BYTES, Place

from vcrecon.core.actions import Contextualize
from vcrecon.core.wanted import Wanted
from vcrecon.host import scripts
from vcrecon.host.context import END
from vcrecon.host.names import device, mount_point
from vcrecon.host.steps import Step
from vcrecon.spec.model import Hook

WHY = "conformance"


def cases(place: Place) -> Iterator[Case]:
    b = Builder(place, "contextualize")
    step = b.step(Contextualize("here", WHY, GUEST, LIVE))
    filled = b.filled()
    block, mount = device(place.group, LIVE), mount_point(LIVE)

    def inside(*lines: str) -> list[str]:
        return [*filled, f"mount -o nouuid {block} {mount}", *lines, f"umount {mount}"]

    yield b.case("a fresh disk", step, filled, needs=ASKED)
    yield b.case(
        "twice", step, [*filled, f"lvchange --addtag vc.context=old {place.group}/{LIVE} >/dev/null"], needs=ASKED
    )
    yield b.case("the volume is mounted", step, [*filled, f"mount -o nouuid {block} {mount}"], needs=ASKED)
    yield b.case("no volume", step, needs=ASKED | MAPPED)
    blank = [b.ours(size_bytes=IMAGE_BYTES), f"dd if=/dev/zero of={block} bs=1M count=8 conv=notrunc status=none"]
    yield b.case("no file system on the volume", step, blank, needs=ASKED)
    yield b.case(
        "a directory is a symbolic link",
        step,
        inside(f"rm -r {mount}/etc/ssh", f"ln -s /root {mount}/etc/ssh"),
        needs=ASKED,
    )
    yield b.case("no shadow file", step, inside(f"rm {mount}/etc/shadow"), needs=ASKED)
    yield b.case("no passwd file", step, inside(f"rm {mount}/etc/passwd"), needs=ASKED)
    yield b.case(
        "root is not among the users",
        step,
        inside(f"echo 'x:*:1::::::' > {mount}/etc/shadow", f"echo 'x:x:1:1::/:/bin/sh' > {mount}/etc/passwd"),
        needs=ASKED,
    )
    yield b.case("no etc at all", step, inside(f"rm -r {mount}/etc"), needs=ASKED)
    yield b.case(
        "a file where a directory should be", step, inside(f"rm -r {mount}/root", f"echo x > {mount}/root"), needs=ASKED
    )
    yield b.case(
        "the file system is full",
        step,
        inside(
            f"dd if=/dev/zero of={mount}/full bs=1M status=none 2>/dev/null || true",
            f"dd if=/dev/zero of={mount}/full2 bs=512 status=none 2>/dev/null || true",
        ),
        needs=ASKED,
        known="the simulation holds file contents in memory, so nothing fills a disk to the last block",
    )
    assert step.stdin is not None
    cut_off: dict[str, object] = {"needs": ASKED, "fails": True}
    for where, into in (("within a file", 100), ("between two files", 512)):
        sent = step.stdin[: _cut(step.stdin, into)]
        yield b.case(f"the input ends {where}", step, filled, stdin=sent, **cut_off)
    nearly = step.stdin[: step.stdin.index(END.encode())]
    yield b.case("the input ends before its last entry", step, filled, stdin=nearly, **cut_off)
    yield b.case("the input is empty", step, filled, stdin=b"", **cut_off)
    yield from _hooks(b, filled)
    shown = [
        f"mount -o nouuid {block} {mount}",
        f"cd {mount}",
        "cat etc/hostname etc/hosts etc/systemd/network/10-vcrecon-0.network",
        "cut -d : -f 1,2 etc/shadow | head -n 1",
        "ls -1 etc/ssh root/.ssh etc/systemd/network",
        "stat -c '%n %a %u %g' etc/ssh root/.ssh",
        "stat -c '%n %a %u %g %s' etc/ssh/ssh_host_ed25519_key root/.ssh/authorized_keys etc/hostname",
        f"cd / && umount {mount}",
    ]
    yield b.case(
        "what it wrote",
        "\n".join(["set -eu", *shown]),
        [*filled, _piped(step)],
        then="",
        reduce=lambda answer, _: answer.stdout,
        needs=ASKED,
    )


HOOKS = {
    "that writes": 'echo x > etc/hooked && grep -q cf-a "$VCRECON_FACTS" && test "$PWD" = "$VCRECON_ROOT"',
    "that fails": "echo begun; echo it cannot >&2; exit 3",
    "that says nothing and fails": "exit 1",
    "that never ends": "while :; do sleep 1; done",
    "that does not parse": "if true; then",
    "with an interpreter that there is not": "",
}
"""What a site's own script did, and the script."""


def _hooks(b: Builder, filled: list[str]) -> Iterator[Case]:
    def step(content: str, program: str = "/bin/sh", deadline_s: float = 30.0) -> Step:
        hook = Hook("hooks/10-own", (program,), "0" * 64, content.encode())
        spec = b.place.spec
        guest = replace(spec.guests[GUEST], hooks=(hook,))
        site = replace(spec.site, hook_deadline_s=deadline_s)
        bench = replace(b.place.bench(), wanted=Wanted(replace(spec, site=site, guests=spec.guests | {GUEST: guest})))
        (found,) = scripts.steps(Contextualize("here", WHY, GUEST, LIVE), bench)
        return found

    for what, content in HOOKS.items():
        program = "/bin/sh" if content else "/usr/bin/cf-no-such-interpreter"
        made = step(content, program, 0.5 if what == "that never ends" else 30.0)
        yield b.case(f"a hook {what}", made, filled, needs=ASKED, fails=what != "that writes")
    made = step(HOOKS["that writes"])
    assert made.stdin is not None
    cut = made.stdin[: made.stdin.index(b"10-own") + 600]
    yield b.case("the input ends within a hook", made, filled, stdin=cut, needs=ASKED, fails=True)


def _cut(stdin: bytes, into_file_bytes: int) -> int:
    """How much of a context's input to send: up to so far behind the header of its first small file."""
    return stdin.index(b"etc/hostname") + 512 + into_file_bytes


def _piped(step: Step) -> str:
    """A line that runs a step with its standard input, for the making of a situation."""
    return f"echo {base64.b64encode(step.stdin or b'').decode()} | base64 -d | {{ {step.script}\n}}"
