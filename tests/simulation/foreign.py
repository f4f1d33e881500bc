"""What is on the hosts and not vcrecon's, or another site's: the same at the end as at the beginning (S5)."""

from __future__ import annotations

import random

from tests.simulation.site import VirtualSite

from vcrecon.sim.domains import Domain
from vcrecon.sim.machine import Machine

_MIB = 1 << 20


class Foreign:
    """Puts it there, and tells what became of it."""

    def __init__(self, site: VirtualSite, rng: random.Random) -> None:
        self._site = site
        guests = sorted(site.spec.guests)
        for name, host in site.hosts.items():
            _leave(host.machine, name, rng.choice(guests))
        self._before = self.fingerprints()
        self.namesakes: dict[str, set[str]] = {}
        """By host: machines that a person gave the name of one of our guests."""

    def fingerprints(self) -> dict[str, object]:
        """Container to all that is not ours there, as far as it outlives a reboot."""
        return {name: _look(host.machine) for name, host in self._site.hosts.items()}

    def changed(self, container: str) -> bool:
        """Whether anything of it is another than at the beginning."""
        machine = self._site.hosts[container].machine
        gone = [n for n in self.namesakes.get(container, ()) if n not in machine.domains.by_name]
        return bool(gone) or _look(machine) != self._before[container]

    def add_namesake(self, container: str, guest: str) -> None:
        """A person makes a machine of that name. Raises LookupError when there is one, or nowhere to define it.

        Xen knows only machines that run, and one of this name that runs would be taken for a copy of the guest.
        """
        if self._site.hosts[container].container.hypervisor != "kvm":
            raise LookupError(f"{container} keeps no definitions")
        domains = self._site.hosts[container].machine.domains
        if guest in domains.by_name:
            raise LookupError(f"{container} has a {guest}")
        domains.define(_domain(guest, ""))
        self.namesakes.setdefault(container, set()).add(guest)

    def remove_namesakes(self) -> None:
        """The person takes them away again."""
        for container, guests in self.namesakes.items():
            for guest in guests:
                by_name = self._site.hosts[container].machine.domains.by_name
                if guest in by_name and not by_name[guest].live:  # on Xen one that is off keeps no name from ours
                    del by_name[guest]
        self.namesakes.clear()


def _leave(machine: Machine, container: str, guest: str) -> None:
    group = next(iter(machine.lvm.groups))
    pool = next(v.name for v in machine.all_volumes() if v.kind == "pool")
    machine.lvm.create_thin(group, pool, "data", 64 * _MIB, set())
    # Another site's: marked by a vcrecon, and named like a guest of ours.
    tags = {"vcrecon", "vc.site=elsewhere", f"vc.guest={guest}", "vc.epoch=9", "vc.image=" + "0" * 64, "vc.boots=3"}
    machine.lvm.create_thin(group, pool, "vcg-elsewhere", 64 * _MIB, tags)
    machine.domains.define(_domain(f"own-{container}", ""))
    machine.domains.define(_domain(f"elsewhere-{container}", "vcrecon site=elsewhere def=0123456789abcdef"))
    for name in (f"own-{container}", f"elsewhere-{container}"):
        machine.domains.start(machine.domains.by_name[name])
    _settle(machine)
    machine.on_up(lambda: _settle(machine))


def _settle(machine: Machine) -> None:
    """What the host's own start scripts make at each boot."""
    machine.network.add_bridge("br-lan", {})
    machine.network.add_bridge("vcbr7", {})
    machine.nft.apply("table inet host {\n chain input {\n type filter hook input priority 0; policy accept;\n }\n}\n")
    for domain in machine.domains.by_name.values():
        if domain.name.startswith(("own-", "elsewhere-")) and not domain.live:
            machine.domains.start(domain)


def _domain(name: str, title: str) -> Domain:
    uuid = f"00000000-0000-4000-8000-{sum(name.encode()):012d}"
    return Domain(name, uuid, 32 * _MIB, 1, (), (), title=title)


def _look(machine: Machine) -> object:
    volumes = {
        volume.name: (sorted(volume.tags), volume.active, volume.size_bytes)
        for volume in machine.all_volumes()
        if volume.name in ("data", "vcg-elsewhere")
    }
    domains = {
        domain.name: domain.title
        for domain in machine.domains.by_name.values()
        if domain.name.startswith(("own-", "elsewhere-"))
    }
    links = sorted(name for name in machine.network.links if name in ("br-lan", "vcbr7"))
    table = machine.nft.find("inet", "host")
    return volumes, domains, links, table is not None
