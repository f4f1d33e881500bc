"""ping and arping (iputils) on a simulated host: who answers is decided by `sim.domains`."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import Failure, given, last, options, tool

TOOLS: dict[str, Tool] = {}


@tool(TOOLS, "ping", "arping", status=2)
async def ping(process: Process, args: Sequence[str]) -> int:
    name = process.argv[0].rsplit("/", 1)[-1]
    found, rest = options(name, args, "c:W:w:qnI:i:fs:4M:A", status=2)
    if not rest:
        raise Failure(f"{name}: usage error: Destination address required", 1 if name == "ping" else 2)
    address = rest[0]
    machine = process.machine
    count = int(last(found, "-c") or 1)
    device = last(found, "-I")
    if device is not None and device not in machine.network.links and not machine.network.owns(device):
        message = (
            f"ping: SO_BINDTODEVICE {device}: No such device"
            if name == "ping"
            else f"arping: Device {device} not available."
        )
        return await process.fail(message, 2)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return await process.fail(f"{name}: {address}: Name or service not known", 2)
    await machine.work("ping")
    answered = machine.network.owns(address) or machine.domains.answers(address)
    if not answered:
        await machine.timing.sleep(float(last(found, "-W", "-w") or 1))
        answered = machine.domains.answers(address)
    got = count if answered else 0
    if name == "arping":
        await process.say(
            f"ARPING {address} from 0.0.0.0 {device or machine.trunk}\n"
            f"Sent {count} probes ({count} broadcast(s))\nReceived {got} response(s)\n"
        )
        return 0 if got else 1
    lines = [f"PING {address} ({address}) 56(84) bytes of data."]
    if not given(found, "-q"):
        lines += [f"64 bytes from {address}: icmp_seq={n + 1} ttl=64 time=0.100 ms" for n in range(got)]
    loss = 0 if got else 100
    lines += [
        "",
        f"--- {address} ping statistics ---",
        f"{count} packets transmitted, {got} received, {loss}% packet loss, time {(count - 1) * 1000}ms",
    ]
    lines.append("rtt min/avg/max/mdev = 0.100/0.100/0.100/0.000 ms" if got else "")
    await process.say("\n".join(lines) + "\n")
    return 0 if got else 1
