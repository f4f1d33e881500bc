"""Ways to break the lab, by name. Called by `cli.lab_command`, and by the tests that prove the healing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vcrecon.errors import Refused
from vcrecon.lab import images, lab, layout, machine, network, spare
from vcrecon.lab.inside import run_on
from vcrecon.lab.layout import Files, SparePlan
from vcrecon.spec.load import load


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way to break things. `act` gets the victim's name and returns what was done, as a sentence."""

    name: str
    victim: Literal["container", "guest", "spare"]
    effect: str
    act: Callable[[str, Files], str]


def break_it(what: str, name: str, files: Files) -> str:
    """Do it; returns what was done. Raises Refused for unknown names, or when it cannot be done."""
    entry = BREAKAGES.get(what)
    if entry is None:
        raise Refused(f"lab: no breakage {what}; list them with: vcrecon lab break")
    if not name:
        raise Refused(f"lab: which {entry.victim}? For example: vcrecon lab break {what} {_example(entry.victim)}")
    return entry.act(name, files)


def _example(victim: str) -> str:
    return {"container": "c01", "guest": "a-head", "spare": "spare2"}[victim]


def _power_off(name: str, files: Files) -> str:
    machine.power_off(lab.read_plan(files).machine(name).name, files)
    return f"{name} lost its power. It comes back with: vcrecon lab break power-on {name}"


def _power_on(name: str, files: Files) -> str:
    plan = lab.read_plan(files)
    entry = plan.machine(name)
    if isinstance(entry, SparePlan):
        spare.power_on(entry, files, accelerated=plan.accelerated)
        return f"{name} is on; it boots from its disks, or else from the network."
    image = images.container_image(layout.CACHE_DIR, lambda _: None)
    machine.power_on(entry, image, files, accelerated=plan.accelerated)
    return f"{name} is on; its sshd answers in a minute or so."


def _reset(name: str, files: Files) -> str:
    entry = lab.read_plan(files).machine(name)
    for step in ("system_reset", "cont"):  # the second is for a machine that was frozen
        machine.ask(entry.name, files, step)
    return f"{name} was reset."


def _freeze(name: str, files: Files) -> str:
    machine.ask(lab.read_plan(files).machine(name).name, files, "stop")
    return f"{name} stands still. It goes on with: vcrecon lab break thaw {name}"


def _thaw(name: str, files: Files) -> str:
    machine.ask(lab.read_plan(files).machine(name).name, files, "cont")
    return f"{name} goes on where it stood."


def _boot_order(*, network_first: bool) -> Callable[[str, Files], str]:
    def act(name: str, files: Files) -> str:
        spare.boot_order(lab.read_plan(files).spare(name), files, network_first=network_first)
        return f"From its next boot on {name} tries {'the network' if network_first else 'its disks'} first."

    return act


def _disk(*, out: bool) -> Callable[[str, Files], str]:
    def act(name: str, files: Files) -> str:
        host, _, disk = name.partition(":")
        entry = lab.read_plan(files).spare(host)
        if disk and not disk.isdecimal():
            raise Refused(f"lab: {name}: which disk? For example: {host}:2")
        number = int(disk or 1)
        spare.move_disk(entry, files, number, out=out)
        return f"Disk {number} of {host} is {'out' if out else 'in its place'}."

    return act


def _link(cable: Literal["provisioning", "trunk"], state: Literal["up", "down"]) -> Callable[[str, Files], str]:
    def act(name: str, files: Files) -> str:
        entry = lab.read_plan(files).machine(name)
        tap = entry.provisioning_tap if cable == "provisioning" else entry.trunk_tap
        network.run("ip", "-n", layout.NAMESPACE, "link", "set", tap, state)
        return f"The {cable} cable of {name} is {'plugged in' if state == 'up' else 'out'}."

    return act


def _on_container(script: str, said: str) -> Callable[[str, Files], str]:
    def act(name: str, files: Files) -> str:
        lab.read_plan(files).machine(name)
        run_on(name, script, files)
        return said.format(name)

    return act


def _kill(name: str, files: Files) -> str:
    spec = load(files.specs).spec
    if name not in spec.placement:
        raise Refused(f"lab: no guest {name}; there are {', '.join(spec.guests)}")
    container = spec.placement[name]
    tool = "xl" if spec.containers[container].hypervisor == "xen" else "virsh -q"
    run_on(container, f"{tool} destroy {name}", files)
    return f"{name} was killed on {container}."


_OURS = "ip -o link show type {} | grep -o 'vc[bv][rl][0-9]*'"

BREAKAGES = {
    entry.name: entry
    for entry in (
        Breakage("power-off", "container", "pulls its plug", _power_off),
        Breakage("power-on", "container", "puts the plug back", _power_on),
        Breakage("reset", "container", "presses its reset button", _reset),
        Breakage("freeze", "container", "stops its processor, as a machine that hangs", _freeze),
        Breakage("thaw", "container", "lets it go on", _thaw),
        Breakage("unplug", "container", "pulls its provisioning cable", _link("provisioning", "down")),
        Breakage("plug", "container", "puts that cable back", _link("provisioning", "up")),
        Breakage("unplug-trunk", "container", "pulls its trunk cable", _link("trunk", "down")),
        Breakage("plug-trunk", "container", "puts that cable back", _link("trunk", "up")),
        Breakage(
            "flush-rules",
            "container",
            "drops all its nftables rules",
            _on_container("nft flush ruleset", "{} has no firewall."),
        ),
        Breakage(
            "wipe-bridges",
            "container",
            "deletes the bridges of its VLANs",
            _on_container(
                f"for b in $({_OURS.format('bridge')}); do ip link del dev $b; done", "The bridges of {} are gone."
            ),
        ),
        Breakage(
            "wipe-vlans",
            "container",
            "deletes its VLAN links",
            _on_container(
                f"for v in $({_OURS.format('vlan')}); do ip link del dev $v; done", "The VLAN links of {} are gone."
            ),
        ),
        Breakage("pull-disk", "spare", "takes its first disk out, or with NAME:2 the second", _disk(out=True)),
        Breakage("push-disk", "spare", "puts that disk back", _disk(out=False)),
        Breakage("boot-network", "spare", "has its firmware try the network first", _boot_order(network_first=True)),
        Breakage(
            "boot-disk",
            "spare",
            "has its firmware try its disks first, as it does from the beginning",
            _boot_order(network_first=False),
        ),
        Breakage("kill", "guest", "destroys it from outside, as `virsh destroy` or `xl destroy` does", _kill),
    )
}
