"""System tools of a simulated host: date, id, uname, sha256sum, chpasswd, sysctl, systemctl, reboot."""

# ruff: noqa: RUF001 - the quotes are those of coreutils' messages
from __future__ import annotations

import base64 as base64_module
import hashlib
import posixpath
import re
import time
from collections.abc import Sequence

from vcrecon.sim.process import Process, Tool
from vcrecon.sim.terminal import terminal_of
from vcrecon.sim.tools._common import (
    Failure,
    chunks,
    full,
    given,
    last,
    lines_of,
    need_operand,
    options,
    read_input,
    reason,
    tool,
)

TOOLS: dict[str, Tool] = {}
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MODULES = frozenset(
    [
        "8021q",
        "bridge",
        "br_netfilter",
        "dm_thin_pool",
        "dm_mod",
        "xfs",
        "loop",
        "kvm",
        "kvm_amd",
        "kvm_intel",
        "nf_tables",
        "xen_netback",
        "xen_blkback",
        "xen_gntdev",
        "tun",
        "vhost_net",
        "veth",
        "dummy",
    ]
)


@tool(TOOLS, "sleep")
async def sleep(process: Process, args: Sequence[str]) -> int:
    need_operand("sleep", args)
    total = 0.0
    for text in args:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
        if match is None:
            raise Failure(f"sleep: invalid time interval ‘{text}’\nTry 'sleep --help' for more information.")
        total += float(match[1]) * UNITS[match[2] or "s"]
    await process.machine.timing.sleep(total)
    return 0


@tool(TOOLS, "date")
async def date(process: Process, args: Sequence[str]) -> int:
    found, rest = options("date", args, "ud:Is", ["utc", "date=", "iso-8601="])
    seconds = process.machine.timing.wall()
    when = last(found, "-d", "--date")
    if when is not None:
        match = re.fullmatch(r"@(\d+)", when)
        if match is None:
            raise Failure(f"date: invalid date ‘{when}’")
        seconds = float(match[1])
    form = rest[0] if rest else "+%a %b %e %H:%M:%S UTC %Y"
    if not form.startswith("+"):
        raise Failure(f"date: invalid date ‘{form}’")
    form = form[1:].replace("%s", str(int(seconds))).replace("%N", f"{int(seconds % 1 * 1e9):09d}")
    await process.say(time.strftime(form, time.gmtime(seconds)) + "\n")
    return 0


@tool(TOOLS, "id")
async def id_(process: Process, args: Sequence[str]) -> int:
    found, _ = options("id", args, "ugn")
    if given(found, "-u", "-g"):
        await process.say("root\n" if given(found, "-n") else "0\n")
    else:
        await process.say("uid=0(root) gid=0(root) groups=0(root)\n")
    return 0


@tool(TOOLS, "whoami")
async def whoami(process: Process, args: Sequence[str]) -> int:
    await process.say("root\n")
    return 0


@tool(TOOLS, "hostname")
async def hostname(process: Process, args: Sequence[str]) -> int:
    await process.say(process.machine.name + "\n")
    return 0


@tool(TOOLS, "tty")
async def tty(process: Process, args: Sequence[str]) -> int:
    terminal = terminal_of(process.stdin)
    await process.say(f"{terminal.name if terminal else 'not a tty'}\n")
    return 0 if terminal else 1


@tool(TOOLS, "stty")
async def stty(process: Process, args: Sequence[str]) -> int:
    terminal = terminal_of(process.stdin)
    if terminal is None:
        return await process.fail("stty: 'standard input': Inappropriate ioctl for device")
    columns, lines = terminal.size
    if list(args) == ["size"]:
        await process.say(f"{lines} {columns}\n")
        return 0
    if args:
        return await process.fail(f"stty: invalid argument ‘{args[0]}’\nTry 'stty --help' for more information.")
    await process.say("speed 38400 baud; line = 0;\n")
    return 0


@tool(TOOLS, "uname")
async def uname(process: Process, args: Sequence[str]) -> int:
    found, _ = options("uname", args, "snrvma")
    values = {"-s": "Linux", "-n": process.machine.name, "-r": "6.1.0-37-amd64", "-m": "x86_64"}
    wanted = list(values) if "-a" in found else [key for key in values if key in found] or ["-s"]
    await process.say(" ".join(values[key] for key in wanted) + "\n")
    return 0


@tool(TOOLS, "nproc")
async def nproc(process: Process, args: Sequence[str]) -> int:
    await process.say(f"{process.machine.cores}\n")
    return 0


@tool(TOOLS, "printenv")
async def printenv(process: Process, args: Sequence[str]) -> int:
    if not args:
        await process.say("".join(f"{key}={value}\n" for key, value in process.env.items()))
        return 0
    for name in args:
        if name in process.env:
            await process.say(process.env[name] + "\n")
    return 0 if all(name in process.env for name in args) else 1


async def _digest(process: Process, path: str) -> str:
    digest = hashlib.sha256()
    async for chunk in chunks(process, path):
        digest.update(chunk)
    return digest.hexdigest()


@tool(TOOLS, "sha256sum")
async def sha256sum(process: Process, args: Sequence[str]) -> int:
    found, rest = options("sha256sum", args, "cbt", ["check", "quiet", "status", "strict", "warn", "ignore-missing"])
    if given(found, "-c", "--check"):
        return await _check_sums(process, found, rest)
    status = 0
    for path in rest or ["-"]:
        if path != "-" and process.machine.files.is_dir(full(process, path)):
            status = await process.fail(f"sha256sum: {path}: Is a directory")
            continue
        try:
            await process.say(f"{await _digest(process, path)}  {path}\n")
        except OSError as error:
            status = await process.fail(f"sha256sum: {path}: {reason(error)}")
    return status


async def _check_sums(process: Process, found: dict[str, list[str]], rest: Sequence[str]) -> int:
    silent = given(found, "--status")
    quiet = given(found, "--quiet") or silent
    for listing in rest or ["-"]:
        shown = "'standard input'" if listing == "-" else listing
        try:
            text = (await read_input(process, listing)).decode("utf-8", "replace")
        except OSError as error:
            raise Failure(f"sha256sum: {listing}: {reason(error)}") from None
        rows = [m for line in text.splitlines() if (m := re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line))]
        if not rows:
            raise Failure(f"sha256sum: {shown}: no properly formatted checksum lines found")
        bad = unread = 0
        for row in rows:
            try:
                actual = await _digest(process, row[2])
            except OSError as error:
                unread += 1
                await process.fail(f"sha256sum: {row[2]}: {reason(error)}")
                if not silent:
                    await process.say(f"{row[2]}: FAILED open or read\n")
                continue
            matches = actual == row[1].lower()
            bad += not matches
            if (not matches and not silent) or (matches and not quiet):
                await process.say(f"{row[2]}: {'OK' if matches else 'FAILED'}\n")
        if not silent:
            for count, what in (
                (unread, "listed file could not be read"),
                (bad, "computed checksum did NOT match"),
            ):
                if count:
                    plural = what if count == 1 else what.replace("file", "files").replace("checksum", "checksums")
                    await process.fail(f"sha256sum: WARNING: {count} {plural}")
        if bad or unread:
            return 1
    return 0


@tool(TOOLS, "base64")
async def base64(process: Process, args: Sequence[str]) -> int:
    found, rest = options("base64", args, "dw:i", ["decode", "wrap="])
    data = await read_input(process, rest[0] if rest else "-")
    if given(found, "-d", "--decode"):
        try:
            await process.stdout.write(base64_module.b64decode(b"".join(data.split()), validate=True))
        except ValueError:
            raise Failure("base64: invalid input") from None
        return 0
    text = base64_module.b64encode(data).decode()
    width = int(last(found, "-w", "--wrap") or 76)
    rows = [text[i : i + width] for i in range(0, len(text), width)] if width else [text]
    await process.say("\n".join(rows) + ("\n" if width and text else ""))
    return 0


@tool(TOOLS, "chpasswd")
async def chpasswd(process: Process, args: Sequence[str]) -> int:
    found, _ = options("chpasswd", args, "eR:c:", ["encrypted", "root="], status=2)
    root = full(process, last(found, "-R", "--root") or "/")
    files = process.machine.files
    data = await process.stdin.read()
    if not files.is_dir(root):
        raise Failure(f"chpasswd: cannot access chroot directory {root}: No such file or directory", 1)
    shadow = posixpath.join(root, "etc/shadow")
    if not given(found, "-e", "--encrypted"):
        raise Failure("chpasswd: only encrypted passwords (-e) are supported here", 1)
    passwd = posixpath.join(root, "etc/passwd")
    if not files.is_dir(posixpath.dirname(passwd)):
        raise Failure("chpasswd: cannot lock /etc/passwd; try again later.", 1)
    known = files.read(passwd) if files.exists(passwd) else b""
    users = {line.split(b":")[0] for line in known.splitlines()}
    if not files.exists(shadow):
        shadow = passwd  # a system without shadow passwords keeps the hash there
    if not files.exists(shadow):
        shadow = ""
    rows = [] if not shadow else [line.rstrip(b"\n").split(b":") for line in lines_of(files.read(shadow))]
    for number, line in enumerate(lines_of(data), 1):
        user, colon, value = line.rstrip(b"\n").partition(b":")
        if not colon:
            raise Failure(f"chpasswd: line {number}: missing new password\nchpasswd: error detected, changes ignored")
        row = next((row for row in rows if row[0] == user), None)
        if row is None or user not in users:
            raise Failure(
                f"chpasswd: line {number}: user '{user.decode('utf-8', 'replace')}' does not exist\n"
                "chpasswd: error detected, changes ignored"
            )
        row[1] = value
        if len(row) > 2:
            row[2] = str(int(process.machine.timing.wall() // 86400)).encode()
    files.write(shadow, b"".join(b":".join(row) + b"\n" for row in rows))
    return 0


@tool(TOOLS, "sysctl", status=255)
async def sysctl(process: Process, args: Sequence[str]) -> int:
    found, rest = options("sysctl", args, "wnqep:a", ["write", "values", "quiet", "system"])
    table = process.machine.sysctl
    quiet, bare = given(found, "-q", "--quiet"), given(found, "-n", "--values")
    if "-p" in found:
        text = await read_input(process, last(found, "-p") or "/etc/sysctl.conf")
        rest = [
            re.sub(r"\s*=\s*", "=", line)
            for line in text.decode().splitlines()
            if line.strip() and line.strip()[0] not in "#;"
        ]
    status = 0
    for item in rest:
        name, equals, value = item.partition("=")
        name = name.strip().replace("/", ".")
        bridge = name.startswith("net.bridge.") and "br_netfilter" not in process.machine.modules
        unknown = not re.match(r"(net|kernel|vm|fs|dev)\.", name) or (not equals and name not in table)
        if bridge or unknown:
            if not given(found, "-e"):
                path = "/proc/sys/" + name.replace(".", "/")
                status = await process.fail(f"sysctl: cannot stat {path}: No such file or directory", 255)
            continue
        if equals:
            table[name] = value.strip()
        if not (equals and quiet):
            await process.say(f"{table[name]}\n" if bare else f"{name} = {table[name]}\n")
    return status


@tool(TOOLS, "modprobe")
async def modprobe(process: Process, args: Sequence[str]) -> int:
    _, rest = options("modprobe", args, "arqb")
    for name in rest:
        if name.replace("-", "_") not in MODULES:
            return await process.fail(
                f"modprobe: FATAL: Module {name} not found in directory /lib/modules/6.1.0-37-amd64"
            )
        process.machine.modules.add(name.replace("-", "_"))
    return 0


@tool(TOOLS, "reboot")
async def reboot(process: Process, args: Sequence[str]) -> int:
    process.machine.reboot_later()
    return 0


@tool(TOOLS, "poweroff", "halt")
async def poweroff(process: Process, args: Sequence[str]) -> int:
    process.machine.power_off()
    return 0


@tool(TOOLS, "systemctl")
async def systemctl(process: Process, args: Sequence[str]) -> int:
    found, rest = options("systemctl", args, "qft:", ["quiet", "now", "no-block", "force", "no-pager"])
    verb, units = (rest[0], rest[1:]) if rest else ("list-units", [])
    machine = process.machine
    if verb == "reboot":
        machine.reboot_later()
        return 0
    if verb in ("poweroff", "halt"):
        machine.power_off()
        return 0
    if verb in ("daemon-reload", "reset-failed", "enable", "disable"):
        return 0
    if verb in ("is-active", "is-system-running"):
        states = [_unit_state(process, unit) for unit in units] or ["active"]
        if verb == "is-system-running":
            states = ["running"]
        if not given(found, "-q", "--quiet"):
            await process.say("".join(f"{state}\n" for state in states))
        return 0 if any(state in ("active", "running") for state in states) else 3
    if verb not in ("start", "stop", "restart", "try-restart", "reload"):
        return await process.fail(f"Unknown command verb {verb}.")
    for unit in units:
        if _unit_state(process, unit) == "unknown":
            name = unit if "." in unit else f"{unit}.service"
            return await process.fail(f"Failed to {verb} {name}: Unit {name} not found.", 5)
        if unit.split(".")[0] == "libvirtd" and verb != "reload":
            running = verb != "stop"
            if not (verb == "start" and machine.libvirtd):
                machine.restart_libvirtd(running=running)
    return 0


def _unit_state(process: Process, unit: str) -> str:
    name = unit.split(".")[0]
    machine = process.machine
    if name in ("libvirtd", "virtqemud"):
        if machine.hypervisor != "kvm" or name == "virtqemud":
            return "unknown"
        return "active" if machine.libvirtd else "inactive"
    if name == "xendomains":
        return "active" if machine.hypervisor == "xen" else "unknown"
    known = ("ssh", "sshd", "nftables", "systemd-networkd", "systemd-journald", "cron", "dbus")
    return "active" if name in known else "unknown"
