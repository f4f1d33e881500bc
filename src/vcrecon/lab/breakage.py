"""Ways to break the lab, by name. Called by `cli.lab_command`, and by the tests that prove the healing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vcrecon.errors import Refused
from vcrecon.lab import images, lab, layout, machine, network
from vcrecon.lab.inside import run_on
from vcrecon.lab.layout import Files
from vcrecon.spec.load import load


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way to break things. `act` gets the victim's name and returns what was done, as a sentence."""

    name: str
    victim: Literal["container", "guest"]
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
    return "c01" if victim == "container" else "a-head"


def _power_off(name: str, files: Files) -> str:
    machine.power_off(lab.read_plan(files).machine(name).name, files)
    return f"{name} lost its power. It comes back with: vcrecon lab break power-on {name}"


def _power_on(name: str, files: Files) -> str:
    plan = lab.read_plan(files)
    image = images.container_image(layout.CACHE_DIR, lambda _: None)
    machine.power_on(plan.machine(name), image, files, accelerated=plan.accelerated)
    return f"{name} is on; its sshd answers in a minute or so."


def _reset(name: str, files: Files) -> str:
    machine.ask(lab.read_plan(files).machine(name).name, files, "system_reset")
    return f"{name} was reset."


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
        Breakage("kill", "guest", "destroys it from outside, as `virsh destroy` or `xl destroy` does", _kill),
    )
}
