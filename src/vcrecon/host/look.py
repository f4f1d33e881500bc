"""A look at a container: one script, and the pure parser of what it prints. Used by `shell.observe`.

The script prints each part's output behind a line `@@ NAME`, and its exit status behind `@@ = `. A part
that fails leaves its facts UNKNOWN, with the host's own words in `Seen.trouble`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vcrecon.core import programs
from vcrecon.core.mastery import Master
from vcrecon.core.observation import (
    UNKNOWN,
    Bridge,
    Domain,
    Lease,
    NetworkFacts,
    Part,
    Seen,
    Storage,
    Unknown,
    Volume,
)
from vcrecon.errors import Transient
from vcrecon.host.lease import parse_lease, show_and_renew
from vcrecon.host.names import (
    FIREWALL_FILE,
    IMAGE_DIR,
    MARK,
    RELEASE_FILE,
    VOLUME_PREFIXES,
    bridge,
    bridge_mac,
    site_tag,
)
from vcrecon.host.network import LIST_RULES
from vcrecon.host.steps import NOT_FOUND, not_found
from vcrecon.hypervisor.base import Hypervisor
from vcrecon.spec.model import Container

_LVM_REPORT = (
    "lvm fullreport --reportformat json --units b --nosuffix --configreport vg -o vg_name,vg_free"
    " --configreport lv -o lv_name,lv_size,pool_lv,lv_tags,data_percent,metadata_percent"
    " --configreport pv -o pv_name --configreport pvseg -o pvseg_start --configreport seg -o seg_start"
)
"""Without the lists of fields it prints all of the 200 and more that there are."""

_SECTIONS: Mapping[Part, tuple[tuple[str, str], ...]] = {
    Part.SYSTEM: (
        ("release", f"if [ -e {RELEASE_FILE} ]; then cat {RELEASE_FILE}; else echo absent; fi"),
        ("memory", "grep MemTotal: /proc/meminfo"),
        ("images", f"if [ -d {IMAGE_DIR} ]; then ls -1 {IMAGE_DIR}; fi"),
    ),
    Part.STORAGE: (("lvm", _LVM_REPORT),),
    Part.NETWORK: (
        ("address", "ip -j -d addr show"),
        ("route", "ip -j route show"),
        ("firewall", f"if [ -e {FIREWALL_FILE} ]; then cat {FIREWALL_FILE}; fi"),
        ("rules", f"{{ {LIST_RULES} }} 2>/dev/null | sha256sum"),
    ),
}


def script(
    parts: Collection[Part],
    hypervisor: Hypervisor,
    probes: Iterable[tuple[str, int]] = (),
    master: Master | None = None,
) -> str:
    """The look's script. `probes` are (address, VLAN id) of guests to ask for an answer on their network.

    With `master` it takes or renews that master's lease on the container; without, it changes nothing.
    """
    sections = [("boot", "cat /proc/sys/kernel/random/boot_id")]
    if master is not None:
        sections.append(("master", show_and_renew(master)))
    for part in Part:
        if part in parts:
            sections += _SECTIONS.get(part, ())
    if Part.GUESTS in parts and hypervisor.resident is None:
        sections += [(f"guests{index}", line) for index, line in enumerate(hypervisor.look)]
    lines = []
    for name, command in sections:
        lines += [f"echo '@@ {name}'", command, 'echo "@@ = $?"']
    pings = [f"ping -c 1 -W 1 -n -q -I {bridge(vlan)} {address} &" for address, vlan in probes]
    if Part.ANSWERS in parts and pings:
        lines += ["echo '@@ answers'", *pings, "wait", 'echo "@@ = 0"']
    return "\n".join(lines)


def parse(
    text: str,
    answers: Sequence[str] | None,
    *,
    container: Container,
    site: str,
    parts: Collection[Part],
    hypervisor: Hypervisor,
    before: Seen | None,
    at_s: float,
    stderr: str = "",
    tool_said: str = "",
    master: Master | None = None,
) -> Seen:
    """Turn a look's output into facts, keeping those of `before` that were not looked at.

    `answers` are the resident hypervisor tool's, None when it was not asked, or failed and said `tool_said`. Raises
    Transient when the output is not that of the script (a broken shell, a login banner), so that nothing is concluded.
    """
    sections = _split(text)
    boot_id = sections.get("boot", ("", 1))[0].strip()
    if not re.fullmatch(r"[0-9a-f-]{36}", boot_id):
        said = text.strip()[:120]
        raise Transient(f"{container.name} answered something else than asked: {said!r}", kind="garbage")
    if before is None or before.boot_id != boot_id:
        before = Seen(container.name, at_s, boot_id)
    trouble, missing = dict(before.trouble or {}), dict(before.missing or {})
    seen = replace(before, at_s=at_s, answers=frozenset(), lease=None)
    trouble.pop("master", None)
    if master is not None:
        seen, wrong = _lease(seen, sections, master, stderr)
        if wrong:
            trouble["master"] = wrong
    for part, reader in _READERS.items():
        if part in parts:
            missing.pop(part.value, None)
            try:
                seen = reader(seen, sections, container, site)
                trouble.pop(part.value, None)
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
                trouble[part.value] = _trouble(stderr, error)
                seen = _forget(seen, part)
                absent = _absent(part, sections)
                if absent:
                    missing[part.value] = absent
                    trouble[part.value] = programs.missing(absent, container.name)[1]
    if Part.GUESTS in parts:
        if hypervisor.resident is None:
            answers = _script_answers(hypervisor, sections)
        seen, wrong = _guests(seen, answers, hypervisor, site, tool_said or stderr)
        trouble.pop("guests", None)
        missing.pop("guests", None)
        if wrong:
            trouble["guests"] = wrong
            absent = not_found(tool_said) or _absent_hypervisor(hypervisor, sections)
            if absent:
                missing["guests"] = absent
                trouble["guests"] = programs.missing(absent, container.name)[1]
    if "answers" in sections:
        seen = replace(seen, answers=_answers(sections["answers"][0]))
    return replace(seen, trouble=trouble or None, missing=missing or None)


def _split(text: str) -> dict[str, tuple[str, int]]:
    """Section name to (output, exit status); an unfinished section is left out."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("@@ = ") and name:
            found[name] = ("\n".join(lines), int(line[5:]) if re.fullmatch(r"[0-9]{1,3}", line[5:]) else 1)
            name = ""
        elif line.startswith("@@ "):
            name, lines = line[3:], []
        else:
            lines.append(line)
    return found


def _output(sections: Mapping[str, tuple[str, int]], name: str) -> str:
    if name not in sections:
        raise ValueError(f"no answer to {name!r}")
    output, status = sections[name]
    if status:
        raise ValueError(f"{name!r} ended with status {status}")
    return output


def _absent(part: Part, sections: Mapping[str, tuple[str, int]]) -> str:
    """The program that a part was asked of and the host does not have, or nothing."""
    for name, command in _SECTIONS.get(part, ()):
        program = command.split()[0]
        if sections.get(name, ("", 0))[1] == NOT_FOUND and program.isalnum() and program != "if":
            return program
    return ""


def _absent_hypervisor(hypervisor: Hypervisor, sections: Mapping[str, tuple[str, int]]) -> str:
    for index, command in enumerate(hypervisor.look):
        if sections.get(f"guests{index}", ("", 0))[1] == NOT_FOUND:
            return command.split()[0]
    return ""


def _trouble(stderr: str, error: Exception) -> str:
    said = [line for line in stderr.splitlines() if line.strip() and "leaked on" not in line]
    return (said[-1].strip() if said else str(error))[:200]


def _forget(seen: Seen, part: Part) -> Seen:
    if part is Part.STORAGE:
        return replace(seen, storage=UNKNOWN)
    if part is Part.NETWORK:
        return replace(seen, network=UNKNOWN)
    return replace(seen, release=UNKNOWN)


def _lease(seen: Seen, sections: Mapping[str, tuple[str, int]], master: Master, stderr: str) -> tuple[Seen, str]:
    lease: Lease | Unknown = UNKNOWN
    wrong = ""
    try:
        lease = parse_lease(_output(sections, "master"), master)
    except ValueError as error:
        wrong = _trouble(stderr, error)
    return replace(seen, lease=lease), wrong


# --- system ----------------------------------------------------------------------------------------------


def _system(seen: Seen, sections: Mapping[str, tuple[str, int]], container: Container, site: str) -> Seen:
    text = _output(sections, "release")
    release = None if text.strip() == "absent" else parse_release(text)
    memory = int(_output(sections, "memory").split()[1]) * 1024
    images = frozenset(_output(sections, "images").split())
    return replace(seen, release=release, memory_bytes=memory, images=images)


def parse_release(text: str) -> dict[str, str]:
    """`key=value` lines of /etc/vcrecon/release."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


# --- storage ---------------------------------------------------------------------------------------------


def _storage(seen: Seen, sections: Mapping[str, tuple[str, int]], container: Container, site: str) -> Seen:
    report = _output(sections, "lvm")
    return replace(seen, storage=parse_lvm(report, container.volume_group, container.pool, site))


def parse_lvm(report: str, group: str, pool: str, site: str) -> Storage:
    """The facts of one volume group from `lvm fullreport` in JSON; other groups are not ours to see.

    Raises ValueError or KeyError for anything else than such a report.
    """
    for entry in json.loads(report)["report"]:
        groups = [vg for vg in entry.get("vg", []) if vg["vg_name"] == group]
        if not groups:
            continue
        volumes, goldens, size, data, metadata = [], set(), 0, 0.0, 0.0
        strangers = set()
        for row in entry.get("lv", []):
            tags = frozenset(tag for tag in row.get("lv_tags", "").split(",") if tag)
            if row["lv_name"].strip("[]") == pool and not row.get("pool_lv"):
                size = int(row["lv_size"])
                data = float(row.get("data_percent") or 0.0)
                metadata = float(row.get("metadata_percent") or 0.0)
            elif {MARK, site_tag(site)} <= tags:
                golden = _value(tags, "vc.golden")
                if golden:
                    goldens.add(golden)
                volume = _volume(row, tags)
                if volume is not None:
                    volumes.append(volume)
            elif row["lv_name"].startswith(VOLUME_PREFIXES):
                strangers.add(row["lv_name"])
        free = int(groups[0]["vg_free"])
        return Storage(True, free, size, data, metadata, frozenset(goldens), tuple(volumes), frozenset(strangers))
    return Storage(False)


def _value(tags: Iterable[str], key: str) -> str:
    """The value of a tag; the greatest when there are several, as after a step that was cut off."""
    return max((tag[len(key) + 1 :] for tag in tags if tag.startswith(f"{key}=")), default="")


def _number(tags: Iterable[str], key: str) -> int:
    return max((int(tag[len(key) + 1 :]) for tag in tags if tag.startswith(f"{key}=")), default=0)


def _volume(row: Mapping[str, Any], tags: frozenset[str]) -> Volume | None:
    guest = _value(tags, "vc.guest")
    if not guest:
        return None
    size = int(row["lv_size"])
    percent = row.get("data_percent")
    copy_of = _value(tags, "vc.copy").partition(".")
    return Volume(
        name=row["lv_name"],
        guest=guest,
        epoch=_number(tags, "vc.epoch"),
        size_bytes=size,
        used_bytes=int(size * float(percent) / 100.0) if percent else size,
        image=_value(tags, "vc.image"),
        context=_value(tags, "vc.context"),
        boots=_number(tags, "vc.boots"),
        touched="vc.touched" in tags,
        incoming=bool({"vc.incoming", "vc.building"} & tags),
        copy_of=(int(copy_of[0]), int(copy_of[2])) if copy_of[2] else None,
        held="vc.held" in tags,
        quarantined=_value(tags, "vc.quarantined") or None,
    )


# --- network ---------------------------------------------------------------------------------------------


def _network(seen: Seen, sections: Mapping[str, tuple[str, int]], container: Container, site: str) -> Seen:
    applied = _output(sections, "firewall").split()
    listed = _output(sections, "rules").split()[0]
    intact = len(applied) == 2 and applied[1] == listed
    facts = parse_network(_output(sections, "address"), _output(sections, "route"), site)
    return replace(seen, network=replace(facts, firewall=applied[0] if intact else ""))


def parse_network(addresses: str, routes: str, site: str) -> NetworkFacts:
    """Our bridges from `ip -j -d addr show` and `ip -j route show`. Raises ValueError for anything else."""
    links = {link["ifname"]: link for link in json.loads(addresses)}
    by_device: dict[str, set[str]] = {}
    for route in json.loads(routes):
        by_device.setdefault(route.get("dev", ""), set()).add(route["dst"])
    bridges = {}
    for name, link in links.items():
        match = re.fullmatch(r"vcbr(\d+)", name)
        if match is None:
            continue
        vlan = int(match[1])
        half_made = "ifalias" not in link and link.get("address") == bridge_mac(vlan)
        if link.get("ifalias") != f"{MARK} {site}" and not half_made:
            continue
        tagged = links.get(f"vcvl{vlan}", {})
        info = tagged.get("linkinfo", {})
        trunked = (
            info.get("info_kind") == "vlan"
            and info.get("info_data", {}).get("id") == vlan
            and tagged.get("master") == name
            and "UP" in tagged.get("flags", ())
        )
        bridges[vlan] = Bridge(
            vlan,
            "UP" in link.get("flags", ()),
            trunked,
            frozenset(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["family"] == "inet"),
            frozenset(by_device.get(name, ())),
        )
    loose = frozenset(n for n, link in links.items() if n.startswith("vcg") and not link.get("master"))
    return NetworkFacts(bridges, "", loose)


# --- guests ----------------------------------------------------------------------------------------------


def _script_answers(hypervisor: Hypervisor, sections: Mapping[str, tuple[str, int]]) -> list[str] | None:
    try:
        return [_output(sections, f"guests{index}") for index in range(len(hypervisor.look))]
    except ValueError:
        return None


def _guests(
    seen: Seen, answers: Sequence[str] | None, hypervisor: Hypervisor, site: str, stderr: str
) -> tuple[Seen, str]:
    domains: tuple[Domain, ...] | Unknown = UNKNOWN
    wrong = ""
    strangers: frozenset[str] = frozenset()
    try:
        if answers is None:
            raise ValueError(f"{hypervisor.name} does not answer")
        domains = hypervisor.parse(answers, site, seen.boot_id)
        strangers = hypervisor.strangers(answers, site)
    except (ValueError, LookupError) as error:
        wrong = _trouble(stderr, error)
    return replace(seen, domains=domains, strangers=strangers), wrong


def _answers(text: str) -> frozenset[str]:
    """The addresses that answered, from ping's summaries."""
    found = set()
    address = ""
    for line in text.splitlines():
        header = re.match(r"--- (\S+) ping statistics ---", line)
        if header:
            address = header[1]
        elif address and re.search(r"transmitted, [1-9]\d* received", line):
            found.add(address)
            address = ""
    return frozenset(found)


_READERS = {Part.SYSTEM: _system, Part.STORAGE: _storage, Part.NETWORK: _network}
