"""What must never happen, held against the hosts themselves (S1 to S12). Nothing here asks the controller.

`Truth` hears of every command before it runs, every start of a guest, every message and every end of a step; what it
finds wrong is a violation, with its rule. What can only be judged once all is quiet is in `rest`.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.copies import Copies
from tests.simulation.disks import digest_of, epoch_of, image_digests, is_aside, is_live, value_of
from tests.simulation.edits import LIMIT_LAG_S, Edits
from tests.simulation.gates import Gates
from tests.simulation.specs import CANARY, IMAGES, artifacts
from tests.simulation.wire import Ends

from vcrecon.sim.audit import guest_of
from vcrecon.sim.domains import Domain
from vcrecon.sim.files import File, Files
from vcrecon.sim.lvm import Volume
from vcrecon.sim.machine import Machine, VolumeEvent
from vcrecon.sim.process import Process as Command

if TYPE_CHECKING:
    from tests.simulation.classroom import Classroom

SECRETS = (CANARY, "PRIVATE KEY")
STOPS = re.compile(r"(?:^|/)(?:virsh(?: -\S+)* (?:shutdown|destroy|reset|reboot)|xl (?:shutdown|destroy))\b")
CHANGES = frozenset({"lvcreate", "lvchange", "lvremove", "lvrename", "lvextend", "virsh", "xl", "ip", "nft", "umount"})
CHANGES |= {"mkfs.xfs", "sha256sum"}
"""Before these it is looked at what lies on the host."""
LOCKED_CHANGES = re.compile(
    r"^(?:lvcreate|lvchange|lvremove|lvrename|mkfs|virsh(?: -\S+)* (?:start|define|destroy|shutdown|undefine)|"
    r"xl (?:create|destroy|shutdown))\b"
)
BOOTS = re.compile(r"vc\.boots=\d+")
BUILDING = "--addtag vc.building"
KILLED = 128
START = re.compile(r"\b(?:virsh(?: -\S+)* start|xl create)\b")
LOCK = re.compile(r"/run/lock/vcrecon\.(\S+) sh -c")
SAFE_TO_LOSE_TRIES = 3
FULL_PERCENT = 98.0
"""Of a pool. What is left of one that is less full may be room enough for a disk."""
STARTS_A_MINUTE_MAX = 8
"""Of one guest that crashes after each boot: three at once, then ever more slowly; a move lets it begin again."""


@dataclass(frozen=True)
class Violation:
    rule: str
    what: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.at_s:9.3f} {self.rule}: {self.what}"


@dataclass
class Tries:
    """How often one script failed on one host without a success between, and when last."""

    failures: int = 0
    failed_at_s: float = 0.0


class Truth:
    """Attaches itself to the classroom's hosts and network. `violations` is empty as long as all is well."""

    def __init__(self, room: Classroom) -> None:
        self.room = room
        self.violations: list[Violation] = []
        self.hash = hashlib.sha256()
        self.trace: list[str] | None = None
        self.log: list[str] = []
        """What the services logged."""
        self._witnessed = 0
        self._known_tags: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._known_files: dict[str, set[str]] = defaultdict(set)
        self.tries: dict[tuple[str, str], Tries] = defaultdict(Tries)
        self._mounted: dict[tuple[str, str], set[str]] = {}
        """What was mounted on a host when a step began."""
        self._starts: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._starting: dict[str, list[Ends]] = defaultdict(list)
        self.full_since_s: dict[str, float] = {}
        """Since when a host's pool has no room."""
        self.may_restart: set[str] = set()
        """Guests that a strike gave a reason to be started again."""
        self.left_running: set[str] = set()
        """Guests that ran where they belonged when they left the spec: nothing was about to remove their disk."""
        self.lost_for_good: set[str] = set()
        """Guests whose disk a strike took away."""
        self._crashes: list[tuple[str, float]] = []
        self._lives: dict[str, float] = {}
        """Since when each life of a service was seen: the last tries of the one before it may be forgotten."""
        """Which guest somebody brought down, and when."""
        self._images = {artifacts(name)["root"]["sha256"]: image_digests(name) for name in IMAGES}
        self.gates, self.edits, self.copies = Gates(self), Edits(self), Copies(self)
        self.powered_off: dict[str, float] = {}
        """Guests that were switched off from inside while the spec honours that, and when."""
        room.network.on_message = self._message
        room.network.on_end = self._ended
        room.network.on_start = self._command_begins
        for name, host in room.site.hosts.items():
            host.machine.on_domain_start(lambda domain, name=name: self._started(name, domain))
            host.machine.on_volume_event(self._volume)
            host.programs.before = self._before(name, host.programs.before)

    def brought_down(self, guest: str) -> None:
        """A strike stops or restarts this guest."""
        self.may_restart.add(guest)
        self._crashes.append((guest, self.room.loop.time()))

    def switched_off(self, guest: str) -> None:
        """Somebody inside switches it off, which the spec may honour."""
        self.brought_down(guest)
        spec, hosts = self.room.good.guests.get(guest), self.room.hosts_of(guest)
        if spec is None or spec.on_poweroff != "honour" or len(hosts) != 1:
            return
        domain = self.room.site.hosts[hosts[0]].machine.domains.by_name[guest]
        now_s = self.room.loop.time()
        if now_s > domain.answers_at + LIMIT_LAG_S and now_s > self.room.changed_at_s + LIMIT_LAG_S:
            self.powered_off[guest] = now_s

    def crash_looping(self, guest: str) -> None:
        """A strike lets this guest crash after each boot: only the service's patience bounds how often it boots."""
        self.may_restart.add(guest)

    def violate(self, rule: str, what: str) -> None:
        at_s = self.room.loop.time()
        if not any(v.rule == rule and v.what == what for v in self.violations):
            self.violations.append(Violation(rule, what, at_s))

    # --- every message -------------------------------------------------------------------------------------

    def _message(self, host: str, direction: str, kind: str, data: bytes) -> None:
        line = f"{self.room.loop.time():.6f} {host} {direction} {kind} "
        self.hash.update(line.encode() + data)
        if self.trace is not None:
            self.trace.append(line + data[:160].decode("utf-8", "replace").replace("\n", "\\n"))
        self.gates.watch_lease(host)
        if direction == "request" and kind == "exec":
            self._step_begins(host, data.decode("utf-8", "replace"))

    def _step_begins(self, host: str, script: str) -> None:
        self._no_secret(script, f"a command for {host}")
        lock = LOCK.search(script)
        if lock is None or lock[1] not in self.room.known_guests:
            return
        guest = lock[1]
        self._intent_is_durable(host, guest, script)

    def _command_begins(self, host: str, ends: Ends) -> None:
        """S8: only so many guests are started on a host at once."""
        lock = LOCK.search(ends.command)
        if lock is None:
            return
        self.gates.acts(host, ends.link.client_owner)
        self._mounted[host, ends.command] = self._mounts(host)
        if BUILDING in ends.command:
            self.copies.builds(host, lock[1], ends)
        if START.search(ends.command):
            self.copies.starts(host, lock[1], ends)
            running = [e for e in self._starting[host] if not (e.server_over or e.client_over)]
            self._starting[host] = [*running, ends]
            most = self.room.good.site.limits.starts_per_container
            if len(running) >= most:
                self.violate("S8", f"{len(running) + 1} guests are started at once on {host}, {most} may be")

    def _intent_is_durable(self, host: str, guest: str, script: str) -> None:
        """S7: before the first command of an act the record on disk has its intent.

        Not what a cut held up until the connection was given up: that act has failed, and its intent with it.
        """
        if not any(link.open for link in self.room.site.servers[host].links):
            return
        for service in self.room.services:
            if any(link.client_owner == service.owner for link in service.site.servers[host].links):
                if not service.is_synced(guest):
                    self.violate("S7", f"a step for {guest} on {host} begins, and a power cut may take its intent")
                if f"guest/{guest}" in service.on_disk("intents"):
                    return
        self.violate("S7", f"a step for {guest} on {host} has no intent in any record on disk: {script[:80]}")

    def _ended(self, host: str, script: str, status: int) -> None:
        """S8: what fails again and again is tried less and less often, whoever tries it."""
        lock = LOCK.search(script)
        if lock is None:
            return
        self.scan(host)  # what it calls whole, or proved, is so now
        # The count of boots goes up with each try.
        tries, now_s = self.tries[host, BOOTS.sub("", script)], self.room.loop.time()
        if status == 0:
            tries.failures = 0
            if BUILDING in script:
                self.copies.built(host, lock[1])
            if START.search(script):
                self.copies.started(host, lock[1])
            return
        if status < KILLED:
            self._leaves_nothing(host, script)
        gap_s = now_s - tries.failed_at_s
        # Half of that is the shortest; and what else of the guest ends well meanwhile may cost a count.
        least_s = 0.2 * min(300.0, 2.0**tries.failures)
        forgiven = self.room.changed_at_s >= tries.failed_at_s
        if tries.failures >= SAFE_TO_LOSE_TRIES and gap_s < least_s and not forgiven:
            self.violate(
                "S8", f"{script[:90]!r} failed {tries.failures + 1} times on {host}, the last {gap_s:.1f} s apart"
            )
        tries.failures = 1 if forgiven else tries.failures + 1
        tries.failed_at_s = now_s

    def _leaves_nothing(self, host: str, script: str) -> None:
        """A step that failed leaves nothing mounted."""
        left = self._mounts(host) - self._mounted.get((host, script), self._mounts(host))
        if left and not self.room.site.hosts[host].programs.held_locks:
            self.violate("leak", f"a step that failed on {host} leaves {sorted(left)} mounted")

    def _mounts(self, host: str) -> set[str]:
        mounts = self.room.site.hosts[host].machine.files.mounts
        return {mount.target for mount in mounts if "vcrecon/mnt" in mount.target}

    # --- every command -------------------------------------------------------------------------------------

    def _before(self, host: str, faults: Any) -> Any:
        machine = self.room.site.hosts[host].machine

        async def before(command: Command) -> int | None:
            self._look_at(host, machine, command)
            status: int | None = await faults(command)
            if status and command.argv[0] == "umount":  # a strike's doing: no step under way can help what it leaves
                for key in [key for key in self._mounted if key[0] == host]:
                    del self._mounted[key]
            return status

        return before

    def _look_at(self, host: str, machine: Machine, command: Command) -> None:
        line = " ".join(command.argv)
        self._no_secret(line, f"the arguments of {command.argv[0]} on {host}")
        if command.argv[0].rpartition("/")[2] not in CHANGES:
            return
        self._witness()
        self.scan(host)
        self.gates.watch_lease(host)
        self.gates.bridge_is_made(host, line)
        if self.room.foreign.changed(host):
            self.violate("S5", f"something of others on {host} is not as it was, before `{line[:100]}`")
        if LOCKED_CHANGES.match(line) and not self.room.site.hosts[host].programs.held_locks:
            self.violate("S7", f"`{line[:100]}` runs on {host} without a lock")
        if STOPS.search(line):
            self._stop(host, machine, command)
        if command.argv[0].endswith("lvcreate"):
            self._room_for_data(host, line)
            self.copies.new_disk(host, line)

    def _stop(self, host: str, machine: Machine, command: Command) -> None:
        domain = next((d for word in command.argv[2:] if (d := machine.domains.find(word)) is not None), None)
        if domain is None or not domain.live:
            return
        guest, room = domain.name, self.room
        if guest not in room.known_guests:
            self.violate("S5", f"{guest} on {host}, which is not ours, is told to stop")
            return
        if domain.state != "running" or domain.answers_at == float("inf"):
            return
        if len(room.hosts_of(guest)) > 1 or self._overtaken(host, guest):
            return
        if room.asked_to_hold & {guest} or ("rebuild", guest) in room.consents:
            self.edits.halts(guest)
            return
        if room.home.get(guest) != host:
            self.edits.stops(guest, host)
        elif room.good.site.session == "preparing" and room.loop.time() - room.changed_at_s < 3600:
            return  # an image or a context that changed
        elif room.loop.time() - room.changed_at_s > LIMIT_LAG_S:
            self.violate("healthy", f"{guest}, which runs well where it belongs, is told to stop on {host}")

    def _overtaken(self, host: str, guest: str) -> bool:
        """Whether a newer disk of the guest is anywhere."""
        epochs = {name: epoch_of(volume) for name, _, volume in self.room.disks(guest) if is_live(volume)}
        return any(epoch > epochs.get(host, 0) for name, epoch in epochs.items() if name != host)

    def tick(self) -> None:
        """Once a virtual second: what only counts when it lasts."""
        self._witness()
        self._lives.setdefault(self.room.main.owner, self.room.loop.time())
        self.edits.tick()

    def _room_for_data(self, host: str, line: str) -> None:
        since_s = self.full_since_s.get(host)
        if since_s is None or self.room.loop.time() - since_s <= LIMIT_LAG_S:
            return
        pools = [v for v in self.room.site.hosts[host].machine.all_volumes() if v.kind == "pool"]
        fills = [f or 0.0 for v in pools for f in (v.group.data_percent(v), v.group.metadata_percent(v))]
        if max(fills, default=0.0) < FULL_PERCENT:
            del self.full_since_s[host]  # its disks were made anew, or its guests left
        elif "-n vc" in line.replace("--name", "-n") and "-Wy" not in line:  # thick ones lie beside the pool
            self.violate("S11", f"`{line[:100]}` on {host}, whose pool has been full for long")

    def _no_secret(self, text: str, where: str) -> None:
        for secret in SECRETS:
            if secret in text:
                self.violate("S10", f"{secret[:12]}… is in {where}")

    # --- every start and every lost disk -------------------------------------------------------------------

    def _started(self, host: str, domain: Domain) -> None:
        self._witness()
        room, guest = self.room, domain.name
        if guest not in room.known_guests:
            return
        machine = room.site.hosts[host].machine
        for volume in machine.domains.volumes(domain):
            self._fit_to_start(host, guest, volume)
        self._isolated(host, machine, domain)
        self.copies.begins_to_run(host, guest)
        now_s = room.loop.time()
        off_s = self.powered_off.pop(guest, None)
        if off_s is not None and room.changed_at_s < off_s and machine.started_at < off_s and now_s - off_s > 1:
            self.violate(
                "healthy", f"{guest} was switched off from inside, which the spec honours, and starts on {host}"
            )
        starts = self._starts[guest, host]
        starts.append(now_s)
        lately = [at_s for at_s in starts if now_s - at_s < 60]
        lives = [(guest, at_s) for at_s in self._lives.values()]
        brought_down = [at_s for name, at_s in (*self._crashes, *lives) if name == guest and now_s - at_s < 90]
        if len(lately) > STARTS_A_MINUTE_MAX + min(1, len(brought_down)):
            self.violate("S8", f"{guest} was started {len(lately)} times within a minute")

    def _fit_to_start(self, host: str, guest: str, volume: Volume) -> None:
        tags = volume.tags
        for tag in ("vc.held", "vc.building", "vc.incoming"):
            if tag in tags:
                self.violate("S2", f"{guest} boots on {host} from a disk with the tag {tag}")
        if is_aside(volume):
            self.violate("S2", f"{guest} boots on {host} from a disk that was put aside")
        if self._class_runs() and "vc.touched" not in tags:
            self.violate("S2", f"{guest} boots on {host} in a running class from a disk that is not marked touched")
        works = self.room.works.get(guest, [])
        if works and guest not in self.room.anew | self.lost_for_good:
            found = self.room.read(volume)
            if found != works[-1]:
                self.violate("S2", f"{guest} boots on {host} from a disk with {found!r}, not with {works[-1]!r}")
            if "vc.touched" not in tags:
                self.violate("S2", f"{guest} boots on {host} from a disk with work that is not marked touched")
        if not volume.ever_booted or not works:
            self._whole(host, guest, volume)

    def _whole(self, host: str, guest: str, volume: Volume) -> None:
        """S11 and S7: a disk that boots holds all of its image and all of its context."""
        filesystem = volume.look()
        if filesystem is None:
            self.violate("S11", f"{guest} boots on {host} from a disk without a file system")
            return
        for path, digest in self._images.get(value_of(volume, "vc.image="), {}).items():
            if digest_of(filesystem, path) != digest:
                self.violate("S11", f"{guest} boots on {host} from a disk whose {path} is not the image's")
        files = Files(filesystem, clock=float)
        name = files.read("/etc/hostname").decode().strip() if files.exists("/etc/hostname") else ""
        if name != guest:
            self.violate("S7", f"{guest} boots on {host} as {name!r}")
        for path in ("/etc/hosts", "/etc/ssh/ssh_host_ed25519_key"):
            if not files.exists(path):
                self.violate("S7", f"{guest} boots on {host} without {path}")
        if CANARY.encode() not in files.read("/etc/shadow"):
            self.violate("S7", f"{guest} boots on {host} without its root password")

    def _class_runs(self) -> bool:
        since_s = self.room.class_runs_since_s
        return since_s is not None and (since_s == 0 or self.room.loop.time() - since_s > LIMIT_LAG_S)

    def _isolated(self, host: str, machine: Machine, domain: Domain) -> None:
        """S12: each of its interfaces is on the bridge of its own VLAN, behind the rules."""
        guest = self.room.good.guests.get(domain.name)
        links = machine.network.links
        for nic in domain.nics:
            ports = [link for link in links.values() if link.master == nic.bridge and link.kind == "vlan"]
            vlans = {link.vlan_id for link in ports}
            wanted = {i.vlan for i in guest.interfaces if i.mac == nic.mac} if guest is not None else vlans
            if host not in self.gates.flushed:
                for lack in self.gates.rules(host, machine)[:1]:
                    self.violate("S12", f"{domain.name} starts on {host}: {lack}")
            if len(vlans) > 1 or (wanted and vlans and vlans != wanted):
                self.violate("S12", f"{domain.name} on {host}: its {nic.mac} is on VLANs {sorted(map(str, vlans))}")

    def _witness(self) -> None:
        """What the site's own witness saw since."""
        seen = self.room.site.witness.violations
        for entry in seen[self._witnessed :]:
            rule = "S1" if entry["kind"] == "two live copies" else "S2"
            if rule == "S1" and entry["guest"] in self.copies.sworn:
                continue  # a person was wrong; at rest there is one again
            self.violate(rule, f"{entry['kind']}: {entry['guest']} on {entry['host']} {entry['detail']}")
        self._witnessed = len(seen)

    def _volume(self, event: VolumeEvent) -> None:
        guest = guest_of(event.tags)
        if event.kind != "remove" or not guest or "vc.site=elsewhere" in event.tags:
            return
        epoch = next((int(tag.removeprefix("vc.epoch=")) for tag in event.tags if tag.startswith("vc.epoch=")), 0)
        said = (guest, epoch) in self.room.may_go
        preparing = self.room.good.site.session == "preparing" or not self._class_runs()
        late = self.room.loop.time() - self.room.changed_at_s > LIMIT_LAG_S
        ran = guest in self.left_running and ("reinstall", event.machine) not in self.room.consents
        if guest not in self.room.home and not said and (late or ran):
            self.violate("S3", f"{event.volume} of {guest}, which left the spec, is removed from {event.machine}")
        if not said and not (preparing and "vc.touched" not in event.tags):
            self.violate("S2", f"disk {epoch} of {guest} is removed from {event.machine}, and nobody gave it up")

    # --- what lies on a host -------------------------------------------------------------------------------

    def scan(self, host: str) -> None:
        """Tags and files that say that something is whole, as soon as they are there (S11, S7)."""
        machine = self.room.site.hosts[host].machine
        known = self._known_tags[host]
        now: set[tuple[str, str]] = set()
        for volume in machine.all_volumes():
            for tag in volume.tags:
                if tag.startswith(("vc.golden=", "vc.copy=", "vc.context=")):
                    now.add((volume.name, tag))
                    if (volume.name, tag) not in known:
                        self._proved(host, volume, tag)
        self._known_tags[host] = now
        self._scan_images(host, machine)

    def _proved(self, host: str, volume: Volume, tag: str) -> None:
        filesystem = volume.look()
        if tag.startswith("vc.golden="):
            for path, digest in self._images.get(value_of(volume, "vc.golden="), {}).items():
                if digest_of(filesystem, path) != digest:
                    self.violate("S11", f"{volume.name} on {host} is called whole, and its {path} is not the image's")
                    return
        if tag.startswith("vc.copy="):
            epoch = int(tag.partition("=")[2].partition(".")[0])
            origins = [v for n, _, v in self.room.disks(guest_of(volume.tags)) if epoch_of(v) == epoch and n != host]
            origins = [v for v in origins if "vc.incoming" not in v.tags and v.look() is not None]
            text = self.room.read(volume)
            if origins and all(self.room.read(v) != text for v in origins):
                self.violate("S11", f"{volume.name} on {host} is called a proved copy and is not its original's")
        if tag.startswith("vc.context=") and filesystem is not None and not volume.ever_booted:
            files = Files(filesystem, clock=float)
            for path in ("/etc/hostname", "/etc/hosts", "/etc/ssh/ssh_host_ed25519_key"):
                if not files.exists(path):
                    self.violate("S7", f"{volume.name} on {host} is called contextualized, and has no {path}")

    def _scan_images(self, host: str, machine: Machine) -> None:
        directory = "/var/lib/vcrecon/images"
        names = set(machine.files.listdir(directory)) if machine.files.is_dir(directory) else set()
        for name in names - self._known_files[host]:
            node = machine.files.node(f"{directory}/{name}")
            if len(name) == 64 and isinstance(node, File) and hashlib.sha256(node.content()).hexdigest() != name:
                self.violate("S11", f"{directory}/{name} on {host} has not the digest that it is named by")
        self._known_files[host] = names

    # --- at rest -------------------------------------------------------------------------------------------

    def others_are_left_alone(self) -> None:
        """S5, for what no command of ours on that host would tell any more."""
        for host in self.room.site.hosts:
            if self.room.foreign.changed(host):
                self.violate("S5", f"something of others on {host} is not as it was")

    def at_rest(self, restarted: set[str], excused: set[str]) -> None:
        """All that must hold once faults have ended and the service says that all is as wanted."""
        self._witness()
        for guest in sorted(restarted - excused):
            self.violate("healthy", f"{guest} was restarted for no reason")
        for guest, container in sorted(self.room.home.items()):
            if self.room.hosts_of(guest) != [container] and not self._honoured(guest):
                self.violate("converges", f"{guest} runs on {self.room.hosts_of(guest)}, wanted on {container}")
            self._work_is_there(guest)
        for guest in sorted(self.room.works.keys() - self.room.home.keys()):
            self._work_is_there(guest)
            if self.room.hosts_of(guest):
                self.violate("converges", f"{guest} left the spec and still runs on {self.room.hosts_of(guest)}")
        self._nothing_left_over()
        self._nothing_leaked()
        for host in self.room.good.containers:
            self.scan(host)
            self.gates.at_rest(host)
        self.others_are_left_alone()
        self.copies.sworn.clear()

    def _honoured(self, guest: str) -> bool:
        spec = self.room.good.guests.get(guest)
        return guest in self.room.asked_to_hold or (spec is not None and spec.on_poweroff == "honour")

    def _work_is_there(self, guest: str) -> None:
        works = self.room.works.get(guest, [])
        found = {name: self.room.read(volume) for name, _, volume in self.room.disks(guest)}
        texts = [self.room.read(volume) for _, _, volume in self.room.disks(guest)]
        lost = [work for work in works[-1:] if work not in texts]
        if lost and ("prune", guest) not in self.room.consents and guest not in self.room.given_up:
            self.violate("S2", f"{guest}: {lost} is on none of its disks {found}")

    def _nothing_left_over(self) -> None:
        for name, host in self.room.site.hosts.items():
            if self._mounts(name):
                self.violate("leak", f"{name} still has {sorted(self._mounts(name))} mounted")
            for volume in host.machine.all_volumes():
                # A golden volume that nobody waits for any more stays half built until somebody does.
                if volume.name.startswith("vcimg-"):
                    continue
                if {"vc.building", "vc.incoming"} & volume.tags and "vc.site=elsewhere" not in volume.tags:
                    self.violate("leak", f"{name} keeps {volume.name}, unfinished")
            if host.programs.held_locks:
                self.violate("leak", f"{name} is locked: {sorted(host.programs.held_locks)}")
            if host.programs.crashes:
                self.violate("simulation", f"{name}: a tool crashed: {host.programs.crashes[0]}")

    def _nothing_leaked(self) -> None:
        for service in self.room.services:
            if service.alive:
                names = {f"container {name}" for name in self.room.good.containers}
                names |= {f"events of {name}" for name in self.room.good.containers}
                running = [task.get_name() for task in self.room.loop.tasks_of(service.owner)]
                gone = sorted(n for n in running if n.startswith(("container ", "events of ")) and n not in names)
                gone += sorted(n for n in names if running.count(n) > 1)
                if gone or len(running) > 6 * len(self.room.good.containers) + 4:
                    self.violate("leak", f"{len(running)} tasks of the service: {gone or sorted(running)}")
                text = service.everything_written()
                for secret in SECRETS:
                    if secret in text:
                        self.violate("S10", f"{secret[:12]}… is in the record, the metrics or the status")
        logged = "".join(self.log)
        self._no_secret(logged, "the log")
