"""A made-up site behind a real control socket: status documents, controls that remember, typed commands."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from vcrecon.cli.app import app
from vcrecon.errors import Refused
from vcrecon.shell.control import Consentable, ControlServer

Type = Callable[..., "Typed"]
NOW_S = 1_000_000.0


def a_container(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "vlan-ready",
        "reachable": True,
        "hypervisor": "kvm",
        "address": "10.64.0.11",
        "detail": "",
        "since_s": NOW_S - 7500,
        "guests": 2,
        "cordoned": False,
        "fenced": False,
        "paused": False,
        "last_seen_s": NOW_S,
        "pool_data_percent": 12.4,
        "pool_metadata_percent": 1.0,
        "blocked": [],
        "install": None,
        "power": "manual",
        **changes,
    }


def a_guest(name: str, container: str | None = "c01", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": name.partition("-")[0] if "-" in name else None,
        "role": "node",
        "container": container,
        "seen_on": [container] if container else [],
        "state": "running",
        "detail": "",
        "since_s": NOW_S - 41,
        "message": "",
        "paused": False,
        "blocked": [],
        **changes,
    }


def an_orphan(name: str, container: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "container": container, "message": "1 disk kept", "disks": 1, **changes}


def blocked(reason: str, message: str) -> list[dict[str, str]]:
    return [{"reason": reason, "message": message}]


def a_status(
    containers: list[dict[str, Any]] | None = None,
    guests: list[dict[str, Any]] | None = None,
    *,
    spec: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    return {
        "site": "lab",
        "pid": 4711,
        "version": "0.1.0",
        "started_at_s": NOW_S - 7200,
        "now_s": NOW_S,
        "spec": {
            "directory": "/etc/vcrecon/specs",
            "generation": 3,
            "digest": "d" * 64,
            "valid": True,
            "problems": [],
            "held_back": None,
            **(spec or {}),
        },
        "converged": True,
        "frozen": None,
        "metrics_url": None,
        "queues": {"installs": 0},
        "containers": [a_container("c01"), a_container("c02")] if containers is None else containers,
        "guests": [a_guest("a-head"), a_guest("a-n1", "c02")] if guests is None else guests,
        "orphans": [],
        "boot": {"mode": "managed", "problem": None},
        "strangers": [],
        **changes,
    }


def a_found_container(**changes: Any) -> dict[str, Any]:
    """What the service tells a command that installs a container anew."""
    return {
        "reachable": True,
        "looked_at": True,
        "guests": [],
        "touched": [],
        "power": "manual",
        "mac": "52:54:00:00:00:01",
        "system": "debian-kvm",
        "installable": True,
        "specs": "/nowhere",
        **changes,
    }


def an_event(number: int, subject: str = "guest/a-head", message: str = "first boot") -> dict[str, Any]:
    return {
        "id": number,
        "at_s": NOW_S + number,
        "subject": subject,
        "reason": "step",
        "message": message,
        "facts": {"n": number},
    }


def a_found_guest(**changes: Any) -> dict[str, Any]:
    """What the service tells a command that works on one guest by hand."""
    return {
        "container": "c01",
        "reachable": True,
        "state": "running",
        "active": True,
        "held": None,
        "busy": False,
        "pending": None,
        "trouble": None,
        "message": "running",
        "mounted_at": "/run/vcrecon/rescue/a-head",
        "console": "virsh console a-head",
        "ssh": None,
        "facts": {"name": "a-head"},
        "root_password": "/nowhere/root.hash",
        "specs": "/nowhere",
        **changes,
    }


class FakeControls:
    """Answers from `site` and `history`; `asked` lists every request that would change something.

    While `answers` is cleared, the service hangs at the next request for its status.
    """

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.site = a_status()
        self.history: list[dict[str, Any]] = []
        self.asked: list[tuple[Any, ...]] = []
        self.found = a_found_guest()
        self.machine = a_found_container()
        self.after_asking: dict[str, Any] = {}

    def status(self) -> dict[str, Any]:
        self.answers.wait(120)
        return self.site

    def events(self, subject: str | None, after_id: int | None, limit: int) -> list[dict[str, Any]]:
        found = [event for event in self.history if subject in (None, event["subject"])]
        if after_id is None:
            return found[-limit:]
        return [event for event in found if event["id"] > after_id][:limit]

    def plans(self) -> list[dict[str, Any]]:
        return [{"container": "c01", "subject": "guest/a-head", "decision": "rest", "message": "as wanted"}]

    def pause(self, subject: str) -> str:
        self.asked.append(("pause", subject))
        return f"{subject} is paused"

    def resume(self, subject: str) -> str:
        raise Refused(f"{subject} is not paused")

    def consent(self, kind: Consentable, names: list[str]) -> list[str]:
        self.asked.append((kind, *names))
        return [f"{name}: {kind}" for name in names]

    def fence(self, container: str, by: str) -> dict[str, Any]:
        self.asked.append(("fence", container, by))
        return {"message": f"{container} counts as off", "guests": ["a-head"], "touched": []}

    async def power_fence(self, container: str, by: str) -> dict[str, Any]:
        self.asked.append(("power-fence", container, by))
        return {"message": f"{container} was switched off", "guests": ["a-head"], "touched": []}

    def container(self, name: str) -> dict[str, Any]:
        return {"name": name, **self.machine}

    def reinstall(self, name: str, give_up: list[str], by: str) -> str:
        self.asked.append(("reinstall", name, give_up, by))
        return f"{name} is installed anew"

    def cancel_reinstall(self, name: str, by: str) -> str:
        self.asked.append(("cancel-reinstall", name, by))
        return f"{name} stays as it is"

    def guest(self, name: str) -> dict[str, Any]:
        return {**self.found, "name": name}

    def rescue(self, name: str, by: str) -> str:
        self.asked.append(("rescue", name, by))
        self.found = {**self.found, "pending": "hold", **self.after_asking}
        return f"{name} is halted"

    def release(self, name: str, by: str) -> str:
        self.asked.append(("release", name, by))
        self.found = {**self.found, "held": None, "pending": None, **self.after_asking}
        return f"{name} is released"

    def confirm(self) -> str:
        self.asked.append(("confirm",))
        return "generation 3 is confirmed"

    def refresh(self) -> str:
        raise RuntimeError("a secret detail")


@contextmanager
def served(controls: FakeControls, socket: Path) -> Iterator[Path]:
    """The controls behind a socket, in a thread of their own: commands bring their own event loop."""
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def serve(stop: asyncio.Event) -> None:
        async with ControlServer(controls, socket, poll_s=0.01):
            started.set()
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),))
    thread.start()
    try:
        assert started.wait(10)
        yield socket
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


class Typed:
    """What came of a command: exit code, standard output, standard error."""

    def __init__(self, arguments: tuple[str, ...], home: Path) -> None:
        # No variable of the machine's own may lead a command to a real service.
        clean: dict[str, str | None] = dict.fromkeys(n for n in os.environ if n.startswith("VCRECON_"))
        result = CliRunner().invoke(app, arguments, env={**clean, "HOME": str(home), "TZ": "UTC"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
