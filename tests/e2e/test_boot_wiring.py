"""The service runs the boot services of its spec, takes each generation to them, and ends them with itself."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import aiohttp
from running import Place, Status, container, rewrite, serving, site_of, until

MAC = "52:54:00:00:00:01"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def provision(place: Place, **values: Any) -> None:
    rewrite(place.specs / "site.yaml", lambda site: site["provisioning"].update(values))


async def answer(port: int) -> str | None:
    """What a machine is told to boot; None when nobody answers."""
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}/boot.ipxe", params={"mac": MAC}) as reply,
        ):
            return await reply.text()
    except aiohttp.ClientError:
        return None


def problem(status: Status) -> str | None:
    found: str | None = status["boot"]["problem"]
    return found


async def test_machines_are_answered_while_the_spec_says_so(tmp_path: Path) -> None:
    port = free_port()
    async with site_of(tmp_path) as place:
        provision(place, mode="external", address="127.0.0.1", port=port)
        async with serving(place) as service:
            await until("a machine is answered", lambda: answer(port))
            told = await answer(port) or ""
            assert told.startswith("#!ipxe")
            status = await service.converged()
            assert (status["boot"]["mode"], problem(status)) == ("external", None)
            assert container(status, "c01")["install"] is None
            provision(place, mode="off")
            await service.until("the spec is off", lambda s: s["boot"]["mode"] == "off")
            await until("nobody answers", lambda: _silent(port))
            provision(place, mode="external")
            await until("a machine is answered again", lambda: answer(port))
        assert await answer(port) is None


async def _silent(port: int) -> bool:
    return await answer(port) is None


async def test_a_port_that_is_taken_is_told_and_harms_no_guest(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with site_of(tmp_path) as place:
            provision(place, mode="external", address="127.0.0.1", port=taken.getsockname()[1])
            async with serving(place) as service:
                status = await service.until("it is told", problem)
                assert "cannot serve boots on 127.0.0.1" in (problem(status) or "")
                await service.converged()
