"""Writes a new entry into containers.yaml, beside the comments that are there. Called by the command `adopt`."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vcrecon.errors import Problem, Refused, SpecError
from vcrecon.spec import values
from vcrecon.spec.draft import CONTAINERS
from vcrecon.spec.edit import Edit
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec
from vcrecon.spec.nodes import Node, parse

_COUNTED = re.compile(r"(.*?)([0-9]+)$")


def adopt(
    directory: Path,
    mac: str,
    *,
    name: str | None = None,
    address: str | None = None,
    template: str | None = None,
    system: str | None = None,
) -> Edit:
    """An entry for the machine with this MAC, at the end of the list of containers.

    A name or address that is not given is the next free one. Raises SpecError for a bad spec, also for one that the
    entry would make bad, and Refused for a MAC that is none or taken.
    """
    path = directory / CONTAINERS
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem(str(path), 0, 0, f"cannot be read: {error}")]) from None
    spec = load(directory, require_placement=False).spec
    try:
        mac = values.mac(mac)
    except ValueError as error:
        raise Refused(str(error)) from None
    taken = next((c.name for c in spec.containers.values() if c.mac == mac), None)
    if taken is not None:
        raise Refused(f"{mac} is {taken} already; see {path}")
    fields = {"name": name or _next_name(spec), "address": address or _next_address(spec), "mac": mac}
    if template is not None:
        fields["template"] = template
    if system is not None:
        fields["system"] = system
    elif not _has_default_system(text) and template is None:
        fields["system"] = _only_system(spec)
    edit = Edit(path, text, _with_entry(text, fields))
    load(directory, require_placement=False, instead={CONTAINERS: edit.new_text.encode()})
    return edit


def _next_name(spec: Spec) -> str:
    """The last container's name, counted on: c63 after c62."""
    counted = [match for match in map(_COUNTED.fullmatch, spec.containers) if match is not None]
    if not counted:
        raise Refused("no container's name ends in a number to count on from; say --name")
    last = max(counted, key=lambda match: (match[1] == counted[-1][1], int(match[2])))
    stem, number, width = last[1], int(last[2]) + 1, len(last[2])
    return f"{stem}{number:0{width}d}"


def _next_address(spec: Spec) -> str:
    """The lowest free address above the containers' own, else the lowest free one."""
    boot = spec.site.provisioning
    network = IPv4Network(boot.network)
    containers = [IPv4Address(container.address) for container in spec.containers.values()]
    used = {*containers, *(IPv4Address(word) for word in (boot.address, boot.gateway, *boot.dns) if word)}
    first, last = map(IPv4Address, boot.strangers or ("0.0.0.0", "0.0.0.0"))  # noqa: S104 - no address to bind
    free = [address for address in network.hosts() if address not in used and not first <= address <= last]
    above = [address for address in free if address > max(containers)]
    if not free:
        raise Refused(f"every address of {network} is in use; say --address, or make the network larger")
    return str((above or free)[0])


def _has_default_system(text: str) -> bool:
    root = parse(CONTAINERS, text.encode()).root
    defaults = root.find(("defaults", "system")) if root is not None else None
    return defaults is not None and isinstance(defaults.value, str)


def _only_system(spec: Spec) -> str:
    fitting = [system.name for system in spec.systems.values() if system.hypervisor == "kvm"] or list(spec.systems)
    if len(fitting) != 1:
        known = ", ".join(spec.systems) or "none"
        raise Refused(f"say --system: images.yaml has {known} under 'systems'")
    return fitting[0]


def _with_entry(text: str, fields: dict[str, str]) -> str:
    """The text with one more item in the list, written as the items there are: on one line each, or in a block."""
    source = parse(CONTAINERS, text.encode())
    root = source.root
    listed = root.find(("containers",)) if root is not None else None
    if listed is None or not isinstance(listed.value, list) or listed.flow or not listed.value:
        raise Refused(f"{CONTAINERS}: its list of containers is not written one item a line; add the entry by hand")
    last = listed.value[-1]
    dash = text.rfind("-", 0, last.start)
    indent = dash - (text.rfind("\n", 0, dash) + 1)
    end = _line_end(text, _last_offset(last))
    before = text[:end] if text[:end].endswith("\n") else text[:end] + "\n"
    entry = ", ".join(f"{key}: {value}" for key, value in fields.items())
    return f"{before}{' ' * indent}- {{{entry}}}\n{text[end:]}"


def _last_offset(node: Node) -> int:
    """The offset of the last thing in an item; a block's own end lies beyond the comments that follow it."""
    if isinstance(node.value, dict) and node.value and not node.flow:
        return max(_last_offset(child) for child in (*node.keys.values(), *node.value.values()))
    if isinstance(node.value, list) and node.value and not node.flow:
        return max(_last_offset(child) for child in node.value)
    return max(node.start, node.end - 1)


def _line_end(text: str, index: int) -> int:
    newline = text.find("\n", index)
    return len(text) if newline < 0 else newline + 1
