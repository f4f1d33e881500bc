"""Cases of virtual machines: define, start, stop, look, forget, and the two streams that a hypervisor's tool speaks.

The guest's kernel halts at once, so that a guest runs, costs nothing and needs no system of its own.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

from tests.lab.conformance.case import Answer, Case, Facts, look_script, looked, nothing
from tests.lab.conformance.disk_cases import ASKED, LIVE, MAPPED, Builder
from tests.lab.conformance.place import GUEST, OTHER, VLAN, Place, nowhere_else

from vcrecon.core.actions import Hold, StartGuest, StopGuest
from vcrecon.core.observation import Part
from vcrecon.core.wanted import tap
from vcrecon.host.names import bridge, device
from vcrecon.host.steps import UNSAFE, locked

WHY = "conformance"
RUNS = frozenset({"hypervisor", "run-guests"})
BRIDGE = bridge(VLAN)


class GuestBuilder(Builder):
    """Cases that look at the guests afterwards and take them away, with their disks and their bridge."""

    def __init__(self, place: Place, family: str) -> None:
        super().__init__(place, family)
        self.start = self.step(StartGuest("here", WHY, GUEST, LIVE, 1, 2, False, elsewhere=nowhere_else(place, GUEST)))
        ours = f"{GUEST} | {OTHER} | cf-foreign"
        stop = (
            f"for guest in $(virsh -q list --all --name); do case $guest in {ours})"
            ' virsh -q "undefine $guest; destroy $guest" >/dev/null 2>&1 ;; esac; done',
        )
        if place.hypervisor == "xen":
            # A destroyed domain is in the list until it is torn down, for a while without its name.
            stop = (
                "left=1 round=0",
                'while [ "$left" ] && [ $round -lt 30 ]; do',
                "  left= round=$((round + 1))",
                f"  for guest in $(xl list | cut -d ' ' -f 1); do case $guest in {ours} | '(null)')",
                "    left=1; xl destroy $guest >/dev/null 2>&1 ;; esac; done",
                '  if [ "$left" ]; then sleep 0.5; fi',
                "done",
                "rm -f /run/vcrecon/xen/cf-* /var/log/xen/xl-cf-*",
            )
        self.away = (*stop, f"ip link del dev {BRIDGE} 2>/dev/null", *self.sweep)
        self.bridge = [f"ip link add name {BRIDGE} type bridge", f"ip link set dev {BRIDGE} up"]

    def guest(self, situation: str, command: object, given: list[str] | tuple[str, ...] = (), **more: object) -> Case:
        defaults: dict[str, object] = {
            "then": look_script(self.place, [Part.GUESTS]),
            "reduce": looked(Part.GUESTS),
            "cleanup": self.away,
            "needs": RUNS,
        }
        return self.case(situation, command, given, **(defaults | more))  # type: ignore[arg-type]

    @property
    def ready(self) -> list[str]:
        """All that a guest needs to start."""
        kernel = self.place.image("root.tar")
        return [*self.disks.fetch_boot_files(kernel), self.ours(), *self.bridge]

    @property
    def running(self) -> list[str]:
        return [*self.ready, self.piped(self.start.script, self.start.stdin or b"")]

    @property
    def defined(self) -> list[str]:
        """The guest is known and does not run."""
        lines, stdin = self.definition()
        return [self.piped("\n".join(["set -eu", *lines]), stdin)]

    def definition(self) -> tuple[list[str], bytes]:
        script, stdin = self.start.script, self.start.stdin or b""
        lines = ["virsh -q define /dev/stdin >/dev/null"]
        if self.place.hypervisor == "xen":
            file = f"/run/vcrecon/xen/{GUEST}.cfg"
            lines = ["mkdir -p /run/vcrecon/xen", f"cat > {file}.new", f"mv {file}.new {file}"]
        assert all(line in script for line in lines)
        return lines, stdin

    @staticmethod
    def piped(script: str, stdin: bytes) -> str:
        return f"echo {base64.b64encode(stdin).decode()} | base64 -d | {{ {script}\n}}"


def cases(place: Place) -> Iterator[Case]:
    yield from _looks(place)
    yield from _start(place)
    yield from _stop(place)
    yield from _off(place)
    yield from _streams(place)
    yield from _consoles(place)


def _looks(place: Place) -> Iterator[Case]:
    b = GuestBuilder(place, "look at guests")
    look = look_script(place, [Part.GUESTS])
    now = {"then": "", "reduce": looked(Part.GUESTS, of="stdout")}
    yield b.guest("none of ours", look, needs=ASKED, **now)
    yield b.guest("defined and off", look, b.defined, needs=ASKED, **now)
    yield b.guest("running", look, b.running, **now)
    if place.hypervisor == "kvm":
        yield b.guest("destroyed from outside", look, [*b.running, f"virsh -q destroy {GUEST} >/dev/null"], **now)
        yield b.guest("paused", look, [*b.running, f"virsh -q suspend {GUEST} >/dev/null"], **now)
        _, stdin = b.definition()
        plain = re.sub(rb" *<title>.*</title>\n", b"", stdin)
        yield b.guest(
            "one of the name without our mark",
            look,
            [b.piped("virsh -q define /dev/stdin >/dev/null", plain)],
            needs=ASKED,
            **now,
        )
    else:
        yield b.guest("destroyed from outside", look, [*b.running, f"xl destroy {GUEST}"], **now)
        yield b.guest("paused", look, [*b.running, f"xl pause {GUEST}"], **now)


def _start(place: Place) -> Iterator[Case]:
    b = GuestBuilder(place, "start-guest")
    yield b.guest("all is there", b.start, b.ready)
    yield b.guest("twice", b.start, b.running)
    yield b.guest("defined before", b.start, [*b.ready, *b.defined])
    tap_look = f'ip -j link show dev {tap(GUEST, VLAN)} | grep -o -e \'"master":"[^"]*"\''
    yield b.guest("its port hangs on the bridge", tap_look, b.running, then="", reduce=lambda a, p: a.stdout)
    files = b.disks.fetch_boot_files(place.image("root.tar"))
    yield b.guest("no bridge", b.start, [*files, b.ours()])
    yield b.guest("no volume", b.start, [*files, *b.bridge], needs=ASKED)
    yield b.guest("no kernel file", b.start, [b.ours(), *b.bridge])
    mounted = [*files, *b.bridge, *b.filled(), f"mount {device(place.group, LIVE)} /run/vcrecon/mnt/{LIVE}"]
    yield b.guest("its disk is mounted where we mount", b.start, mounted)
    elsewhere = [
        *files,
        *b.bridge,
        *b.filled(),
        "mkdir -p /run/vcrecon/mnt/cf-busy",
        f"mount {device(place.group, LIVE)} /run/vcrecon/mnt/cf-busy",
    ]
    yield b.guest(
        "its disk is mounted by somebody else",
        b.start,
        elsewhere,
        cleanup=("umount /run/vcrecon/mnt/cf-busy", *b.away),
        needs=RUNS | MAPPED,
    )
    stdin = b.start.stdin or b""
    for what, sent in (("cut short", stdin[:200]), ("without its last line", stdin[: stdin.rindex(b"\n", 0, -1) + 1])):
        yield b.guest(f"a definition {what}", b.start, b.ready, stdin=sent, needs=ASKED, fails=True)
    yield b.guest("an empty definition", b.start, b.ready, stdin=b"", needs=ASKED, fails=True)
    if place.hypervisor == "kvm":
        other = re.sub(b"<uuid>.*</uuid>", b"<uuid>11111111-2222-4333-8444-555555555555</uuid>", stdin)
        yield b.guest(
            "another uuid under the name", b.start, [*b.ready, b.piped(b.definition()[0][0], other)], needs=ASKED
        )
        renamed = stdin.replace(b"<name>cf-a</name>", b"<name>cf-foreign</name>")
        yield b.guest(
            "another name under the uuid", b.start, [*b.ready, b.piped(b.definition()[0][0], renamed)], needs=ASKED
        )
        huge = re.sub(rb"<memory unit='b'>\d+<", b"<memory unit='b'>1099511627776000<", stdin)
        yield b.guest("more memory than there is", b.start, b.ready, stdin=huge)
    else:
        huge = re.sub(rb"memory = \d+", b"memory = 1048576000", stdin)
        yield b.guest("more memory than there is", b.start, b.ready, stdin=huge)


def _stop(place: Place) -> Iterator[Case]:
    b = GuestBuilder(place, "stop-guest")
    ask, force = b.step(StopGuest("here", WHY, GUEST, False)), b.step(StopGuest("here", WHY, GUEST, True))
    # The halted kernel hears no power button; that the request is taken is all that counts.
    yield b.guest("asked while it runs", ask, b.running, then="", reduce=lambda a, p: None)
    yield b.guest("asked while it is off", ask, b.defined, needs=ASKED)
    yield b.guest("asked without a domain", ask, needs=ASKED)
    yield b.guest("forced while it runs", force, b.running, then="", reduce=lambda a, p: None)
    yield b.guest("forced while it is off", force, b.defined, needs=ASKED)
    yield b.guest("forced, twice", force, [*b.running, force.script])
    yield b.guest("forced without a domain", force, needs=ASKED)


def _off(place: Place) -> Iterator[Case]:
    b = GuestBuilder(place, "off and forget")
    off = locked(GUEST, place.tool.require_off(GUEST, UNSAFE))
    yield b.guest("require off: no domain", off, needs=ASKED)
    yield b.guest("require off: it is off", off, b.defined, needs=ASKED)
    yield b.guest("require off: it runs", off, b.running)
    hold = b.step(Hold("here", WHY, GUEST, LIVE, 3))
    yield b.guest("hold: it runs", hold, b.running, fails=True)
    similar = locked(GUEST, place.tool.require_off(GUEST[:-1], UNSAFE))
    yield b.guest("require off: one with a longer name runs", similar, b.running)
    forget = locked(GUEST, place.tool.forget(GUEST))
    yield b.guest("forget: no domain", forget, needs=ASKED)
    yield b.guest("forget: it is off", forget, b.defined, needs=ASKED)
    yield b.guest("forget: twice", forget, [*b.defined, forget], needs=ASKED)


def _streams(place: Place) -> Iterator[Case]:
    b = GuestBuilder(place, "streams")
    if place.tool.resident:

        def talk(*lines: str) -> bytes:
            return "".join(f"{line}\n" for line in lines).encode()

        common = {"then": "", "reduce": _plain, "needs": ASKED}
        tool = place.tool.resident
        mark = ["echo m.0.", f"domstate {GUEST}", "echo m.1."]
        yield b.guest("resident: prompts and repeats", tool, b.defined, stdin=talk(*mark), **common)
        yield b.guest("resident: unknown command", tool, b.defined, stdin=talk("bogus", *mark), **common)
        yield b.guest("resident: no such domain", tool, stdin=talk(*mark), **common)
        yield b.guest("resident: empty line", tool, b.defined, stdin=talk("", *mark), **common)
        yield b.guest("resident: quit", tool, stdin=talk("quit"), **common)
        yield b.guest("resident: nothing asked", tool, stdin=b"", **common)
        yield b.guest("resident: open quote", tool, b.defined, stdin=talk("echo 'm", *mark), **common)
        long = "echo " + "x" * 300
        yield b.guest(
            "resident: a long line",
            tool,
            stdin=talk(long, "echo m"),
            known="readline scrolls what it repeats; the resident tool skips it unread",
            **common,
        )
    watch = f"{place.tool.watch} > /run/cf-watch 2>&1 & watcher=$!; sleep 2"
    away = ("rm -f /run/cf-watch", *b.away)
    heard = "sleep 2; kill $watcher; cat /run/cf-watch"
    kill = f"virsh -q destroy {GUEST}" if place.hypervisor == "kvm" else f"xl destroy {GUEST}"
    script = f"{watch}\n{kill} >/dev/null\n{heard}"
    yield b.guest("a watcher hears of a destroyed guest", script, b.running, then="", reduce=_heard, cleanup=away)


def _plain(answer: Answer, place: Place) -> Facts:
    return answer.stdout


def _heard(answer: Answer, place: Place) -> Facts:
    """The events of our guest without their times."""
    lines = [re.sub(r"^[0-9: .+-]*", "", line) for line in answer.stdout.splitlines()]
    if place.hypervisor == "xen":
        return "@releaseDomain" in lines
    return [line for line in lines if GUEST in line]


def _consoles(place: Place) -> Iterator[Case]:
    b = GuestBuilder(place, "console")
    join = place.tool.console(GUEST)
    leave: dict[str, object] = {"stdin": b"\x1d", "terminal": True, "then": "", "reduce": nothing}
    attended, off = RUNS | {"terminal"}, ASKED | {"terminal"}
    yield b.guest("joined and left", join, b.running, **leave, needs=attended)
    yield b.guest("of a guest that is off", join, b.defined, **leave, needs=off, fails=True)
    yield b.guest("without a domain", join, **leave, needs=off, fails=True)
