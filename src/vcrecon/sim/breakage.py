"""The ways to break a simulated site, and to look inside it. Mixed into `sim.site.Site`.

Each is also a call of `sim.control`.

Every method raises LookupError for a name that does not exist (the message lists what does), and is async
so that it reads the same on a Site and on a `sim.control.SiteClient`.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING, Any

import asyncssh

from vcrecon.sim.audit import guest_of
from vcrecon.sim.faults import Fault
from vcrecon.sim.files import Files
from vcrecon.sim.lvm import Volume
from vcrecon.sim.tools import TOOLS

if TYPE_CHECKING:
    from vcrecon.sim.audit import Audit
    from vcrecon.sim.images import ImageServer, Offered
    from vcrecon.sim.site import Host
    from vcrecon.sim.timing import Timing


_ROOT_BYTES = 20 << 30
_PACKAGES = {
    "lvm2": r"lvm|(lv|vg|pv)[a-z]+",
    "nftables": r"nft",
    "libvirt-clients": r"virsh",
    "xen-utils-common": r"xl|xenstore-.*",
    "iproute2": r"ip|bridge",
    "zstd": r"(un)?zstd(cat)?",
    "xfsprogs": r"mkfs\.xfs|xfs_.*",
}
"""Debian packages and the names of their programs, as far as the simulation has them."""


def _programs(package: str) -> list[str]:
    if package not in _PACKAGES:
        raise LookupError(f"no package {package!r}; there are {', '.join(_PACKAGES)}")
    return [name for name in TOOLS if re.fullmatch(_PACKAGES[package], name)]


class Breakage:
    """What can go wrong at a site. `host`, `guest` and `image` are names."""

    hosts: dict[str, Host]
    images: ImageServer
    timing: Timing
    witness: Audit

    if TYPE_CHECKING:

        def volume_files(self, guest: str) -> Any: ...

        def image_path(self, image: str, part: str) -> str | None: ...

    def _host(self, host: str) -> Host:
        if host not in self.hosts:
            raise LookupError(f"no host {host!r}; there are {', '.join(self.hosts)}")
        return self.hosts[host]

    def _hosts_running(self, guest: str) -> list[Host]:
        running = [self.hosts[name] for name in self.witness.live(guest)]
        if not running:
            raise LookupError(f"guest {guest!r} runs on no host")
        return running

    def _volumes(self, host: Host, guest: str) -> list[Volume]:
        volumes = [v for v in host.machine.all_volumes() if guest_of(v.tags) == guest or v.name == guest]
        if not volumes:
            raise LookupError(f"{host.container.name} has no volume of guest {guest!r}")
        return volumes

    # -- guests ---------------------------------------------------------------------------------------

    async def kill_guest(self, guest: str) -> None:
        """The guest's emulator dies on whatever host runs it."""
        for host in self._hosts_running(guest):
            host.machine.kill_domain(guest)

    async def shutdown_guest(self, guest: str) -> None:
        """Somebody inside switches the guest off cleanly."""
        for host in self._hosts_running(guest):
            host.machine.shutdown_domain(guest)

    async def write_guest_file(self, guest: str, path: str, content: str) -> None:
        """The student's work: write a file inside the guest, on its live disk."""
        filesystem = self.volume_files(guest)
        hook, filesystem.on_write = filesystem.on_write, None  # a guest's own write is no violation
        try:
            view = Files(filesystem, clock=self.timing.wall)
            view.mkdir(path.rpartition("/")[0] or "/", parents=True)
            view.write(path, content.encode())
        finally:
            filesystem.on_write = hook

    async def read_guest_file(self, guest: str, path: str) -> str:
        """A file inside the guest. Raises FileNotFoundError."""
        view = Files(self.volume_files(guest), clock=self.timing.wall)
        return view.read(path).decode("utf-8", "replace")

    # -- network and power ----------------------------------------------------------------------------

    async def cut(self, host: str) -> None:
        """The network to the host is gone: packets vanish, guests run on."""
        self._host(host).server.cut_off()

    async def mend(self, host: str) -> None:
        """The network is back."""
        self._host(host).server.mend()

    async def power_off(self, host: str) -> None:
        """The host loses power: its guests die, connections are refused."""
        self._host(host).machine.power_off()

    async def power_on(self, host: str) -> None:
        """The host boots, at once, and listens when this returns."""
        broken = self._host(host)
        broken.machine.power_on()
        await broken.server.start()

    async def reboot(self, host: str) -> None:
        """Off, a boot time's pause, on."""
        await self.power_off(host)
        await self.timing.spend("host-boot")
        await self.power_on(host)

    async def wipe_bridge(self, host: str, vlan: int) -> None:
        """Somebody deletes the bridge of a VLAN."""
        network = self._host(host).machine.network
        ports = [link for link in network.links.values() if link.kind == "vlan" and link.vlan_id == vlan]
        names = [link.master for link in ports if link.master]
        names += [n for n, link in network.links.items() if link.kind == "bridge" and _number(n) == vlan]
        if not names:
            raise LookupError(f"{host} has no bridge for VLAN {vlan}; it has {', '.join(network.links)}")
        network.remove(names[0])

    async def delete_vlan(self, host: str, vlan: int) -> None:
        """Somebody deletes the VLAN device of the trunk."""
        network = self._host(host).machine.network
        names = [n for n, link in network.links.items() if link.kind == "vlan" and link.vlan_id == vlan]
        if not names:
            raise LookupError(f"{host} has no device for VLAN {vlan}; it has {', '.join(network.links)}")
        network.remove(names[0])

    async def flush_rules(self, host: str) -> None:
        """Somebody runs `nft flush ruleset`."""
        self._host(host).machine.nft.clear()

    # -- disks ----------------------------------------------------------------------------------------

    async def remove_volume(self, host: str, guest: str) -> None:
        """The guest's volumes vanish from the host, whatever uses them."""
        broken = self._host(host)
        for volume in self._volumes(broken, guest):
            broken.machine.remove_volume(volume.name)

    async def remove_tag(self, host: str, guest: str, prefix: str) -> None:
        """LVM tags that begin with `prefix` vanish from the guest's volumes."""
        for volume in self._volumes(self._host(host), guest):
            volume.tags = {tag for tag in volume.tags if not tag.startswith(prefix)}

    async def fill_pool(self, host: str, data_percent: float, metadata_percent: float = 0.0) -> None:
        """The thin pool fills up to these percentages."""
        self._host(host).machine.fill_pool(data_percent, metadata_percent)

    async def remove_volume_group(self, host: str) -> None:
        """The disk under the volume group is gone."""
        lvm = self._host(host).machine.lvm
        for group in lvm.groups.values():
            group.missing = True
            lvm.changed(group)

    async def fill_root(self, host: str, full: bool = True) -> None:
        """The host's own file system `/` has no block left, or has room again."""
        filesystem = self._host(host).machine.files.mounts[0].filesystem
        filesystem.capacity_bytes = filesystem.used_bytes if full else _ROOT_BYTES

    # -- what was never there -------------------------------------------------------------------------

    async def remove_package(self, host: str, package: str) -> None:
        """The programs of a Debian package are not installed."""
        tools = self._host(host).programs.tools
        for name in _programs(package):
            tools.pop(name, None)

    async def install_package(self, host: str, package: str) -> None:
        """`apt-get install`."""
        self._host(host).programs.tools.update({name: TOOLS[name] for name in _programs(package)})

    async def forget_device_type(self, host: str, kind: str) -> None:
        """The host's kernel has no module for a kind of network device, such as vlan."""
        self._host(host).machine.network.unknown_types.add(kind)

    async def learn_device_type(self, host: str, kind: str) -> None:
        """The module is there now."""
        self._host(host).machine.network.unknown_types.discard(kind)

    async def remove_trunk(self, host: str) -> None:
        """The network card of the trunk is gone, or has another name."""
        machine = self._host(host).machine
        links = machine.network.links
        for name in [n for n, link in links.items() if link.lower == machine.trunk]:
            machine.network.remove(name)
        del links[machine.trunk]  # a network card cannot be deleted by a command

    # -- commands and SSH -----------------------------------------------------------------------------

    async def fail_command(
        self,
        host: str,
        pattern: str,
        times: int | None = 1,
        status: int = 1,
        stderr: str = "simulated failure",
    ) -> None:
        """The next `times` commands (None: all) whose command line matches the regular expression fail."""
        faults = self._host(host).faults
        faults.waiting.append(Fault(re.compile(pattern), times, status, stderr))

    async def hang_command(self, host: str, pattern: str, times: int | None = 1) -> None:
        """The next `times` commands that match never end (until the host goes down or they are killed)."""
        self._host(host).faults.waiting.append(Fault(re.compile(pattern), times, hangs=True))

    async def slow(self, host: str, seconds: float) -> None:
        """Every command takes this much longer, in real seconds; 0 ends it."""
        self._host(host).faults.slow_s = seconds

    async def garbage(self, host: str, where: str | None = "output") -> None:
        """Rubbish as the "output" of every command, or as the SSH "banner"; None ends it."""
        server = self._host(host).server
        was, server.garbage = server.garbage, where
        if "banner" in (was, where):
            await server.restart()

    async def change_host_key(self, host: str) -> None:
        """The host comes back with another SSH host key; its connections are reset."""
        server = self._host(host).server
        server.host_key = asyncssh.generate_private_key("ssh-ed25519")
        await server.restart()

    async def refuse_key(self, host: str, refused: bool = True) -> None:
        """The host refuses the site's client key from now on; its connections are reset."""
        server = self._host(host).server
        server.refuses_key = refused
        await server.restart()

    async def heal(self, host: str) -> None:
        """End all faults of the host's commands and network; what was destroyed stays destroyed."""
        broken = self._host(host)
        broken.faults.waiting.clear()
        broken.faults.slow_s = 0.0
        broken.server.mend()
        await self.garbage(host, None)
        if broken.server.refuses_key:
            await self.refuse_key(host, False)

    # -- images ---------------------------------------------------------------------------------------

    def _offered(self, image: str, part: str) -> Offered:
        path = self.image_path(image, part)
        if path is None:
            raise LookupError(f"no {part} of image {image!r}; there are {', '.join(self.images.files)}")
        return self.images.files[path]

    async def corrupt_image(self, image: str, part: str = "root", on: bool = True) -> None:
        """One byte of what the server sends is wrong."""
        self._offered(image, part).corrupt = on

    async def truncate_image(self, image: str, part: str = "root", on: bool = True) -> None:
        """The connection is lost after half of the file."""
        self._offered(image, part).truncated = on

    async def slow_images(self, seconds: float) -> None:
        """Every answer of the image server comes this much later."""
        self.images.delay_s = seconds

    # -- looking --------------------------------------------------------------------------------------

    async def consent(self, guest: str) -> None:
        """Tell the audit that the disks of this guest may be given up from now on."""
        self.witness.consent(guest)

    async def audit(self) -> dict[str, Any]:
        """`{"violations": [...], "removals": [...]}`; no violations: nothing forbidden was ever seen."""
        return self.witness.report()

    async def commands(self, host: str) -> dict[str, Any]:
        """What ran on the host: `log` (command lines), `counts` (by program), `scripts`, `crashes`."""
        programs = self._host(host).programs
        return {
            "log": list(programs.log),
            "counts": dict(programs.counts),
            "scripts": list(programs.scripts),
            "crashes": list(programs.crashes),
            "connections": self._host(host).server.connections,
        }

    async def host_file(self, host: str, path: str) -> str:
        """A file of the host itself, as base64. Raises FileNotFoundError."""
        return base64.b64encode(self._host(host).machine.files.read(path)).decode()

    async def wait_idle(self, host: str) -> None:
        """Wait until no process runs on the host."""
        programs = self._host(host).programs
        while programs.tasks:
            await asyncio.wait(set(programs.tasks))


def _number(name: str) -> int:
    digits = re.search(r"(\d+)$", name)
    return int(digits.group(1)) if digits else -1
