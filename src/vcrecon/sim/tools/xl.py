"""xl of Xen 4.17 and xenstore-watch on a simulated Xen host."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import re
import uuid
from collections.abc import Sequence

from vcrecon.sim import serial
from vcrecon.sim.domains import Domain, DomainError, DomainEvent, Nic
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import Failure, full, given, options, reason, tool

TOOLS: dict[str, Tool] = {}
CREATE_FAILED = 3
DOM0_UUID = "00000000-0000-0000-0000-000000000000"


def parse_config(text: str) -> dict[str, object]:
    """An xl configuration file: `name = value` with strings, numbers and lists of strings. Raises Failure."""
    found: dict[str, object] = {}
    joined = re.sub(r"(?m)^\s*#.*$", "", text)
    for match in re.finditer(r"(?m)^\s*(\w+)\s*=\s*(\[[^\]]*\]|\"[^\"\n]*\"|'[^'\n]*'|[^\s#]+)", joined):
        try:
            found[match[1]] = ast.literal_eval(match[2])
        except (ValueError, SyntaxError):
            raise Failure(f"config parsing error near `{match[2]}'\nFailed to parse config: Invalid argument") from None
    return found


def domain_from(config: dict[str, object]) -> Domain:
    """The domain of a configuration. Raises Failure in xl's words."""
    name = str(config.get("name", ""))
    if not name:
        raise Failure("Domain name must be specified.")
    disks, nics = [], []
    entries = config.get("disk", [])
    for entry in entries if isinstance(entries, list) else []:
        first = str(entry).split(",")[0]
        target = re.search(r"target=([^,]+)", str(entry))
        disks.append(target[1] if target else first.split(":", 1)[-1])
    entries = config.get("vif", [])
    for entry in entries if isinstance(entries, list) else []:
        pairs = dict(part.strip().split("=", 1) for part in str(entry).split(",") if "=" in part)
        nics.append(Nic(pairs.get("mac", "").lower(), pairs.get("bridge", "xenbr0"), pairs.get("vifname", "")))
    generated = str(uuid.UUID(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()))
    return Domain(
        name=name,
        uuid=str(config.get("uuid", generated)),
        memory_bytes=int(str(config.get("memory", 32))) << 20,
        vcpus=int(str(config.get("vcpus", 1))),
        disks=tuple(disks),
        nics=tuple(nics),
        config=config,
        kernel=str(config.get("kernel", "")),
        initrd=str(config.get("ramdisk", "")),
        cmdline=str(config.get("cmdline", config.get("extra", ""))),
        on_poweroff=str(config.get("on_poweroff", "destroy")),
        persistent=False,
    )


def _find(process: Process, key: str) -> Domain:
    domain = process.machine.domains.find(key)
    if domain is None or not domain.live:
        raise Failure(f"{key} is an invalid domain identifier (rc=-6)")
    return domain


async def xl_create(process: Process, args: Sequence[str]) -> int:
    found, rest = options("xl create", args, "qpf:cef", ["quiet", "defconfig="])
    path = found.get("-f", found.get("--defconfig", rest[:1]))
    if not path:
        raise Failure("xl create requires at least 1 argument.")
    machine = process.machine
    try:
        data = await process.stdin.read() if path[0] == "/dev/stdin" else machine.files.read(full(process, path[0]))
    except OSError as error:
        raise Failure(f"Failed to read config file: {path[0]}: {reason(error)}") from None
    domain = domain_from(parse_config(data.decode("utf-8", "replace")))
    if not given(found, "-q", "--quiet"):
        await process.fail(f"Parsing config from {path[0]}", 0)
        if "tsc_mode" in domain.config:
            await process.fail(f'got a tsc mode string: "{domain.config["tsc_mode"]}"', 0)
    running = machine.domains.by_name.get(domain.name)
    if running is not None and running.live:
        raise Failure(f'domain with name "{domain.name}" already exists.')
    if any(other.uuid == domain.uuid for other in machine.domains.live()):
        raise Failure("libxl: error: libxl_create.c:658:libxl__domain_make: domain creation fail: File exists")
    await machine.work("start")
    try:
        machine.domains.start(domain, tap_prefix="vif")
    except DomainError as error:
        raise Failure(_xen_words(domain, error, machine.domains.skip_id()), CREATE_FAILED) from None
    return 0


def _xen_words(domain: Domain, error: DomainError, number: int) -> str:
    """What xl 4.17 says of a start that failed: the reason first, and then of the domain that it gives up."""
    text = str(error)
    where = f"Domain {number}"
    if "Cannot allocate memory" in text:
        reasons = [
            f"libxl_dom.c:1470:libxl__domain_set_paging_mempool_size: {where}:Failed to set paging mempool size to "
            f"{domain.memory_bytes >> 8}kB: Cannot allocate memory",
            f"libxl_create.c:1640:domcreate_rebuild_done: {where}:cannot (re-)build domain: -3",
        ]
    elif "unable to stat" in text:
        reasons = [
            "libxl_dom.c:909:libxl__domain_firmware: xc_dom_kernel_file failed: No such file or directory",
            "libxl_dom.c:1075:libxl__build_hvm: initializing domain firmware failed",
            f"libxl_create.c:1640:domcreate_rebuild_done: {where}:cannot (re-)build domain: -1",
        ]
    elif "storage file" in text or "busy" in text or "lock" in text:
        words = f"Device {domain.disks[0]} is mounted in the privileged domain,\nand so cannot be mounted by a guest."
        reasons = [
            *_script_failed("block add", words),
            f"libxl_create.c:1672:domcreate_launch_dm: {where}:unable to add disk devices",
        ]
    else:
        bridge = next((nic.bridge for nic in domain.nics), "xenbr0")
        reasons = [
            *_script_failed("vif-bridge online", f"Could not find bridge device {bridge}"),
            f"libxl_create.c:1921:domcreate_attach_devices: {where}:unable to add vif devices",
        ]
    reasons += [
        f"libxl_domain.c:1183:libxl__destroy_domid: {where}:Non-existant domain",
        f"libxl_domain.c:1137:domain_destroy_callback: {where}:Unable to destroy guest",
        f"libxl_domain.c:1064:domain_destroy_cb: {where}:Destruction of domain failed",
    ]
    return "\n".join(f"libxl: error: {line}" for line in reasons)


def _script_failed(script: str, words: str) -> list[str]:
    return [
        f"libxl_exec.c:117:libxl_report_child_exitstatus: /etc/xen/scripts/{script} [1000] exited with error status 1",
        f"libxl_device.c:1337:device_hotplug_child_death_cb: script: {words}",
    ]


def _flags(domain: Domain) -> str:
    return {"in shutdown": "---s--", "paused": "--p---"}.get(domain.state, "-b----")


async def xl_list(process: Process, args: Sequence[str]) -> int:
    found, rest = options("xl list", args, "lvZn", ["long", "verbose"])
    machine = process.machine
    domains = [_find(process, rest[0])] if rest and rest[0] not in ("0", "Domain-0") else machine.domains.live()
    zero = not rest or rest[0] in ("0", "Domain-0")
    domains = [] if rest and zero else domains
    if given(found, "-l", "--long"):
        rows: list[dict[str, object]] = []
        if zero:
            info = {"type": "pv", "name": "Domain-0", "uuid": DOM0_UUID}
            rows.append(
                {
                    "domid": 0,
                    "config": {"c_info": info, "b_info": {"target_memkb": machine.reserved_bytes >> 10}},
                }
            )
        rows += [{"domid": domain.id, "config": _long(domain)} for domain in domains]
        await process.say(json.dumps(rows, indent=4) + "\n")
        return 0
    verbose = given(found, "-v", "--verbose")
    head = f"{'Name':<40}{'ID':>5}{'Mem':>6}{'VCPUs':>6}\t{'State':>5}\t{'Time(s)':>5}"
    await process.say(
        head + ("   UUID                            Reason-Code\tSecurity Label" if verbose else "") + "\n"
    )
    uptime = machine.timing.now() - machine.started_at
    lines = [("Domain-0", 0, machine.reserved_bytes, machine.cores, "r-----", uptime, DOM0_UUID, "-")] if zero else []
    for d in domains:
        seconds = machine.timing.now() - d.started_at
        code = "0" if d.state == "in shutdown" else "-"
        lines.append((d.name, d.id or 0, d.memory_bytes, d.vcpus, _flags(d), seconds, d.uuid, code))
    for name, number, memory, vcpus, flags, seconds, identity, code in lines:
        text = f"{name:<40} {number:>4} {memory >> 20:>5} {vcpus:>5}     {flags}  {seconds:>8.1f}"
        await process.say(text + (f" {identity}        {code}                -" if verbose else "") + "\n")
    return 0


def _long(domain: Domain) -> dict[str, object]:
    """The configuration in the shape of `xl list -l`."""
    kind = str(domain.config.get("type", "pvh"))
    return {
        "c_info": {"type": kind, "name": domain.name, "uuid": domain.uuid, "run_hotplug_scripts": "True"},
        "b_info": {
            "max_vcpus": domain.vcpus,
            "max_memkb": domain.memory_bytes >> 10,
            "target_memkb": domain.memory_bytes >> 10,
            "kernel": domain.kernel,
            "ramdisk": domain.initrd,
            "cmdline": domain.cmdline,
        },
        "disks": [{"pdev_path": path, "vdev": "xvda", "format": "raw", "readwrite": 1} for path in domain.disks],
        "nics": [{"devid": i, "mac": nic.mac, "bridge": nic.bridge} for i, nic in enumerate(domain.nics)],
        "on_poweroff": domain.on_poweroff,
    }


async def xl_shutdown(process: Process, args: Sequence[str]) -> int:
    found, rest = options("xl shutdown", args, "waF", ["all"])
    domains = (
        process.machine.domains.live() if given(found, "-a", "--all") else [_find(process, key) for key in rest[:1]]
    )
    if not domains:
        raise Failure("xl shutdown requires at least 1 argument.")
    tasks = []
    for domain in domains:
        await process.say(f"Shutting down domain {domain.id}\n")
        tasks.append(shut_down(process, domain))
    if given(found, "-w"):
        await process.say(f"Waiting for {len(tasks)} domains\n")
        for task in tasks:
            await task
    return 0


def shut_down(process: Process, domain: Domain) -> asyncio.Task[None]:
    """The guest goes down, shows as shut down for a moment, and is then cleaned up by the toolstack."""
    machine = process.machine
    began = domain.id

    async def finish() -> None:
        await machine.timing.spend("shutdown")
        if domain.id != began or not domain.live:
            return
        domain.state = "in shutdown"
        await machine.timing.spend("destroy")
        if domain.id == began and domain.live:
            machine.domains.powered_off(domain)

    return machine.background(finish())


async def xl_destroy(process: Process, args: Sequence[str]) -> int:
    _, rest = options("xl destroy", args, "f")
    if not rest:
        raise Failure("xl destroy requires at least 1 argument.")
    domain = _find(process, rest[0])
    await process.machine.work("destroy")
    if domain.live:
        process.machine.domains.destroy(domain)
    return 0


async def xl_pause(process: Process, args: Sequence[str]) -> int:
    if not args:
        raise Failure("xl pause requires at least 1 argument.")
    _find(process, args[0]).state = "paused"
    return 0


async def xl_unpause(process: Process, args: Sequence[str]) -> int:
    if not args:
        raise Failure("xl unpause requires at least 1 argument.")
    _find(process, args[0]).state = "running"
    return 0


async def xl_reboot(process: Process, args: Sequence[str]) -> int:
    _, rest = options("xl reboot", args, "F")
    for key in rest:
        domain = _find(process, key)
        await process.say(f"Rebooting domain {domain.id}\n")
        process.machine.domains.restart_guest(domain)
    return 0


async def xl_uptime(process: Process, args: Sequence[str]) -> int:
    _, rest = options("xl uptime", args, "s")
    await process.say(f"{'Name':<33}{'ID':>4} Uptime\n")
    now = process.machine.timing.now()
    rows = [("Domain-0", 0, process.machine.started_at)] if not rest else []
    rows += [(d.name, d.id or 0, d.started_at) for d in process.machine.domains.live() if not rest or d.name in rest]
    for name, number, since in rows:
        seconds = int(now - since)
        clock = f"{seconds // 3600 % 24:2d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        days = f"{seconds // 86400} days, " if seconds >= 86400 else ""
        await process.say(f"{name:<33}{number:>4} {days}{clock}\n")
    return 0


async def xl_info(process: Process, args: Sequence[str]) -> int:
    machine = process.machine
    rows = {
        "host": machine.name,
        "release": "6.1.0-37-amd64",
        "machine": "x86_64",
        "nr_cpus": machine.cores,
        "total_memory": machine.memory_bytes >> 20,
        "free_memory": machine.domains.free_memory_bytes() >> 20,
        "xen_major": 4,
        "xen_minor": 17,
        "xen_version": "4.17.5",
        "xen_caps": "xen-3.0-x86_64 hvm-3.0-x86_64",
    }
    await process.say("".join(f"{name:<23}: {value}\n" for name, value in rows.items()))
    return 0


async def xl_domid(process: Process, args: Sequence[str]) -> int:
    if not args:
        raise Failure("xl domid requires at least 1 argument.")
    domain = process.machine.domains.by_name.get(args[0])
    if domain is None or not domain.live:
        raise Failure(f"Can't get domid of domain name '{args[0]}', maybe this domain does not exist.")
    await process.say(f"{domain.id}\n")
    return 0


async def xl_console(process: Process, args: Sequence[str]) -> int:
    _, rest = options("xl console", args, "t:n:e:")
    if not rest:
        raise Failure("xl console requires at least 1 argument.")
    await serial.join(process, _find(process, rest[0]), "hvc0")
    return 0


COMMANDS = {
    "console": xl_console,
    "create": xl_create,
    "list": xl_list,
    "shutdown": xl_shutdown,
    "destroy": xl_destroy,
    "pause": xl_pause,
    "unpause": xl_unpause,
    "reboot": xl_reboot,
    "uptime": xl_uptime,
    "info": xl_info,
    "domid": xl_domid,
}


@tool(TOOLS, "xl")
async def xl(process: Process, args: Sequence[str]) -> int:
    if process.machine.hypervisor != "xen":
        return await process.fail("sh: 1: xl: not found", 127)
    rest = list(args)
    while rest and rest[0] in ("-v", "-f", "-N", "-T", "-t"):
        rest.pop(0)
    command = COMMANDS.get(rest[0]) if rest else None
    if command is None:
        return await process.fail("command not implemented" if rest else "Usage xl [-vfNtT] <subcommand> [args]")
    await process.machine.work("virsh")
    return await command(process, rest[1:])


@tool(TOOLS, "xenstore-watch")
async def xenstore_watch(process: Process, args: Sequence[str]) -> int:
    """Prints each watched path once at the start, as xenstored fires every new watch, then at each change."""
    if process.machine.hypervisor != "xen":
        return await process.fail("sh: 1: xenstore-watch: not found", 127)
    found, rest = options("xenstore-watch", args, "n:s")
    queue: asyncio.Queue[str] = asyncio.Queue()
    limit = int(found["-n"][-1]) if "-n" in found else -1

    def on_event(event: DomainEvent) -> None:
        if event.detail == "Started Booted":
            queue.put_nowait("@introduceDomain")
        elif event.detail.startswith("Stopped"):
            queue.put_nowait("@releaseDomain")

    stop = process.machine.on_domain_event(on_event)
    try:
        for path in rest:
            queue.put_nowait(path)
        while limit != 0:
            path = await queue.get()
            if path in rest:
                await process.say(f"{path}\n")
                limit -= 1
    finally:
        stop()
    return 0
