"""What a person may ask of the running service, and what it shows. Served by `shell.control` over a Unix socket.

Everything asked for is recorded first and only then acted on, by the next pass.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import vcrecon
from vcrecon.controller import Controller
from vcrecon.core.backoff import CRASH_LOOP
from vcrecon.core.decisions import Block, Decision, Do, Rest, Wait
from vcrecon.core.memory import Consent, Fence, Rescue
from vcrecon.core.observation import Seen, Storage
from vcrecon.core.world import Sighting, fenced, frozen, held_back
from vcrecon.errors import Refused
from vcrecon.host.names import rescue_point
from vcrecon.host.rescue import facts
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.install_controls import InstallControls
from vcrecon.shell.gauges import Install
from vcrecon.spec.model import Container


@dataclass(slots=True)
class SpecState:
    """What the service knows of the spec files: what is in force, and what is wrong with those on disk."""

    directory: str
    generation: int = 0
    valid: bool = True
    problems: tuple[str, ...] = ()


class SiteControls:
    """Implements `shell.control.Controls` on one controller."""

    def __init__(
        self,
        controller: Controller,
        spec_state: SpecState,
        *,
        boot_problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._controller = controller
        self._boot_problem = boot_problem
        self._installs = InstallControls(controller)
        self._spec_state = spec_state
        self.listen_url: str | None = None
        """Where page and metrics are read, once `service` has begun to listen; None when they are not."""
        self._started_at_s = controller.clock()

    # --- showing -------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The whole site as one JSON object."""
        c = self._controller
        return {
            "site": c.spec.site.name,
            "session": c.spec.site.session,
            "pid": os.getpid(),
            "version": vcrecon.__version__,
            "started_at_s": self._started_at_s,
            "now_s": self._controller.clock(),
            "spec": {
                "directory": self._spec_state.directory,
                "generation": self._spec_state.generation,
                "digest": c.spec.digest,
                "valid": self._spec_state.valid,
                "problems": list(self._spec_state.problems),
                "held_back": held_back(c.spec, c.world, c.memory),
            },
            "converged": c.converged,
            "frozen": frozen(c.spec, c.world, c.memory),
            "trouble": c.record_trouble,
            "page_url": f"{self.listen_url}/" if self.listen_url else None,
            "metrics_url": f"{self.listen_url}/metrics" if self.listen_url else None,
            "queues": c.admission.lengths(),
            "containers": [self._container(name) for name in c.spec.containers],
            "guests": [self._guest(name) for name in c.spec.guests],
            "orphans": self._orphans(),
            "boot": {"mode": c.spec.site.provisioning.mode, "problem": self._boot_problem()},
            "strangers": self._installs.strangers(),
        }

    def _container(self, name: str) -> dict[str, Any]:
        c, subject = self._controller, f"container/{name}"
        container = c.spec.containers[name]
        observation, last = c.world.current.get(name), c.memory.states.get(subject)
        storage = observation.storage if isinstance(observation, Seen) else None
        pool = storage if isinstance(storage, Storage) and storage.pool_bytes else None
        return {
            "name": name,
            "state": last.state if last else "unknown",
            "reachable": isinstance(observation, Seen),
            "hypervisor": container.hypervisor,
            "address": container.address,
            "detail": c.ledger.details.get(subject, ""),
            "since_s": last.since_s if last else None,
            **self._said(subject, [name]),
            "guests": sum(sighting.active for sighting in c.world.on(name).values()),
            "cordoned": name in c.spec.cordoned,
            "fenced": fenced(c.memory, name) and not isinstance(observation, Seen),
            "paused": bool({subject, "site"} & c.memory.paused.keys()),
            "last_seen_s": observation.at_s if isinstance(observation, Seen) else c.memory.seen.get(name),
            "pool_data_percent": pool.pool_data_percent if pool else None,
            "pool_metadata_percent": pool.pool_metadata_percent if pool else None,
            "install": self._installs.install_of(name),
            "power": container.power.kind,
            # Guests only say that they wait for an image: why it does not come is the container's trouble.
            "blocked": [b for s in (subject, *(f"image/{name}/{i}" for i in c.spec.images)) for b in self._blocked(s)],
        }

    def _guest(self, name: str) -> dict[str, Any]:
        c, subject = self._controller, f"guest/{name}"
        guest, last = c.spec.guests[name], c.memory.states.get(subject)
        placed = c.spec.placement.get(name)
        paused = {subject, f"cluster/{guest.cluster}", f"container/{placed}", "site"} & c.memory.paused.keys()
        return {
            "name": name,
            "cluster": guest.cluster,
            "role": guest.role,
            "container": placed,
            "seen_on": sorted(place for place, s in c.world.sightings.get(name, {}).items() if s.live),
            "state": last.state if last else "unknown",
            "detail": c.ledger.details.get(subject, ""),
            "since_s": last.since_s if last else None,
            **self._said(subject, self._places(name)),
            "paused": bool(paused),
            "held": self._held(name),
            "blocked": self._blocked(subject),
        }

    def _held(self, guest: str) -> dict[str, Any] | None:
        """Who holds its disk for rescue, since when and where; None when nobody does."""
        holder = self._holder(guest)
        if holder is None:
            return None
        rescue = self._controller.memory.rescues.get(guest)
        return {
            "container": holder.container,
            "mounted_at": rescue_point(guest),
            "since_s": rescue.asked_at_s if rescue else None,
            "by": rescue.by if rescue else None,
        }

    def _holder(self, guest: str) -> Sighting | None:
        """Where a disk of it is held; the newest of several, as after a host came back that held an older one."""
        places = self._controller.world.sightings.get(guest, {}).values()
        held = [s for s in places if s.volume and s.volume.held]
        return max(held, key=lambda s: s.epoch) if held else None  # asked of every guest, and of hardly any true

    def _home(self, guest: str) -> Sighting | None:
        """Where its live disk is, as last seen; the newest of several."""
        live = [s for s in self._controller.world.sightings.get(guest, {}).values() if s.live]
        return max(live, key=lambda s: (s.epoch, s.active), default=None)

    def _blocked(self, subject: str) -> list[dict[str, str]]:
        block = self._controller.ledger.block(subject)
        return [{"reason": block.reason, "message": block.message}] if block else []

    def _places(self, guest: str) -> list[str]:
        """Whose word counts on a guest: that of the container where it belongs, else of where it still is."""
        c = self._controller
        return [c.spec.placement.get(guest, ""), *c.world.sightings.get(guest, {})]

    def _said(self, subject: str, places: Iterable[str]) -> dict[str, str]:
        """Why an object is as it is: the last decision on it, and its words; empty before there is one."""
        for place in places:
            station = self._controller.stations.get(place)
            for decision in station.plan.decisions if station and station.plan else ():
                if decision.subject == subject:
                    words = _words(decision)
                    return {"decision": words["decision"], "message": words["message"]}
        return {"decision": "", "message": ""}

    def _orphans(self) -> list[dict[str, Any]]:
        """What carries our mark on a host and is not in the spec: kept, and shown."""
        c = self._controller
        found = []
        for name, places in sorted(c.world.sightings.items()):
            for place, sighting in sorted(places.items()):
                kept = len(sighting.quarantined)
                if name not in c.spec.guests or kept:
                    held = sighting.volume is not None and sighting.volume.held
                    state = "held for rescue" if held else "still there" if sighting.live else ""
                    disks = f"{kept} {'disk' if kept == 1 else 'disks'} kept" if kept else ""
                    words = ", ".join(word for word in (state, disks) if word)
                    size = sum(volume.size_bytes for volume in sighting.quarantined)
                    found.append(
                        {"name": name, "container": place, "message": words, "disks": kept, "disk_bytes": size}
                    )
        return found

    def installs(self) -> dict[str, Install]:
        """How far each install is, by container, for the metrics."""
        return self._installs.under_way()

    def events(self, subject: str | None, after_id: int | None, limit: int) -> list[dict[str, Any]]:
        """The history, oldest first; without `after_id` the newest `limit` of it."""
        wanted = self._subject(subject) if subject and not subject.startswith("image/") else subject
        events = self._controller.ledger.record.events(wanted, after_id=after_id, limit=limit)
        return [
            {
                "id": e.id,
                "at_s": e.at_s,
                "subject": e.subject,
                "reason": e.reason,
                "message": e.message,
                "facts": e.facts,
            }
            for e in events
        ]

    def plans(self) -> list[dict[str, Any]]:
        """The last decision on each object."""
        return [
            {"container": station.name, **_words(decision)}
            for station in self._controller.stations.values()
            if station.plan is not None
            for decision in station.plan.decisions
        ]

    # --- asking --------------------------------------------------------------------------------------------

    def pause(self, subject: str) -> str:
        name = self._subject(subject)
        record = self._controller.ledger.record
        with record.batch() as batch:
            batch.put_pause(name, self._controller.clock())
            batch.event(name, "paused", "a person asked vcrecon to keep its hands off")
        self._controller.refresh()
        end = f"vcrecon resume {_short(name)}".rstrip()
        return f"{name} is paused: vcrecon looks at it but does nothing to it until `{end}`"

    def resume(self, subject: str) -> str:
        name = self._subject(subject)
        c = self._controller
        if name not in c.memory.paused:
            others = ", ".join(sorted(c.memory.paused)) or "nothing"
            raise Refused(f"{name} is not paused (paused: {others})")
        with c.ledger.record.batch() as batch:
            batch.remove_pause(name)
            batch.event(name, "resumed", "a person handed it back to vcrecon")
        c.refresh()
        return f"{name} is in vcrecon's hands again"

    def consent(self, kind: Literal["rebuild", "prune"], names: list[str]) -> list[str]:
        """Record that a person gives disks up (S2); returns one sentence for each guest."""
        c = self._controller
        guests = [guest for name in names for guest in self._members(name, kind)]
        granted = [(guest, self._epoch(guest, kind)) for guest in guests]
        sentences = []
        with c.ledger.record.batch() as batch:
            for guest, epoch in granted:
                batch.put_consent(Consent(kind, guest, epoch, self._controller.clock()))
                batch.remove_attempts(f"guest/{guest}")
                batch.event(f"guest/{guest}", f"{kind}-consent", f"a person gave up disk {epoch} for {kind}")
                verb = (
                    "is rebuilt from its image; its old disk is kept aside"
                    if kind == "rebuild"
                    else "loses its kept disks"
                )
                sentences.append(f"{guest} {verb} (disk {epoch})")
        for guest, _ in granted:
            c.wake({c.spec.placement.get(guest, ""), *c.world.sightings.get(guest, {})})
        return sentences

    def _members(self, name: str, kind: str) -> Iterable[str]:
        """The guests that a name stands for: a guest, or a whole cluster."""
        c = self._controller
        plain = name.removeprefix("guest/").removeprefix("cluster/")
        if plain in c.spec.clusters and not name.startswith("guest/"):
            return c.spec.clusters[plain].guests
        if plain in c.spec.guests or (kind == "prune" and plain in c.world.sightings):
            return (plain,)
        raise Refused(f"there is no guest or cluster {plain!r}" + _near(plain, [*c.spec.guests, *c.spec.clusters]))

    def _epoch(self, guest: str, kind: str) -> int:
        c = self._controller
        places = c.world.sightings.get(guest, {}).values()
        if kind == "prune":
            kept = [v.epoch for s in places for v in s.quarantined]
            if not kept:
                raise Refused(f"{guest} has no kept disk to prune; `vcrecon prune` lists what there is")
            return max(kept)
        claim = c.memory.claims.get(guest)
        return max([s.epoch for s in places] + ([claim.epoch] if claim else []), default=0)

    def fence(self, container: str, by: str) -> dict[str, Any]:
        """Take somebody's word that a container is off (S1)."""
        return self._fence(container, by, "word")

    def _fence(self, container: str, by: str, how: Literal["word", "power"]) -> dict[str, Any]:
        c = self._controller
        name = container.removeprefix("container/")
        self._refuse_fence(name)
        claims = [claim for claim in c.memory.claims.values() if claim.container == name]
        guests = sorted(claim.guest for claim in claims)
        touched = sorted(claim.guest for claim in claims if claim.touched)
        known = c.world.known(name)
        seen_s = max(c.memory.seen.get(name, 0.0), known.at_s if known is not None else 0.0)
        at_s = max(c.clock(), seen_s)  # also when the clock was set back since
        with c.ledger.record.batch() as batch:
            batch.put_fence(Fence(name, at_s, by, how))
            batch.event(f"container/{name}", "fenced", f"{by} vouches that {name} is off", guests=guests)
        c.refresh()
        message = f"{name} counts as off until it answers again."
        if guests:
            message += f" Guests that the spec places elsewhere start there from a fresh image: {', '.join(guests)}."
        if touched:
            message += f" Their disks stay on {name} and are kept aside when it returns."
        return {"message": message, "guests": guests, "touched": touched}

    def _refuse_fence(self, name: str) -> None:
        c = self._controller
        held = {claim.container for claim in c.memory.claims.values()} | c.memory.unshown.keys()
        if name not in c.spec.containers and name not in held:
            raise Refused(f"there is no container {name!r}" + _near(name, c.spec.containers))
        if c.world.reachable(name):
            raise Refused(
                f"{name} answers, so it is not off: a fence would let its guests run twice. "
                f"To empty it, say `vcrecon evacuate {name}`"
            )

    async def power_fence(self, container: str, by: str) -> dict[str, Any]:
        """Switch a silent container off, see that it is so, and only then take it for off (S1)."""
        name = container.removeprefix("container/")
        self._refuse_fence(name)
        await self._installs.switch_off(name)
        return self._fence(name, f"its power control, asked by {by},", "power")

    def container(self, name: str) -> dict[str, Any]:
        """What is on a container, and what can be done to it as a machine."""
        return {**self._installs.container(name), "specs": self._spec_state.directory}

    def reinstall(self, name: str, give_up: list[str], by: str) -> str:
        """Take a person's word that a container's disks may be made anew (S2)."""
        return self._installs.reinstall(name, give_up, by)

    def cancel_reinstall(self, name: str, by: str) -> str:
        return self._installs.cancel_reinstall(name, by)

    def guest(self, name: str) -> dict[str, Any]:
        """All that a command needs to work on one guest by hand: where it is, how to get there, how far a wish is."""
        c, plain = self._controller, self._guest_name(name)
        subject, home, rescue = f"guest/{plain}", self._home(plain), c.memory.rescues.get(plain)
        place = home.container if home else c.spec.placement.get(plain)
        last, guest = c.memory.states.get(subject), c.spec.guests.get(plain)
        container = c.spec.containers.get(place or "")
        pending = rescue.wish if rescue is not None and not rescue.done else None
        attempts = c.memory.attempts.get(subject)
        failed = attempts if attempts and attempts.error not in (CRASH_LOOP, "locked") else None
        return {
            "name": plain,
            "container": place,
            "reachable": place is not None and c.world.reachable(place),
            "state": last.state if last else "unknown",
            "active": home is not None and home.active,
            "held": self._held(plain),
            "busy": subject in c.view().busy,
            "pending": pending,
            "trouble": failed.message if failed and pending else None,
            "message": self._said(subject, self._places(plain))["message"],
            "mounted_at": rescue_point(plain),
            "console": HYPERVISORS[container.hypervisor].console(plain) if container else None,
            "ssh": self._ssh(place),
            "facts": {**facts(guest, c.wanted), "container": place} if guest else None,
            "root_password": str(guest.root_password) if guest else None,
            "specs": self._spec_state.directory,
        }

    def _ssh(self, container: str | None) -> dict[str, Any] | None:
        """How this service itself reaches a container: a command on the same machine may do likewise (S9)."""
        spec = self._controller.spec
        found = spec.containers.get(container or "")
        if found is None:
            return None
        ssh = spec.site.ssh
        return {
            "name": found.name,
            "address": found.address,
            "port": found.port,
            "user": ssh.user,
            "key": str(ssh.key),
            "known_hosts": str(ssh.known_hosts),
            "pinned_keys": self._own_pins(found),
        }

    def _own_pins(self, container: Container) -> str | None:
        """The host key of a container that vcrecon installed; None when the known_hosts file has the word."""
        metal = self._controller.bare_metal
        return (metal.pins.over(container, "") or None) if metal is not None else None

    def rescue(self, name: str, by: str) -> str:
        """Halt a guest and hold its disk, mounted on its container, for a person to work on."""
        guest = self._guest_name(name)
        home = self._reachable_home(guest)
        if home.volume is None or not home.volume.boots:
            raise Refused(
                f"{guest} has not booted yet, so there is nothing to rescue: vcrecon still makes it, "
                f"and `vcrecon status` says how far it is"
            )
        self._refuse_paused(guest, home.container)
        again = "again " if home.volume.held else ""
        self._ask(
            Rescue(guest, "hold", self._controller.clock(), by), "rescue-asked", f"{by} asked {again}for its disk"
        )
        if home.volume.held:
            return f"{guest} is held already"
        return f"{guest} is halted" if home.active else f"{guest} is down already"

    def release(self, name: str, by: str) -> str:
        """Take a held guest's disk back from the person who worked on it; the rules boot it again."""
        guest = self._guest_name(name)
        rescue, holder = self._controller.memory.rescues.get(guest), self._holder(guest)
        asked = rescue is not None and not rescue.done
        home = holder or (self._home(guest) if asked else None)
        place = home.container if home and home.volume else self._held_unseen(guest)
        if place is None:
            raise Refused(f"{guest} is not held for rescue; `vcrecon status` says how it is")
        self._refuse_paused(guest, place)
        self._ask(Rescue(guest, "release", self._controller.clock(), by), "release-asked", f"{by} gives its disk back")
        if not self._controller.world.reachable(place):
            return f"{place} does not answer now: {guest} is released once it does"
        return f"{guest} is released"

    def _held_unseen(self, guest: str) -> str | None:
        """Where the record says that its disk is held, while that container does not answer, as after a restart."""
        memory, world = self._controller.memory, self._controller.world
        claim = memory.claims.get(guest) if guest in memory.rescues else None
        return claim.container if claim is not None and not world.reachable(claim.container) else None

    def _ask(self, rescue: Rescue, reason: str, message: str) -> None:
        """Durable first, then done by the next pass (S7); what failed before does not keep a person waiting."""
        c, subject = self._controller, f"guest/{rescue.guest}"
        with c.ledger.record.batch() as batch:
            batch.put_rescue(rescue)
            batch.remove_attempts(subject)
            batch.event(subject, reason, message)
        c.wake({c.spec.placement.get(rescue.guest, ""), *c.world.sightings.get(rescue.guest, {})})

    def _guest_name(self, name: str) -> str:
        kind, _, guest = self._subject(name).partition("/")
        if kind != "guest":
            raise Refused(f"{name!r} is a {kind}; this needs a guest")
        return guest

    def _reachable_home(self, guest: str) -> Sighting:
        home = self._home(guest)
        place = home.container if home else self._controller.spec.placement.get(guest)
        if place is not None and not self._controller.world.reachable(place):
            raise Refused(f"{place} does not answer, so the disk of {guest} is out of reach: bring {place} back first")
        if home is None or home.volume is None:
            raise Refused(f"{guest} has no disk yet: `vcrecon status` says what it waits for")
        return home

    def _refuse_paused(self, guest: str, container: str) -> None:
        spec = self._controller.spec
        cluster = spec.guests[guest].cluster if guest in spec.guests else None
        for subject in ("site", f"container/{container}", f"cluster/{cluster}", f"guest/{guest}"):
            if subject in self._controller.memory.paused:
                end = f"vcrecon resume {_short(subject)}".rstrip()
                raise Refused(f"{subject} is paused, so vcrecon does nothing to {guest}: `{end}` first")

    def confirm(self) -> str:
        """Let the present spec stop as many guests as it says (S3)."""
        c = self._controller
        why = held_back(c.spec, c.world, c.memory)
        with c.ledger.record.batch() as batch:
            batch.set_confirmed_digest(c.spec.digest)
            batch.event("site", "confirmed", why or "nothing was held back")
        c.refresh()
        return f"generation {self._spec_state.generation} is confirmed" + ("" if why else "; nothing was held back")

    def refresh(self) -> str:
        self._controller.refresh()
        return "looking at every container now"

    def _subject(self, name: str) -> str:
        """`c01`, `a-head`, `cluster/a`, `guest/x` or `site` as a subject of the record."""
        c = self._controller
        kind, _, plain = name.rpartition("/")
        kinds = {"container": c.spec.containers, "guest": c.spec.guests, "cluster": c.spec.clusters}
        if name in ("", "site"):
            return "site"
        for candidate, known in kinds.items():
            if kind in ("", candidate) and (plain in known or f"{candidate}/{plain}" in c.memory.states):
                return f"{candidate}/{plain}"
        everything = [*c.spec.containers, *c.spec.guests, *c.spec.clusters]
        raise Refused(f"there is no container, guest or cluster {name!r}" + _near(plain, everything))


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else "; `vcrecon status` lists them"


def _short(subject: str) -> str:
    return "" if subject == "site" else subject


def _words(decision: Decision) -> dict[str, str]:
    match decision:
        case Do(action):
            return {
                "subject": action.subject,
                "decision": "do",
                "action": action.kind,
                "reason": "",
                "message": f"{action.kind}: {action.reason}",
            }
        case Wait(subject, message):
            return {"subject": subject, "decision": "wait", "action": "", "reason": "", "message": message}
        case Block(subject, reason, message):
            return {"subject": subject, "decision": "block", "action": "", "reason": reason, "message": message}
        case Rest(subject, message):
            return {"subject": subject, "decision": "rest", "action": "", "reason": "", "message": message}
