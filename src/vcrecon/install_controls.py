"""What a person may ask of installs and power, and what is shown of them. The part of `controls` for bare metal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vcrecon.controller import Controller
from vcrecon.core.install_queue import eta_s
from vcrecon.core.install_rules import given_up, installable, residents, spent
from vcrecon.core.memory import Consent
from vcrecon.core.observation import Seen
from vcrecon.core.world import frozen
from vcrecon.errors import HostError, Refused
from vcrecon.shell.gauges import Install
from vcrecon.shell.install import BareMetal


class InstallControls:
    """Made by `controls.SiteControls` on the same controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    # --- showing -------------------------------------------------------------------------------------------

    def install_of(self, name: str) -> dict[str, Any] | None:
        """How far the install of a container is, or where it stands in the queue; None when there is none."""
        c, metal = self._controller, self._controller.bare_metal
        ticket, station = c.memory.tickets.get(name), c.stations.get(name)
        if metal is None:
            return None
        place = metal.place(station.plan if station else None, c.admission)
        if place is not None:
            return {"step": "queued", "place": place[0], "of": place[1], "begins_in_s": place[2]}
        if ticket is None:
            return None
        progress = metal.desk.progress.get(name)
        left_s = eta_s(progress, c.clock(), metal.durations_s) if progress else None
        waits = {"open": "waits for the machine", "claimed": "installing", "installed": "starts its system"}
        return {
            "step": progress.step if progress else waits[ticket.state],
            "percent": progress.percent if progress else None,
            "bytes_done": progress.bytes_done if progress else 0,
            "bytes_total": progress.bytes_total if progress else 0,
            "message": progress.message if progress else "",
            "eta_s": left_s,
            "since_s": ticket.opened_at_s,
            "system": ticket.system,
            "wipe": ticket.wipe,
        }

    def under_way(self) -> dict[str, Install]:
        """How far each install is, by container, for the metrics."""
        c, metal = self._controller, self._controller.bare_metal
        if metal is None:
            return {}
        found = {}
        for name, ticket in list(c.memory.tickets.items()):
            progress = metal.desk.progress.get(name)
            if ticket.state == "installed":
                found[name] = Install("boot", 1.0, None)
            elif progress is None:
                found[name] = Install("wait", 0.0, None)
            else:
                left_s = eta_s(progress, c.clock(), metal.durations_s)
                found[name] = Install(progress.step, progress.percent / 100, left_s)
        return found

    def strangers(self) -> list[dict[str, Any]]:
        """Machines that booted from the network and that no container has the MAC of; the latest first."""
        metal = self._controller.bare_metal
        if metal is None:
            return []
        known = {container.mac for container in self._controller.spec.containers.values()}
        found = [netboot for netboot in metal.desk.netboots.values() if netboot.mac not in known]
        return [
            {
                "mac": n.mac,
                "address": n.address,
                "at_s": n.at_s,
                "since_s": metal.first_seen_s(n),
                "platform": n.platform,
                "serial": n.serial,
            }
            for n in sorted(found, key=lambda n: -n.at_s)
        ]

    def container(self, name: str) -> dict[str, Any]:
        """All that a command needs to tell a person before a container is reinstalled or fenced."""
        c, plain = self._controller, name.removeprefix("container/")
        if plain not in c.spec.containers:
            raise Refused(f"there is no container {plain!r}; `vcrecon status` lists them")
        entry = c.spec.containers[plain]
        claimed = {claim.guest for claim in c.memory.claims.values() if claim.container == plain}
        here = {guest for guest, sighting in c.world.on(plain).items() if sighting.live or sighting.quarantined}
        work = residents(c.spec, c.world, c.memory, plain)
        return {
            "name": plain,
            "reachable": c.world.reachable(plain),
            "looked_at": bool(c.world.on(plain)) or isinstance(c.world.current.get(plain), Seen),
            "guests": sorted(claimed | here),
            "touched": list(work),
            "power": entry.power.kind,
            "mac": entry.mac,
            "system": entry.system,
            "installable": installable(c.spec, plain),
            "specs": "",
        }

    # --- asking --------------------------------------------------------------------------------------------

    def reinstall(self, name: str, give_up: Iterable[str], by: str) -> str:
        """Record that a person gives up what is on a container's disks, and the work of these guests by name (S2)."""
        c, metal = self._controller, self._metal()
        found = self.container(name)
        plain, subject = found["name"], f"container/{found['name']}"
        self._refuse_impossible(plain)
        work, named = residents(c.spec, c.world, c.memory, plain), {g.removeprefix("guest/") for g in give_up}
        missing = [guest for guest in work if guest not in named]
        if missing:
            raise Refused(
                f"the work of {', '.join(missing)} is on {plain}: `vcrecon evacuate {plain}` first; to lose it, "
                f"say `vcrecon reinstall {plain} --give-up {' --give-up '.join(missing)}`"
            )
        foreign = sorted(named - set(found["guests"]))
        if foreign:
            raise Refused(f"nothing of {', '.join(foreign)} is on {plain}; leave the name out")
        now_s = c.clock()
        with c.ledger.record.batch() as batch:
            for guest, epoch in work.items():
                batch.put_consent(Consent("reinstall", given_up(plain, guest), epoch, now_s))
            batch.put_consent(Consent("reinstall", plain, 0, now_s))
            batch.remove_attempts(subject)
            lost = f"; the work of {', '.join(work)} is given up" if work else ""
            batch.event(subject, "reinstall-asked", f"{by} asked for a new system{lost}", guests=list(work))
        c.wake((plain,))
        if metal.switch_of(plain) is not None:
            return f"{plain} is switched off and on, and installed anew"
        if found["reachable"]:
            return f"{plain} reboots, and is installed anew when it boots from the network"
        return f"switch {plain} on and let it boot from the network (MAC {found['mac']}): it is installed anew"

    def cancel_reinstall(self, name: str, by: str) -> str:
        """Take back what was asked for, while it has not begun."""
        c, plain = self._controller, self.container(name)["name"]
        ticket = c.memory.tickets.get(plain)
        if ticket is not None and ticket.state != "installed":
            raise Refused(f"{plain} is being installed now, so its disks may be gone already: it goes on")
        subjects = spent(c.memory, plain)
        if not subjects:
            raise Refused(f"nobody asked for {plain} to be installed anew; `vcrecon status` says how it is")
        with c.ledger.record.batch() as batch:
            for subject in subjects:
                batch.remove_consent("reinstall", subject)
            batch.event(f"container/{plain}", "reinstall-cancelled", f"{by} took the word back")
        c.wake((plain,))
        return f"{plain} stays as it is"

    def _refuse_impossible(self, name: str) -> None:
        c = self._controller
        entry = c.spec.containers[name]
        for value, what in ((entry.mac, "mac"), (entry.system, "system")):
            if not value:
                raise Refused(f"{name} cannot be installed: it has no `{what}` in containers.yaml")
        if c.spec.site.provisioning.mode == "off":
            raise Refused(
                "site.yaml has provisioning off: say `mode: managed` or `external` there (docs/bare-metal.md)"
            )
        for subject in (f"container/{name}", "site"):
            if subject in c.memory.paused:
                raise Refused(f"{subject} is paused: `vcrecon resume` first")
        ticket = c.memory.tickets.get(name)
        if ticket is not None and ticket.state != "installed":
            raise Refused(f"{name} is being installed now: `vcrecon status` shows how far it is")
        why = frozen(c.spec, c.world, c.memory)
        if why is not None:
            raise Refused(f"not now: {why}")

    async def switch_off(self, name: str) -> None:
        """Switch a container off, and look until it is so (S1). Raises Refused when it cannot be proved."""
        switch = self._metal().switch_of(name) if name in self._controller.spec.containers else None
        if switch is None:
            raise Refused(f"{name} has no power control; if it is off, say `vcrecon fence {name} --confirmed`")
        try:
            await switch.off()
            state = await switch.state()
        except HostError as error:
            raise Refused(f"{name} is not fenced, for it cannot be proved to be off: {error}") from error
        if state != "off":
            raise Refused(f"{name} is not fenced: its power control says {state} after it was switched off")

    def _metal(self) -> BareMetal:
        if self._controller.bare_metal is None:
            raise Refused("this service installs nothing")
        return self._controller.bare_metal
