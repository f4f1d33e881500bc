"""The lab as its tests use it: a site of real Debian hosts, and a vcrecon service that keeps it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vcrecon.lab.inside import ssh_command
from vcrecon.lab.layout import Files
from vcrecon.paths import listener_pid, socket_path, state_directory
from vcrecon.spec.load import load
from vcrecon.spec.model import Guest, Spec

CLI = [sys.executable, "-m", "vcrecon"]
CONVERGE_S = 1500.0
"""An emulated guest boots in one to three minutes when nothing else runs; a loaded machine takes longer."""

LOGIN_S = 180.0
"""A guest answers on its network before its sshd has started."""

Status = dict[str, Any]


@dataclass
class LabSite:
    """Commands of the CLI, commands on hosts and guests, and waiting for what should come true."""

    files: Files
    log: Path
    timings: list[tuple[str, float]] = field(default_factory=list)
    state: Path | None = None
    """The state directory of the service that runs."""
    _service: subprocess.Popen[bytes] | None = None

    @property
    def spec(self) -> Spec:
        return load(self.files.specs).spec

    def vcrecon(self, *arguments: str, check: bool = True, deadline_s: float = 600.0, stdin: str = "") -> str:
        """The standard output of a command of ours; fails the test with its errors unless `check` is off."""
        done = subprocess.run(
            [*CLI, *arguments], capture_output=True, text=True, input=stdin, timeout=deadline_s, check=False
        )
        assert not check or done.returncode == 0, f"vcrecon {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def on(self, name: str, script: str, *, check: bool = True, deadline_s: float = 300.0) -> str:
        """What a shell script says on a container or a guest."""
        command = ssh_command(name, [script], self.files, "-o", "ConnectTimeout=30", record=self.state)
        ends_s = time.monotonic() + LOGIN_S
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, check=False)
            if not check or not _no_login(done.returncode, done.stderr) or time.monotonic() > ends_s:
                break
            time.sleep(2.0)
        assert not check or done.returncode == 0, f"on {name}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def everywhere(self, names: list[str], script: str) -> dict[str, str]:
        """The same script on several hosts or guests at once; what each said."""
        with ThreadPoolExecutor(max(len(names), 1)) as pool:
            said = pool.map(lambda name: self.on(name, script, deadline_s=600.0), names)
            return dict(zip(names, said, strict=True))

    def start(self, *, record: str | None = None) -> None:
        """`vcrecon run` on the lab, as a process of its own; on the site's record or on a new one."""
        self.state = self.log.parent / record if record else state_directory(self.spec.site.name)
        self._run()

    def restart(self) -> None:
        """End the service in order, and start it on the same state directory."""
        self.stop()
        self._run()

    def _run(self) -> None:
        assert self.state is not None
        command = [*CLI, "run", str(self.files.specs), "--state", str(self.state), "--listen", "127.0.0.1:0"]
        with self.log.open("ab") as stream:
            self._service = subprocess.Popen(
                [*command, "--log-format", "json", "--log-level", "info"],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        ends_s = time.monotonic() + 60
        while listener_pid(socket_path(self.state)) is None:
            assert time.monotonic() < ends_s, self.log.read_text()[-3000:]
            time.sleep(0.2)

    def stop(self) -> None:
        """End the service that runs, if any."""
        if self._service is None:
            return
        self._service.send_signal(signal.SIGTERM)
        try:
            self._service.wait(60)
        finally:
            self._service.kill()
            self._service.wait()
            self._service = None

    def kill(self) -> None:
        """End the service and the dnsmasq that it runs with SIGKILL, as the loss of their host does."""
        assert self._service is not None
        assert self.state is not None
        path = self.state / "dnsmasq" / "pid"
        dnsmasq = int(path.read_text()) if path.exists() else None
        self._service.kill()
        self._service.wait()
        self._service = None
        if dnsmasq is not None:
            os.kill(dnsmasq, signal.SIGKILL)

    def ask(self, command: str, *arguments: str, check: bool = True) -> str:
        """A command that talks to the service."""
        return self.vcrecon(command, *arguments, "--state", str(self.state), check=check)

    def status(self) -> Status:
        found: Status = json.loads(self.ask("status", "--json"))
        return found

    def container_of(self, guest: str) -> str:
        return self.spec.placement[guest]

    def until(self, what: str, true: Callable[[Status], Any], deadline_s: float = CONVERGE_S) -> Status:
        """Wait until the service's status says so. Returns that status."""
        ends_s = time.monotonic() + deadline_s
        while True:
            status = self.status()
            if true(status):
                return status
            if time.monotonic() > ends_s:
                raise AssertionError(f"not in {deadline_s:.0f} s: {what}\n{_why(status)}\n{self.ask('events')[-6000:]}")
            time.sleep(1.0)

    def converged(self, what: str = "everything as the spec wants it") -> Status:
        """Wait until the spec as it is now on disk is in force, and all is as it says."""
        digest = self.spec.digest
        return self.until(what, lambda status: status["converged"] and status["spec"]["digest"] == digest)

    @contextlib.contextmanager
    def healing(self, *names: str) -> Iterator[None]:
        """Wait, after the block broke these containers and guests, until each was found changed and all is well.

        One may be mended before the harm to the next is even noticed: so each is waited for.
        """
        broken_at_s = time.time()
        yield

        def mended(status: Status) -> bool:
            found = {entry["name"]: entry["since_s"] for entry in (*status["containers"], *status["guests"])}
            return status["converged"] and all((found[name] or 0.0) > broken_at_s for name in names)

        self.until(f"{', '.join(names)}: harmed, and well again", mended)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long the block took, for the report at the end."""
        began_s = time.monotonic()
        yield
        self.timings.append((what, time.monotonic() - began_s))

    def volume_tags(self, guest: str) -> list[str]:
        """The LVM tags of the guest's live disk, read on its container."""
        group = self.spec.containers[self.container_of(guest)].volume_group
        return self.on(self.container_of(guest), f"lvs --noheadings -o lv_tags {group}/vcg-{guest}").strip().split(",")

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Edit one of the spec's files, in one step as editors do."""
        yaml, path = YAML(), self.files.specs / name
        document = yaml.load(path.read_text())
        change(document)
        fresh = path.with_suffix(".new")
        with fresh.open("w") as stream:
            yaml.dump(document, stream)
        fresh.rename(path)

    def move(self, guest: str, target: str) -> None:
        """Move a line of deployment.yaml."""

        def change(document: Any) -> None:
            for guests in document["deployment"].values():
                if guest in guests:
                    guests.remove(guest)
            document["deployment"][target].append(guest)

        self.edit("deployment.yaml", change)


def _no_login(status: int, said: str) -> bool:
    """Whether ssh failed before the script began."""
    return status == 255 and any(words in said for words in ("refused", "kex_exchange_identification", "timed out"))


def address(guest: Guest, network: str) -> str:
    """The guest's address on a network, without the prefix length."""
    return next(i.address.partition("/")[0] for i in guest.interfaces if i.network == network and i.address)


def _why(status: Status) -> str:
    rows = [f"{g['name']}: {g['state']} {g.get('detail', '')} {g.get('blocked', '')}" for g in status["guests"]]
    rows += [f"{c['name']}: {c['state']} {c.get('detail', '')} {c.get('blocked', '')}" for c in status["containers"]]
    return "\n".join(rows)
