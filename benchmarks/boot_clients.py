"""The machines of the boot benchmark: all of them in this process, each on an interface with a MAC of its own.

    ip netns exec … python -m benchmarks.boot_clients install|tftp < settings

Started by `boot` in the machines' namespace, with settings as JSON on standard input; prints one JSON object at the
end. `install`: every machine boots by PXE, does what the scripts that it is given say, fetches what its installer would
and reports as that does; only the disks are missing. `tftp`: machines fetch one file by TFTP until the time is over.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shlex
import socket
import statistics
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from benchmarks.pxe_client import FIRMWARE, IPXE, PLAIN, Failed, Lease, Tftp, dhcp, http, set_address

REPORT_EVERY_S = 1.0
ASK_AGAIN_S = 3.0
SAMPLE_S = 0.25
CLOSED_PORT = 9
BEFORE = ("disks", "partition", "raid", "lvm", "filesystems", "download")
AFTER = ("unpack", "boot-loader", "context", "done")


@dataclass
class Tally:
    """What all machines together did. Times are `time.monotonic`, the same clock for every process.

    `asked_s`: when each first asked the master what to boot; `began_s`: when it was given its installer.
    """

    tftp_bytes: int = 0
    http_bytes: int = 0
    waits: int = 0
    busy: int = 0
    busy_most: int = 0
    retries: int = 0
    asked_s: list[float] = field(default_factory=list)
    began_s: list[float] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    samples: list[tuple[float, int]] = field(default_factory=list)

    def count(self, size: int) -> None:
        self.http_bytes += size


class Machine:
    """One machine, from power-on to the end of its install."""

    def __init__(self, link: str, mac: str, tally: Tally) -> None:
        self._link, self._mac, self._tally = link, mac, tally

    async def run(self) -> None:
        """A failure ends this machine only, and is told."""
        began_s = time.monotonic()
        try:
            script = await self._firmware()
            self._tally.asked_s.append(time.monotonic())
            kernel = await self._wait_in_line(script)
            self._tally.began_s.append(time.monotonic())
            self._tally.busy += 1
            self._tally.busy_most = max(self._tally.busy, self._tally.busy_most)
            try:
                await self._install(kernel)
            finally:
                self._tally.busy -= 1
        except (Failed, OSError, ValueError, KeyError) as error:
            self._tally.failures.append(f"{self._mac}: {error!r}")
        else:
            self._tally.ends_s.append(time.monotonic())
            self._tally.took_s.append(time.monotonic() - began_s)

    async def _firmware(self) -> str:
        """The PXE ROM loads iPXE, and iPXE its first script."""
        lease = await dhcp(self._link, self._mac, FIRMWARE)
        set_address(self._link, lease)
        await self._by_tftp(lease)
        lease = await dhcp(self._link, self._mac, IPXE)
        return (await self._by_tftp(lease)).decode()

    async def _by_tftp(self, lease: Lease) -> bytes:
        transfer = Tftp(self._link, lease.server, lease.boot_file)
        data = await transfer.run()
        self._tally.tftp_bytes += len(data)
        self._tally.retries += transfer.retries
        return data

    async def _wait_in_line(self, script: str) -> str:
        """Do as the scripts say, until one loads a kernel: that script."""
        while True:
            if not script.startswith("#!ipxe"):
                raise Failed(f"no script: {script[:80]!r}")
            if re.search(r"^kernel ", script, re.M):
                return script
            if pause := re.search(r"^:wait$.*?^sleep (\d+)", script, re.M | re.S):
                self._tally.waits += 1
                await asyncio.sleep(int(pause[1]))
            chain = re.search(r"^chain --replace (\S+)", script, re.M)
            if chain is None:
                raise Failed(f"sent to its disk: {script.splitlines()[1]}")
            script = await self._script(chain[1])

    async def _script(self, url: str) -> str:
        values = {"netX/mac": quote(self._mac, safe=""), "uuid": "", "serial:uristring": "", "platform": "pcbios"}
        asked = re.sub(r"\$\{([^}]*)\}", lambda found: values[found[1]], url)
        while True:
            answer = await http(self._link, "GET", asked)
            self._tally.count(answer.size_bytes)
            if answer.status == 200:
                return answer.body.decode()
            await asyncio.sleep(ASK_AGAIN_S)

    async def _install(self, script: str) -> None:
        line = shlex.split(re.search(r"^kernel (.*?) \|\|", script, re.M)[1])  # type: ignore[index]
        words = dict(word.split("=", 1) for word in line[1:] if "=" in word)
        initrd = re.search(r"^initrd (\S+)", script, re.M)[1]  # type: ignore[index]
        for url in (line[0], initrd):
            await self._get(url)
        await dhcp(self._link, self._mac, PLAIN)
        await self._installer(words["vcrecon.master"], words["vcrecon.token"])

    async def _get(self, url: str) -> int:
        answer = await http(self._link, "GET", url, counted=self._tally.count)
        if answer.status != 200:
            raise Failed(f"{url}: {answer.status}")
        return answer.size_bytes

    async def _installer(self, master: str, token: str) -> None:
        job = await self._call(master, token, "claim", b"")
        with tarfile.open(fileobj=io.BytesIO(job)) as tar:
            env = tar.extractfile("job.env")
            if env is None or tar.getnames()[-1] != ".complete":
                raise Failed("the job was cut off")
            values = dict(word.split("=", 1) for word in shlex.split(env.read().decode()))
        await self._call(master, token, "log", b"disks: /dev/vda\n" * 40)
        for step in BEFORE:
            await self._report(master, token, step, 0)
        await self._download(master, token, values["ROOT_URL"])
        for step in AFTER:
            await self._report(master, token, step, 100)
        await self._call(master, token, "log", b"done\n" * 40)
        await self._call(master, token, "ended", urlencode({"error": "", "message": ""}).encode())

    async def _download(self, master: str, token: str, url: str) -> None:
        """The image in one stream, with a report each second, as the installer has it."""
        download = asyncio.ensure_future(self._get(url))
        while not (await asyncio.wait([download], timeout=REPORT_EVERY_S))[0]:
            await self._report(master, token, "download", 50)
        await download

    async def _report(self, master: str, token: str, step: str, percent: int) -> None:
        await self._call(master, token, "report", urlencode({"step": step, "percent": percent}).encode())

    async def _call(self, master: str, token: str, what: str, body: bytes) -> bytes:
        while True:
            answer = await http(self._link, "POST", f"{master}/install/{what}", token=token, body=body)
            self._tally.count(answer.size_bytes)
            if answer.status in (200, 204):
                return answer.body
            if answer.status != 503:
                raise Failed(f"{what}: {answer.status} {answer.body.decode().strip()}")
            await asyncio.sleep(ASK_AGAIN_S)


async def install(machines: Sequence[tuple[str, str]], deadline_s: float) -> dict[str, Any]:
    """Switch all machines on at once, and wait for the last of them."""
    tally, on_s = Tally(), time.monotonic()
    work = asyncio.gather(*(Machine(link, mac, tally).run() for link, mac in machines))
    try:
        async with asyncio.timeout(deadline_s):
            while not work.done():
                tally.samples.append((time.monotonic(), tally.http_bytes + tally.tftp_bytes))
                await asyncio.wait([work], timeout=SAMPLE_S)
    except TimeoutError:
        tally.failures.append(f"{len(machines) - len(tally.ends_s)} were not done after {deadline_s:.0f} s")
    return {"on_s": on_s, **vars(tally)}


async def tftp(links: Sequence[str], server: str, name: str, seconds: float) -> dict[str, Any]:
    """All machines fetch the file by TFTP, and begin anew when they have it, until the time is over."""
    transfers: list[Tftp] = []
    idle_s = round_trip_s(links[0], server)

    async def one(link: str) -> None:
        while True:
            transfers.append(Tftp(link, server, name, keep=False))
            await transfers[-1].run()

    tasks = [asyncio.create_task(one(link)) for link in links]
    await asyncio.wait(tasks, timeout=1.0)  # the start is not measured
    before, began_s = sum(t.received_bytes for t in transfers), time.monotonic()
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    took_s = time.monotonic() - began_s
    received = sum(t.received_bytes for t in transfers) - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    failures = [repr(task.exception()) for task in done]
    retries = sum(t.retries for t in transfers)
    return {
        "bytes": received,
        "seconds": took_s,
        "round_trip_s": idle_s,
        "failures": failures,
        "retries": retries,
    }


def round_trip_s(link: str, server: str) -> float:
    """The median time until a closed port refuses: one round trip over the idle cable."""
    found = []
    for _ in range(20):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            began_s = time.perf_counter()
            connection.connect_ex((server, CLOSED_PORT))
            found.append(time.perf_counter() - began_s)
    return statistics.median(found)


def main() -> None:
    settings = json.load(sys.stdin)
    work = {"install": install, "tftp": tftp}[sys.argv[1]]
    print(json.dumps(asyncio.run(work(**settings))), flush=True)  # type: ignore[operator]


if __name__ == "__main__":
    main()
