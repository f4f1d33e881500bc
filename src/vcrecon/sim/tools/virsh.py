"""virsh of libvirt 9.0 on a simulated KVM host: one command, several by `;`, or resident on stdin."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from vcrecon.sim import serial
from vcrecon.sim.domains import Domain, DomainError, DomainEvent, parse_domain
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.terminal import terminal_of
from vcrecon.sim.tools._common import read_input, reason, tool

TOOLS: dict[str, Tool] = {}
STATES = {"running": 1, "paused": 3, "in shutdown": 4, "shut off": 5, "crashed": 6}
RUNNING_REASONS = {"unknown": 0, "booted": 1}
OFF_REASONS = {"unknown": 0, "shutdown": 1, "destroyed": 2, "crashed": 3, "failed": 6}
CONNECT_ERROR = (
    "failed to connect to the hypervisor",
    "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory",
)


class VirshError(Exception):
    """A command failed; every argument becomes one `error: ` line."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """One command's flags and its plain words."""

    flags: dict[str, str]
    words: tuple[str, ...]

    def has(self, name: str) -> bool:
        return name in self.flags


class Session:
    """One virsh process: a connection, quiet or not."""

    def __init__(self, process: Process, *, quiet: bool) -> None:
        self.process = process
        self.machine = process.machine
        self.quiet = quiet

    async def chat(self, text: str) -> None:
        """What virsh says only when it is not quiet."""
        if not self.quiet:
            await self.process.say(text)

    async def line(self, text: str) -> int:
        """All commands of one line; stops at the first that fails. Returns the exit status.

        As in the real one, a word it does not know anywhere in the line keeps the whole line from running.
        """
        try:
            parsed = [(words[0], parse_command(words)) for words in split_commands(text)]
        except ValueError:
            return await self.process.fail('error: missing "')
        except VirshError as error:
            return await self.process.fail(f"error: {error}")
        for name, (handler, arguments) in parsed:
            status = 0
            try:
                if name != "echo":
                    if not self.machine.libvirtd:
                        raise VirshError(*CONNECT_ERROR)
                    await self.machine.work("virsh")
                await handler(self, arguments)
            except (VirshError, DomainError) as error:
                for message in error.args:
                    await self.process.fail(f"error: {message}")
                status = 1
            await self.chat("\n")
            if status:
                return status
        return 0

    def domain(self, arguments: Arguments) -> Domain:
        key = arguments.words[0] if arguments.words else arguments.flags.get("--domain", "")
        found = self.machine.domains.find(key)
        if found is None:
            raise VirshError(f"failed to get domain '{key}'")
        return found


_PLAIN = re.compile(r"[A-Za-z0-9 ._/:=,+@%-]*", re.ASCII)


def split_commands(text: str) -> list[list[str]]:
    """Words of each command of a line, parted by `;`. Raises ValueError on an open quote."""
    if _PLAIN.fullmatch(text):
        words = text.split()
        return [words] if words else []
    if text.replace('"', "").count("'") % 2:
        text += "'"  # virsh closes a single quote by itself, and complains of a double one
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";")
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) == {";"}:
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def parse_command(words: Sequence[str]) -> tuple[Handler, Arguments]:
    """The command's function and its arguments. Raises VirshError."""
    spec = COMMANDS.get(words[0])
    if spec is None:
        raise VirshError(f"unknown command: '{words[0]}'")
    handler, required, allowed = spec
    return handler, parse_arguments(words, required, allowed)


def parse_arguments(words: Sequence[str], required: str, allowed: str) -> Arguments:
    """Check a command's options in virsh's words. `allowed` ends an option that takes a value with `=`."""
    known = {name.rstrip("="): name.endswith("=") for name in allowed.split()}
    flags: dict[str, str] = {}
    plain: list[str] = []
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        if name == f"--{required}" and required:
            plain.insert(0, value if equals else rest.pop(0) if rest else "")
        elif name not in known:
            raise VirshError(f"command '{words[0]}' doesn't support option {name}")
        else:
            if known[name] and not equals:
                if not rest:
                    raise VirshError(f"expected syntax: {name} <string>")
                value = rest.pop(0)
            flags[name] = value
    if required and not plain:
        raise VirshError(f"command '{words[0]}' requires <{required}> option")
    return Arguments(flags, tuple(plain))


def _chosen(session: Session, arguments: Arguments, prefix: str) -> list[Domain]:
    running = session.machine.domains.live()
    others = sorted((d for d in session.machine.domains.by_name.values() if not d.live), key=lambda d: d.name)
    if prefix == "list" and not arguments.has("--all"):
        others = others if arguments.has("--inactive") or arguments.has("--state-shutoff") else []
        running = [] if arguments.has("--inactive") else running
    if arguments.has("--state-running") or arguments.has("--list-running") or arguments.has("--list-active"):
        others = []
    if arguments.has("--state-shutoff") or arguments.has("--list-inactive") or arguments.has("--list-shutoff"):
        running = []
    return running + others


async def cmd_list(session: Session, arguments: Arguments) -> None:
    domains = _chosen(session, arguments, "list")
    if arguments.has("--name") or arguments.has("--uuid"):
        for domain in domains:
            parts = [domain.uuid] if arguments.has("--uuid") else []
            parts += [domain.name] if arguments.has("--name") else []
            await session.process.say(" ".join(parts) + "\n")
        return
    titled = arguments.has("--title")
    rows = [[str(d.id) if d.live else "-", d.name, d.state] + ([d.title] if titled else []) for d in domains]
    header = ["Id", "Name", "State"] + (["Title"] if titled else [])
    shown = rows if session.quiet else [header, *rows]
    widths = [max((len(row[i]) for row in shown), default=0) for i in range(len(header))]
    lines = []
    for row in shown:
        cells = [f" {cell.ljust(width)}  " for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join(cells) + f" {row[-1]}")
    if not session.quiet:
        lines.insert(1, "-" * sum(width + 3 for width in widths))
    await session.process.say("".join(f"{line}\n" for line in lines))


async def cmd_domstats(session: Session, arguments: Arguments) -> None:
    if arguments.words:
        domains = []
        for name in arguments.words:
            domains.append(session.domain(Arguments({}, (name,))))
    else:
        domains = _chosen(session, arguments, "domstats")
    blocks = []
    for domain in domains:
        reasons = RUNNING_REASONS if domain.live else OFF_REASONS
        block = f"Domain: '{domain.name}'\n  state.state={STATES[domain.state]}\n"
        block += f"  state.reason={reasons.get(domain.reason, 0)}\n"
        if not arguments.has("--state"):
            block += f"  balloon.current={domain.memory_bytes >> 10}\n  vcpu.current={domain.vcpus}\n"
        blocks.append(block)
    await session.process.say("\n".join(blocks))


async def cmd_domstate(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    tail = f" ({domain.reason})" if arguments.has("--reason") else ""
    await session.process.say(f"{domain.state}{tail}\n")


async def cmd_dumpxml(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    await session.process.say(dump_xml(domain))


def dump_xml(domain: Domain) -> str:
    """The definition as libvirt gives it back: sizes in KiB, the taps of a running copy, the id."""
    assert domain.xml is not None
    root = ET.fromstring(ET.tostring(domain.xml))  # noqa: S314 - a copy of our own tree
    metadata = root.find("metadata")
    kept = ""
    if metadata is not None:
        # Written apart: each of its elements declares its own namespace, as libvirt keeps it.
        for prefix, uri in _namespaces(metadata).items():
            ET.register_namespace(prefix, uri)
        for child in metadata:
            child.tail = None
        kept = "".join(f"    {ET.tostring(child, encoding='unicode')}\n" for child in metadata)
        metadata.clear()
    if domain.live:
        root.set("id", str(domain.id))
    for tag in ("memory", "currentMemory"):
        node = root.find(tag)
        if node is None:
            node = ET.SubElement(root, tag)
        node.text, node.attrib["unit"] = str(domain.memory_bytes >> 10), "KiB"
    if root.find("uuid") is None:
        node = ET.Element("uuid")
        node.text = domain.uuid
        root.insert(1, node)
    for interface, tap in zip(root.iterfind("devices/interface"), domain.taps, strict=False):
        target = interface.find("target")
        if target is None:
            target = ET.SubElement(interface, "target")
        target.set("dev", tap)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode", short_empty_elements=True)
    text = text.replace("  <metadata />\n", f"  <metadata>\n{kept}  </metadata>\n" if kept else "")
    return text.replace(" />", "/>") + "\n"


def _namespaces(root: ET.Element) -> dict[str, str]:
    """Prefixes for the namespaces in <metadata>: the last word of the address, as writers choose them."""
    found = {}
    for node in root.iter():
        if node.tag.startswith("{"):
            uri = node.tag[1:].partition("}")[0]
            word = "".join(c for c in uri.rstrip("/").replace(":", "/").rsplit("/", 1)[-1] if c.isalnum())
            found[word if word and not word[0].isdigit() else "meta"] = uri
    return found


async def cmd_define(session: Session, arguments: Arguments) -> None:
    path = arguments.words[0]
    try:
        text = (await read_input(session.process, path)).decode("utf-8", "replace")
    except OSError as error:
        raise VirshError(f"Failed to open file '{path}': {reason(error)}") from None
    try:
        domain = parse_domain(text)
        session.machine.domains.define(domain)
    except DomainError as error:
        raise VirshError(f"Failed to define domain from {path}", *error.args) from None
    session.machine.files.mkdir("/etc/libvirt/qemu", parents=True)
    session.machine.files.write(f"/etc/libvirt/qemu/{domain.name}.xml", text.encode(), mode=0o600)
    await session.chat(f"Domain '{domain.name}' defined from {path}\n")


async def cmd_create(session: Session, arguments: Arguments) -> None:
    path = arguments.words[0]
    try:
        domain = parse_domain((await read_input(session.process, path)).decode("utf-8", "replace"))
        domain.persistent = False
        await session.machine.work("start")
        session.machine.domains.start(domain)
    except OSError as error:
        raise VirshError(f"Failed to open file '{path}': {reason(error)}") from None
    except DomainError as error:
        raise VirshError(f"Failed to create domain from {path}", *error.args) from None
    await session.chat(f"Domain '{domain.name}' created from {path}\n")


async def cmd_undefine(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    session.machine.domains.undefine(domain)
    path = f"/etc/libvirt/qemu/{domain.name}.xml"
    if session.machine.files.exists(path):
        session.machine.files.remove(path)
    await session.chat(f"Domain '{domain.name}' has been undefined\n")


async def cmd_start(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    if domain.live:
        raise VirshError("Domain is already active")
    await session.machine.work("start")
    try:
        session.machine.domains.start(domain)
    except DomainError as error:
        domain.reason = "failed"
        raise VirshError(f"Failed to start domain '{domain.name}'", *error.args) from None
    await session.chat(f"Domain '{domain.name}' started\n")


def _require_running(domain: Domain, verb: str, text: str) -> None:
    if not domain.live:
        raise VirshError(f"Failed to {verb} domain '{domain.name}'", text)


NOT_RUNNING = "Requested operation is not valid: domain is not running"


async def cmd_shutdown(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    _require_running(domain, "shutdown", NOT_RUNNING)
    session.machine.domains.request_shutdown(domain)
    await session.chat(f"Domain '{domain.name}' is being shutdown\n")


async def cmd_destroy(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    _require_running(domain, "destroy", NOT_RUNNING)
    await session.machine.work("destroy")
    if domain.live:
        session.machine.domains.destroy(domain)
    await session.chat(f"Domain '{domain.name}' destroyed\n")


async def cmd_reset(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    _require_running(domain, "reset", NOT_RUNNING)
    session.machine.domains.restart_guest(domain)
    await session.chat(f"Domain '{domain.name}' was reset\n")


async def cmd_reboot(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    _require_running(domain, "reboot", NOT_RUNNING)
    session.machine.domains.restart_guest(domain)
    await session.chat(f"Domain '{domain.name}' is being rebooted\n")


async def cmd_suspend(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    _require_running(domain, "suspend", NOT_RUNNING)
    domain.state, domain.reason = "paused", "user"
    session.machine.domains.emit(domain, "Suspended Paused")
    await session.chat(f"Domain '{domain.name}' suspended\n")


async def cmd_resume(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    _require_running(domain, "resume", NOT_RUNNING)
    domain.state, domain.reason = "running", "unpaused"
    session.machine.domains.emit(domain, "Resumed Unpaused")
    await session.chat(f"Domain '{domain.name}' resumed\n")


async def cmd_version(session: Session, arguments: Arguments) -> None:
    await session.process.say(
        "Compiled against library: libvirt 9.0.0\nUsing library: libvirt 9.0.0\n"
        "Using API: QEMU 9.0.0\nRunning hypervisor: QEMU 7.2.17\n"
    )


async def cmd_nodeinfo(session: Session, arguments: Arguments) -> None:
    machine = session.machine
    rows = {
        "CPU model": "x86_64",
        "CPU(s)": str(machine.cores),
        "CPU frequency": "2400 MHz",
        "CPU socket(s)": "1",
        "Core(s) per socket": str(machine.cores),
        "Thread(s) per core": "1",
        "NUMA cell(s)": "1",
        "Memory size": f"{machine.memory_bytes >> 10} KiB",
    }
    await session.process.say("".join(f"{name + ':':<20} {value}\n" for name, value in rows.items()))


async def cmd_capabilities(session: Session, arguments: Arguments) -> None:
    await session.process.say(
        "<capabilities>\n\n  <host>\n    <cpu>\n      <arch>x86_64</arch>\n    </cpu>\n  </host>\n\n"
        "  <guest>\n    <os_type>hvm</os_type>\n    <arch name='x86_64'>\n      <domain type='qemu'/>\n"
        "      <domain type='kvm'/>\n    </arch>\n  </guest>\n\n</capabilities>\n"
    )


async def cmd_console(session: Session, arguments: Arguments) -> None:
    domain = session.domain(arguments)
    if not domain.live:
        raise VirshError("The domain is not running")
    if terminal_of(session.process.stdin) is None:
        raise VirshError("Cannot run interactive console without a controlling TTY")
    await session.chat(f"Connected to domain '{domain.name}'\nEscape character is ^] (Ctrl + ])\n")
    await serial.join(session.process, domain, "ttyS0")


async def cmd_echo(session: Session, arguments: Arguments) -> None:
    await session.process.say(" ".join(arguments.words))


async def cmd_event(session: Session, arguments: Arguments) -> None:
    """Print events as they happen, until the wanted number, the timeout, or libvirtd goes away."""
    queue: asyncio.Queue[DomainEvent | None] = asyncio.Queue()
    wanted = session.domain(Arguments({}, (arguments.flags["--domain"],))).name if arguments.has("--domain") else None
    kind = arguments.flags.get("--event")
    stop_events = session.machine.on_domain_event(queue.put_nowait)
    stop_restart = session.machine.on_libvirt_restart(lambda: queue.put_nowait(None))
    timeout = float(arguments.flags["--timeout"]) if arguments.has("--timeout") else None
    count = 0
    try:
        async with asyncio.timeout(timeout):
            while True:
                event = await queue.get()
                if event is None:
                    await session.process.fail("error: Disconnected from qemu:///system due to end of file")
                    break
                if wanted not in (None, event.domain) or (kind is not None and kind != event.kind):
                    continue
                await session.process.say(event_line(event, session, stamped=arguments.has("--timestamp")))
                count += 1
                if not arguments.has("--loop"):
                    break
    except TimeoutError:
        await session.process.say(f"event loop timed out\nevents received: {count}\n")
        raise VirshError() from None
    finally:
        stop_events()
        stop_restart()
    await session.process.say(f"events received: {count}\n")
    if event is None:
        raise VirshError()


def event_line(event: DomainEvent, session: Session, *, stamped: bool) -> str:
    """One line of `virsh event`, newline included."""
    detail = f": {event.detail}" if event.detail else ""
    text = f"event '{event.kind}' for domain '{event.domain}'{detail}\n"
    if not stamped:
        return text
    seconds = session.machine.timing.wall()
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    return f"{when}.{int(seconds % 1 * 1000):03d}+0000: {text}"


Handler = Callable[[Session, Arguments], Awaitable[None]]
COMMANDS: dict[str, tuple[Handler, str, str]] = {
    "list": (
        cmd_list,
        "",
        "--all --title --name --uuid --inactive --state-running --state-shutoff --table --id",
    ),
    "domstats": (
        cmd_domstats,
        "",
        "--state --raw --list-running --list-active --list-inactive --list-shutoff --balloon --vcpu --nowait --domain=",
    ),
    "domstate": (cmd_domstate, "domain", "--reason"),
    "dumpxml": (cmd_dumpxml, "domain", "--inactive --security-info"),
    "define": (cmd_define, "file", "--validate"),
    "create": (cmd_create, "file", "--validate --autodestroy"),
    "undefine": (
        cmd_undefine,
        "domain",
        "--nvram --managed-save --snapshots-metadata --checkpoints-metadata",
    ),
    "start": (cmd_start, "domain", "--paused --force-boot"),
    "shutdown": (cmd_shutdown, "domain", "--mode="),
    "destroy": (cmd_destroy, "domain", "--graceful"),
    "suspend": (cmd_suspend, "domain", ""),
    "resume": (cmd_resume, "domain", ""),
    "reset": (cmd_reset, "domain", ""),
    "reboot": (cmd_reboot, "domain", "--mode="),
    "version": (cmd_version, "", "--daemon"),
    "nodeinfo": (cmd_nodeinfo, "", ""),
    "capabilities": (cmd_capabilities, "", ""),
    "console": (cmd_console, "domain", "--force --safe"),
    "echo": (cmd_echo, "", "--shell --xml --split --err"),
    "event": (cmd_event, "", "--all --loop --timestamp --event= --domain= --timeout= --list"),
}
WELCOME = (
    "Welcome to virsh, the virtualization interactive terminal.\n\n"
    "Type:  'help' for help with commands\n       'quit' to quit\n\n"
)


async def resident(session: Session) -> int:
    """Read commands from standard input as virsh does without a terminal: each is echoed after the prompt."""
    await session.chat(WELCOME)
    while True:
        await session.process.say("virsh # ")
        data = await session.process.stdin.readline()
        if not data:
            await session.process.say("\n")
            return 0
        text = data.decode("utf-8", "replace").rstrip("\n")
        await session.process.say(f"{text}\n")
        if text.strip() in ("quit", "exit"):
            await session.process.say("\n")
            return 0
        await session.line(text)


@tool(TOOLS, "virsh")
async def virsh(process: Process, args: Sequence[str]) -> int:
    if process.machine.hypervisor != "kvm":
        return await process.fail("sh: 1: virsh: not found", 127)
    rest = list(args)
    quiet = False
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag in ("-q", "--quiet"):
            quiet = True
        elif flag in ("-c", "--connect", "-k", "-K"):
            rest = rest[1:]
        elif flag in ("-V", "-v", "--version"):
            await process.say("9.0.0\n")
            return 0
        elif not flag.startswith("--connect="):
            return await process.fail(f"error: unsupported option '{flag}'. See --help.")
    session = Session(process, quiet=quiet)
    if not rest:
        if not process.machine.libvirtd:
            return await process.fail("\n".join(f"error: {line}" for line in CONNECT_ERROR))
        return await resident(session)
    # One argument may hold several commands; otherwise the words are one command, `;` between them included.
    text = rest[0] if len(rest) == 1 else " ".join(word if word == ";" else shlex.quote(word) for word in rest)
    return await session.line(text)
