"""The control socket: its file, its routes, its errors; and the metrics port."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from vcrecon.errors import Refused, VcreconError
from vcrecon.shell.control import ControlClient, ControlServer
from vcrecon.shell.metrics_port import TcpServer, metrics_app


class Controls:
    """Two objects, a history, and one method that fails."""

    def __init__(self) -> None:
        self.history = [{"id": 1, "subject": "site"}, {"id": 2, "subject": "guest/x"}]
        self.consents: list[tuple[str, list[str]]] = []
        self.looked = asyncio.Event()

    def status(self) -> dict[str, Any]:
        return {"site": "lab"}

    def events(self, subject: str | None, after_id: int | None, limit: int) -> list[dict[str, Any]]:
        self.looked.set()
        found = [e for e in self.history if subject in (None, e["subject"]) and e["id"] > (after_id or 0)]
        return found[-limit:] if after_id is None else found[:limit]

    def plans(self) -> list[dict[str, Any]]:
        return [{"subject": "guest/x", "decision": "rest"}]

    def pause(self, subject: str) -> str:
        return f"{subject} is paused"

    def resume(self, subject: str) -> str:
        raise Refused(f"{subject} is not paused")

    def consent(self, kind: str, names: list[str]) -> list[str]:
        self.consents.append((kind, names))
        return [f"{kind} {name}" for name in names]

    def fence(self, container: str, by: str) -> dict[str, Any]:
        return {"message": f"{by} says {container} is off", "guests": [], "touched": []}

    def guest(self, name: str) -> dict[str, Any]:
        return {"name": name, "held": None}

    def rescue(self, name: str, by: str) -> str:
        return f"{by} holds {name}"

    def release(self, name: str, by: str) -> str:
        raise Refused(f"{name} is not held for rescue")

    def confirm(self) -> str:
        return "confirmed"

    def refresh(self) -> str:
        raise RuntimeError("a secret detail")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
async def controls() -> Controls:
    return Controls()


@pytest.fixture
async def server(controls: Controls, path: Path) -> AsyncIterator[ControlServer]:
    async with ControlServer(controls, path, poll_s=0.01) as server:
        yield server


@pytest.fixture
async def client(server: ControlServer, path: Path) -> AsyncIterator[ControlClient]:
    async with ControlClient(path) as client:
        yield client


async def raw(path: Path, method: str, route: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession("http://x", connector=connector) as session,
        session.request(method, route, data=body) as response,
    ):
        return response.status, json.loads(await response.text())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def content_of(path: Path) -> str:
    return path.read_text()


def is_there(path: Path) -> bool:
    return path.exists()


@pytest.fixture
def precious(path: Path) -> Path:
    """Somebody's file where the socket should be."""
    path.write_text("precious")
    return path


class TestSocketFile:
    async def test_only_the_owner_may_open_it(self, server: ControlServer, path: Path) -> None:
        assert mode_of(path) == 0o600

    async def test_making_it_leaves_the_umask_as_it_was(self, server: ControlServer) -> None:
        mask = os.umask(0o022)
        os.umask(mask)
        assert mask != 0o177

    async def test_it_is_gone_when_the_service_ends(self, controls: Controls, path: Path) -> None:
        async with ControlServer(controls, path):
            assert is_there(path)
        assert not is_there(path)

    async def test_a_dead_process_socket_is_replaced(self, controls: Controls, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with ControlServer(controls, path), ControlClient(path) as client:
            assert await client.status() == {"site": "lab"}

    async def test_a_live_one_is_refused_with_its_pid(
        self, server: ControlServer, controls: Controls, path: Path
    ) -> None:
        with pytest.raises(Refused, match=rf"a service \(pid {os.getpid()}\) listens there already; stop it"):
            await ControlServer(controls, path).start()

    async def test_the_refused_one_leaves_the_live_socket_alone(
        self, server: ControlServer, controls: Controls, client: ControlClient, path: Path
    ) -> None:
        second = ControlServer(controls, path)
        with pytest.raises(Refused):
            await second.start()
        await second.close()
        assert await client.status() == {"site": "lab"}

    async def test_a_file_in_its_place_is_not_overwritten(self, controls: Controls, precious: Path) -> None:
        with pytest.raises(Refused, match="is not a socket; remove it"):
            await ControlServer(controls, precious).start()
        assert content_of(precious) == "precious"

    async def test_a_missing_directory_is_named(self, controls: Controls, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="no such file or directory; name a writable directory"):
            await ControlServer(controls, tmp_path / "none" / "control.sock").start()


class TestRoutes:
    async def test_status_and_plans_are_passed_through(self, client: ControlClient) -> None:
        assert await client.status() == {"site": "lab"}
        assert await client.plans() == [{"subject": "guest/x", "decision": "rest"}]

    async def test_events_can_be_those_of_one_object(self, client: ControlClient) -> None:
        assert [e["id"] for e in await client.events("guest/x")] == [2]

    async def test_events_without_a_start_are_the_newest(self, client: ControlClient) -> None:
        assert [e["id"] for e in await client.events(limit=1)] == [2]

    async def test_events_after_one_are_those_that_follow(self, client: ControlClient) -> None:
        assert [e["id"] for e in await client.events(after_id=1)] == [2]

    async def test_waiting_ends_when_an_event_comes(self, client: ControlClient, controls: Controls) -> None:
        waiting = asyncio.create_task(client.events(after_id=2, wait_s=30))
        await controls.looked.wait()
        controls.history.append({"id": 3, "subject": "site"})
        assert await asyncio.wait_for(waiting, 10) == [{"id": 3, "subject": "site"}]

    async def test_waiting_ends_when_the_service_does(
        self, server: ControlServer, client: ControlClient, controls: Controls
    ) -> None:
        waiting = asyncio.create_task(client.events(after_id=2, wait_s=30))
        await controls.looked.wait()
        await asyncio.wait_for(server.close(), 10)
        assert await waiting == []

    async def test_words_reach_the_service(self, client: ControlClient, controls: Controls) -> None:
        assert await client.pause("site") == "site is paused"
        assert await client.confirm() == "confirmed"
        assert (await client.fence("c01", "ann"))["message"] == "ann says c01 is off"
        assert await client.consent("prune", ["x"]) == ["prune x"]
        assert controls.consents == [("prune", ["x"])]

    async def test_a_guest_is_held_and_given_back_over_it(self, client: ControlClient) -> None:
        assert await client.guest("a-head") == {"name": "a-head", "held": None}
        assert await client.rescue("a-head", "ann") == "ann holds a-head"
        with pytest.raises(Refused, match="a-head is not held for rescue"):
            await client.release("a-head", "ann")


class TestErrors:
    async def test_a_refusal_arrives_as_it_was_said(self, client: ControlClient, path: Path) -> None:
        with pytest.raises(Refused, match=r"^site is not paused$"):
            await client.resume("site")
        status, body = await raw(path, "POST", "/v1/resume", b'{"subject": "site"}')
        assert (status, body) == (409, {"error": "site is not paused"})

    async def test_a_bug_shows_a_request_id_and_nothing_of_itself(self, client: ControlClient) -> None:
        with pytest.raises(VcreconError, match=r"its log tells more under request=[0-9a-f]{8}$") as caught:
            await client.refresh()
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("route", "body", "sentence"),
        [
            ("pause", b"{", "the body is not JSON"),
            ("pause", b"\xff", "the body is not JSON"),
            ("pause", b"[" * 100_000, "the body is not JSON"),
            ("pause", b"[]", "the body must be a JSON object"),
            ("pause", b"{}", "'subject' must be a text that is not empty"),
            ("fence", b'{"container": "c01", "by": 7}', "'by' must be a text that is not empty"),
            ("consent", b'{"kind": "burn", "names": ["x"]}', "'kind' must be 'rebuild' or 'prune'"),
            (
                "consent",
                b'{"kind": "prune", "names": []}',
                "'names' must be a list of guest names, with at least one in it",
            ),
        ],
    )
    async def test_a_bad_body_is_told_what_is_wrong(
        self, server: ControlServer, path: Path, route: str, body: bytes, sentence: str
    ) -> None:
        assert await raw(path, "POST", f"/v1/{route}", body) == (400, {"error": sentence})

    @pytest.mark.parametrize("query", ["limit=0", "limit=x", "wait=61", "after=-1", "limit=²"])
    async def test_a_bad_number_is_told_its_bounds(self, server: ControlServer, path: Path, query: str) -> None:
        status, body = await raw(path, "GET", f"/v1/events?{query}")
        assert status == 400
        assert "must be a whole number from" in body["error"]

    async def test_an_unknown_route_is_json_too(self, server: ControlServer, path: Path) -> None:
        assert await raw(path, "GET", "/v1/nothing") == (404, {"error": "GET /v1/nothing: not found"})

    async def test_no_service_says_how_to_start_one(self, path: Path) -> None:
        async with ControlClient(path) as client:
            with pytest.raises(Refused, match=r"no running service answers at .*; start one with `vcrecon run"):
                await client.status()

    async def test_a_stranger_on_the_socket_is_told_apart(self, path: Path) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            await writer.drain()
            writer.close()

        async with await asyncio.start_unix_server(answer, path), ControlClient(path) as client:
            with pytest.raises(VcreconError, match="what answers there is not a vcrecon service"):
                await client.status()

    async def test_a_service_that_hangs_is_given_up(self, path: Path) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(hang, path), ControlClient(path, answer_s=0.05) as client:
            with pytest.raises(VcreconError, match="did not answer within"):
                await client.status()


class TestMetricsPort:
    @staticmethod
    async def get(url: str) -> tuple[int, str, str]:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, response.headers["Content-Type"], await response.text()

    async def test_metrics_and_probes_answer(self) -> None:
        app = metrics_app(lambda: b"up 1\n", lambda: (True, "ok"), lambda: (False, "2 not looked at"))
        server = TcpServer(app, "127.0.0.1", 0)
        await server.start()
        try:
            kind = "text/plain; version=0.0.4; charset=utf-8"
            assert await self.get(f"{server.url}/metrics") == (200, kind, "up 1\n")
            assert (await self.get(f"{server.url}/healthz"))[::2] == (200, "ok\n")
            assert (await self.get(f"{server.url}/readyz"))[::2] == (503, "2 not looked at\n")
        finally:
            await server.close()

    async def test_a_port_in_use_is_refused_with_a_way_out(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            app = metrics_app(lambda: b"", lambda: (True, ""), lambda: (True, ""))
            with pytest.raises(Refused) as caught:
                await TcpServer(app, "127.0.0.1", port).start()
        assert str(caught.value) == (
            f"cannot listen on 127.0.0.1:{port} for the page and metrics: address already in use; "
            "choose another address with --listen HOST:PORT, or switch them off with --listen none"
        )
