"""Boot services as a process of their own, for a network namespace: one command a line, one JSON answer a line.

Commands are JSON objects with one key: `adopt` (changes of the provisioning), `hold`, `open`, `quiet` (why,
or null), `status`, `stop`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from boot_site import a_boot_spec, a_container, a_ticket

from vcrecon.boot.desk import Desk
from vcrecon.boot.dhcp_probe import other_servers
from vcrecon.boot.services import BootServices
from vcrecon.core.mastery import Quiet

SECRET = b"s" * 32


class Process:
    def __init__(self, home: Path, provisioning: dict[str, Any]) -> None:
        self._provisioning = {"images": home / "images", **provisioning}
        self._listen_s = self._provisioning.pop("listen_s", 0.1)
        self._events: list[list[str]] = []
        self._desk = Desk(clock=time.time, claim=lambda ticket: None, on_change=lambda name: None)
        spec = self._spec()
        self._desk.adopt(spec)
        self._services = BootServices(
            spec,
            home / "state",
            self._desk,
            SECRET,
            lambda *told: self._events.append(list(told)),
            public=home / "public",
            probe=lambda link, own: other_servers(link, own=own, listen_s=self._listen_s),
            retry_s=1.0,
        )

    def _spec(self, names: int = 1) -> Any:
        more = [
            a_container(f"c{n}", address=f"10.9.0.{10 + n}", mac=f"52:54:00:aa:00:0{n}") for n in range(1, names + 1)
        ]
        return a_boot_spec(*more, **self._provisioning)

    async def run(self) -> None:
        await self._services.start()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            await self._obey(json.loads(line))
            if "stop" in json.loads(line):
                break
        await self._services.stop()
        print(json.dumps({"stopped": True}), flush=True)

    async def _obey(self, command: dict[str, Any]) -> None:
        if "hold" in command:
            self._desk.hold(command["hold"].get)
        if "quiet" in command:
            quiet = Quiet("other-master", command["quiet"]) if command["quiet"] else None
            self._desk.quiet = quiet
            self._services.be_quiet(quiet)
        if "open" in command:
            now_s = time.time()
            self._desk.open(replace(a_ticket(), opened_at_s=now_s, expires_at_s=now_s + 600))
        if "adopt" in command:
            names = command["adopt"].pop("containers", 1)
            self._listen_s = command["adopt"].pop("listen_s", self._listen_s)
            self._provisioning.update(command["adopt"])
            spec = self._spec(names)
            self._desk.adopt(spec)
            await self._services.adopt(spec)
        if "stop" not in command:
            await self._services.settled()
            dnsmasq = self._services._dnsmasq
            answer = {
                "problem": self._services.problem,
                "events": self._events,
                "netboots": {mac: netboot.address for mac, netboot in self._desk.netboots.items()},
                "dnsmasq": dnsmasq.pid,
                "starts": dnsmasq.starts,
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(Process(Path(sys.argv[1]), json.loads(sys.argv[2])).run())
