"""What people do: they edit the spec files, and give orders and consents. A part of `strikes`."""

from __future__ import annotations

import asyncio
import json

from tests.simulation.dice import Dice
from tests.simulation.machine import Switch
from tests.simulation.specs import FILES, IMAGES, SINGLES


class People(Dice):
    """Their wishes and mistakes."""

    # --- the spec ------------------------------------------------------------------------------------------

    async def move(self) -> str:
        """A name is moved to another line."""
        return await self.move_guest(self.guest())

    async def move_guest(self, guest: str) -> str:
        others = set(self.room.files.containers) - {self.room.home[guest]}
        container = self.one_of(others or self.room.files.containers)
        self.truth.may_restart.add(guest)
        self.room.files.move(guest, container)
        await self._save()
        return f"{guest} to {container}"

    async def move_many(self) -> str:
        """deployment.yaml is turned upside down."""
        names = self.room.files.containers
        chosen = [guest for guest in sorted(self.room.home) if self.rng.random() < 0.8]
        for guest in chosen:
            self.truth.may_restart.add(guest)
            self.room.files.move(guest, self.rng.choice(names))
        await self._save()
        return " ".join(chosen)

    async def revert(self) -> str:
        """The last good files are put back, as `git checkout` does."""
        before = self.room.before
        if before is None:
            raise LookupError("there is nothing before")
        self.room.files.documents = before
        self.removed = {guest for guest in SINGLES if guest not in self.room.files.placement}
        self.truth.may_restart |= set(self.room.files.placement) | set(self.room.home)
        await self._save()
        return ""

    async def remove(self) -> str:
        """A guest leaves the spec."""
        return await self.leave_spec(self.one_of(set(SINGLES) & set(self.room.home)))

    async def leave_spec(self, guest: str) -> str:
        self.truth.may_restart.add(guest)
        if self.room.hosts_of(guest) == [self.room.home[guest]]:
            self.truth.left_running.add(guest)
        self.room.files.remove_single(guest)
        self.removed.add(guest)
        await self._save()
        return guest

    async def add(self) -> str:
        """A guest comes into the spec, perhaps again."""
        guest = self.one_of(set(SINGLES) - set(self.room.home))
        await self.put_back(guest)
        return guest

    async def put_back(self, guest: str) -> None:
        self.truth.may_restart.add(guest)
        self.truth.left_running.discard(guest)
        self.room.files.add_single(guest, self.one_of(self.room.files.containers))
        self.removed.discard(guest)
        await self._save()

    async def change_image(self) -> str:
        """Another image for all guests, and perhaps the class begins."""
        site = self.room.files.documents["site"]
        site["defaults"]["image"] = self.rng.choice(IMAGES)
        if self.rng.random() < 0.4:
            site["session"] = "running"
        self.truth.may_restart |= set(self.room.home)
        await self._save()
        return str(site["defaults"]["image"])

    async def move_and_back(self) -> str:
        """A name is moved, and soon moved back."""
        guest = self.guest()
        home = self.room.home[guest]
        words = await self.move_guest(guest)
        await asyncio.sleep(self.rng.choice([0.5, 2.0, 5.0, 15.0]))
        self.room.files.move(guest, home)
        await self._save()
        return f"{words} and back"

    async def resize(self) -> str:
        """Other memory and cores for all nodes: taken at a guest's next start."""
        template = self.room.files.documents["clusters"]["templates"]["node"]
        template["memory"] = self.rng.choice(["256MiB", "512MiB", "768MiB"])
        template["cores"] = self.rng.choice([1, 2])
        await self._save()
        return f"{template['memory']} {template['cores']}"

    async def drop_container(self, name: str = "") -> str:
        """A container (that one, or any) leaves the spec, and its guests are placed elsewhere; or it comes back."""
        documents = self.room.files.documents["containers"]
        entries = documents["containers"]
        if self.dropped:
            entries.append(self.dropped[0])
            self.room.files.deployment.setdefault(entries[-1]["name"], [])
        else:
            if len(entries) < 3:
                raise LookupError("too few are left")
            entry = self.rng.choice([entry for entry in entries if name in ("", entry["name"])])
            entries.remove(entry)
            for guest in self.room.files.deployment.pop(entry["name"], []):
                self.room.files.move(guest, self.rng.choice(entries)["name"])
        self.truth.may_restart |= self.room.known_guests
        await self._save()
        return " ".join(entry["name"] for entry in self.dropped)

    async def begin_class(self) -> str:
        """session: running."""
        self.room.files.documents["site"]["session"] = "running"
        await self._save()
        return ""

    async def _save(self) -> None:
        self.bad_files = False
        if self.room.good.site.session == "preparing":
            self.truth.may_restart |= self.room.known_guests  # what others are called is part of each guest's context
        await self.room.edited()
        self.truth.edits.spec_changed()

    async def spoil_files(self) -> str:
        """A file is cut, emptied, removed, or no longer YAML: nothing may change (S4)."""
        name = self.rng.choice(FILES)
        text = self.room.files.text(name)
        how = self.rng.choice(["cut", "empty", "gone", "comment", "junk", "no guests", "short", "older"])
        if self.bad_files and how in ("short", "older"):
            raise LookupError("two files without the same guest are a spec")
        path = self.room.files.directory / f"{name}.yaml"
        if how == "gone":
            path.unlink(missing_ok=True)
        elif how == "no guests":
            path = self.room.files.directory / "deployment.yaml"
            path.write_text("deployment: {}\n")
        elif how in ("short", "older"):
            name = {"short": "deployment", "older": "clusters"}[how]
            self.room.files.write(name, json.dumps(self.room.files.without_the_last(name)))
        else:
            cut = text[: self.rng.randrange(len(text) - 2)]
            path.write_text({"cut": cut, "empty": "", "comment": "# nothing\n", "junk": "{" + text}[how])
        self.bad_files = True
        before = {service.name: service.controller.spec.digest for service in self.room.services if service.alive}
        await self.room.reload()
        for service in self.room.services:
            if service.alive and service.controller.spec.digest != before[service.name]:
                self.truth.violate("S4", f"{name}.yaml is spoilt ({how}), and {service.name} takes it for a spec")
        return f"{name} {how}"

    async def mend_files(self) -> str:
        """The files are as they were."""
        if not self.bad_files:
            raise LookupError("they are in order")
        await self._save()
        return ""

    # --- the command line ----------------------------------------------------------------------------------

    async def pause(self) -> str:
        """`vcrecon pause`."""
        subject = self.rng.choice([self.guest(), self.container(), "site", "cluster/a"])
        self.say(lambda controls: controls.pause(subject))
        return subject

    async def resume(self) -> str:
        """`vcrecon resume`."""
        subject = self.one_of(self.room.paused())
        self.say(lambda controls: controls.resume(subject))
        return subject

    async def rebuild(self) -> str:
        """`vcrecon rebuild`: this disk may be given up."""
        guest = self.guest()
        self.say(lambda controls: controls.consent("rebuild", [guest]))
        self.truth.may_restart.add(guest)
        self.room.gives_up("rebuild", guest)
        return guest

    async def prune(self) -> str:
        """`vcrecon prune`: the kept disks of a guest may go."""
        guest = self.one_of([*self.room.home, *self.removed])
        self.say(lambda controls: controls.consent("prune", [guest]))
        self.room.gives_up("prune", guest)
        return guest

    async def confirm(self) -> str:
        """`vcrecon confirm`: a large change is meant."""
        self.say(lambda controls: controls.confirm())
        self.room.confirmed = True
        return ""

    async def rescue(self) -> str:
        """`vcrecon rescue`: hold this guest's disk."""
        guest = self.guest()
        self.say(lambda controls: controls.rescue(guest, "a person"))
        self.truth.may_restart.add(guest)
        self.room.asked_to_hold.add(guest)
        return guest

    async def release(self) -> str:
        """`vcrecon release`."""
        guest = self.one_of(self.room.asked_to_hold)
        self.say(lambda controls: controls.release(guest, "a person"))
        self.room.asked_to_hold.discard(guest)
        self.truth.may_restart.add(guest)
        return guest

    async def fence(self) -> str:
        """A person vouches for a host that is really off, and places its guests elsewhere."""
        container = self.one_of(self.off)
        await self.room.until(lambda: not self._reachable(container), 120)
        if container not in self.off or self.site.hosts[container].machine.up:
            raise LookupError("it came back")
        await self.fenced(container)
        return container

    async def fenced(self, container: str) -> None:
        """A person says so, places its guests elsewhere, and means it."""
        self.say(lambda controls: controls.fence(container, "operator"))
        self._fence_stands(container)
        others = [name for name in self.room.files.containers if name != container]
        for guest in sorted(g for g, place in self.room.home.items() if place == container):
            self.truth.may_restart.add(guest)
            self.room.files.move(guest, self.rng.choice(others))
        await self._save()
        self.say(lambda controls: controls.confirm())
        self.room.confirmed = True

    async def power_fence(self) -> str:
        """`vcrecon fence --power-off`, with a power controller that works, is dead, or lies."""
        return await self.power_fence_of(self.one_of(self.room.main.switches))

    async def power_fence_of(self, container: str) -> str:
        main = self.room.main
        switch: Switch = main.switches[container]
        if not main.alive:
            raise LookupError("it does not run")
        try:
            await main.call(lambda: main.controls.power_fence(container, "operator"))
        finally:
            if self.site.hosts[container].machine.up:
                self._no_fence_stands(container)
            else:
                self.off.add(container)
                self.disturbed(container)
        self._fence_stands(container)
        return f"{container} dead={switch.dead} lies={switch.lies}"

    def _no_fence_stands(self, container: str) -> None:
        if container in self.room.main.on_disk("fences"):
            self.truth.violate("S1", f"{container} is fenced, and has power")

    def _fence_stands(self, container: str) -> None:
        self.room.fenced.add(container)
        self.truth.copies.vouched.add(container)
        self._given_up_there(container)

    def _given_up_there(self, container: str) -> None:
        """What is on its disks cannot be read: guests that live there may begin anew elsewhere."""
        for guest in sorted(self.room.works):
            if container in self.room.places(guest):
                self.room.anew.add(guest)

    async def change_switch(self) -> str:
        """A power controller dies, begins to lie, or is repaired."""
        container = self.one_of(self.room.main.switches)
        switch: Switch = self.room.main.switches[container]
        switch.dead, switch.lies = self.rng.choice([(True, False), (False, True), (False, False)])
        return f"{container} dead={switch.dead} lies={switch.lies}"

    async def reinstall(self) -> str:
        """`vcrecon reinstall`, sometimes with the names of the guests whose work is there."""
        if not self.room.machines:
            raise LookupError("no machine can be installed")
        return self.reinstall_one(self.one_of(self.room.machines), named=self.rng.random() < 0.5)

    def reinstall_one(self, container: str, *, named: bool) -> str:
        work = sorted(g for g in self.room.works if container in self.room.places(g))
        names = work if named else []
        self.say(lambda controls: controls.reinstall(container, names, "a person"))
        self.room.consents.add(("reinstall", container))
        self.disturbed(container)
        for guest in names:
            self.room.gives_up("reinstall", guest)
        return f"{container} {' '.join(names)}"
