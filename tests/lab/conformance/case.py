"""What a case is, what a host answers to it, and how an answer is reduced to what vcrecon reads from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.lab.conformance.place import SITE, Place

from vcrecon.core.observation import Domain, NetworkFacts, Part, Seen, Storage
from vcrecon.errors import HostError
from vcrecon.host import look
from vcrecon.host.steps import CORRUPT, LOCKED, UNSAFE, failure

Facts = Any
"""JSON-able: what vcrecon would conclude."""

_MARK = "@@ DOMAINS"


class Host(Protocol):
    """Where a case runs: a real container or a simulated one."""

    async def run(self, script: str, stdin: bytes, terminal: bool = False) -> tuple[int, bytes, bytes]:
        """Exit status, standard output and error of a script run by the host's `sh`.

        At a `terminal`, `stdin` is typed every second until the script ends.
        """
        ...


@dataclass(frozen=True)
class Answer:
    """What the command said, and what the look after it showed. `broken` says why the case could not be set up."""

    status: int
    stdout: str
    stderr: str
    after: str = ""
    broken: str = ""


Reduce = Callable[[Answer, Place], Facts]


def nothing(answer: Answer, place: Place) -> Facts:
    """Only the exit status and the kind of failure count."""
    return None


@dataclass(frozen=True)
class Case:
    """A command in a situation.

    `given` makes the situation and `cleanup` ends it, both with plain lines that stop at the first failure
    (`given`) or go on (`cleanup`); `then` is a look at the host afterwards. `needs` names abilities of the host.
    `known` says why reality and the simulation may differ; such a case must differ, or its mark must go.
    `fails` says that a host where the command succeeds is not safe to work on. `terminal` is for what talks to one.
    """

    family: str
    situation: str
    command: str
    stdin: bytes = b""
    given: tuple[str, ...] = ()
    then: str = ""
    reduce: Reduce = nothing
    cleanup: tuple[str, ...] = ()
    needs: frozenset[str] = field(default_factory=frozenset)
    known: str = ""
    fails: bool = False
    terminal: bool = False

    @property
    def name(self) -> str:
        return f"{self.family}: {self.situation}"

    def digest(self, place: Place) -> str:
        """Changes when what is run changes; where it runs, from where it downloads, and its cleanup left out."""
        text = json.dumps([self.given, self.command, self.stdin.hex(), self.then])
        for value, name in ((place.files.base, "URL"), (f"/{place.group}/", "/GROUP/"), (place.trunk, "TRUNK")):
            text = text.replace(value, name)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


async def run_case(case: Case, host: Host) -> Answer:
    """Make the situation, run the command, look, clean up. A situation that cannot be made is `broken`."""
    try:
        if case.given:
            status, _, err = await host.run("\n".join(["set -eu", *case.given]), b"")
            if status:
                return Answer(status, "", "", broken=f"given ended with {status}: {_tail(err)}")
        status, out, err = await host.run(case.command, case.stdin, case.terminal)
        after = b""
        if case.then:
            looked, after, _ = await host.run(case.then, b"")
            if looked:
                return Answer(status, _text(out), _text(err), broken=f"the look afterwards ended with {looked}")
        return Answer(status, _text(out), _text(err), _text(after))
    except TimeoutError:
        return Answer(-1, "", "", broken="it did not end in time")
    finally:
        if case.cleanup:
            await host.run("\n".join(case.cleanup), b"")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _tail(data: bytes) -> str:
    return " / ".join(_text(data).strip().splitlines()[-3:])


def conclude(case: Case, answer: Answer, place: Place) -> Facts:
    """What vcrecon makes of an answer: compared between a real host and a simulated one."""
    if answer.broken:
        return {"broken": answer.broken}
    facts: dict[str, Facts] = {"status": answer.status}
    if answer.status:
        error = failure("it", "here", answer.status, answer.stderr.encode())
        facts["failure"] = [type(error).__name__, error.kind]
        if answer.status in (LOCKED, CORRUPT, UNSAFE):
            facts["said"] = str(error)  # the scripts' own words, the same everywhere
    try:
        facts["facts"] = case.reduce(answer, place)
    except (ValueError, LookupError, TypeError, AttributeError, HostError) as error:
        facts["facts"] = {"unreadable": f"{type(error).__name__}: {error}"}
    return json.loads(json.dumps(facts))


def said(answer: Answer) -> str:
    """The last line on standard error, which a person gets to read."""
    lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# --- looks -----------------------------------------------------------------------------------------------


def look_script(place: Place, parts: Iterable[Part], probes: Iterable[tuple[str, int]] = ()) -> str:
    """The script of a look, with the questions to a resident hypervisor tool asked by single commands."""
    parts = frozenset(parts)
    script = look.script(parts, place.tool, probes)
    if Part.GUESTS in parts and place.tool.resident:
        script += "".join(f"\necho '{_MARK}'\n{place.tool.resident} {line}" for line in place.tool.look)
    return script


def looked(*parts: Part, of: str = "after", release: bool = False) -> Reduce:
    """Reduce to what `look.parse` makes of it, without what differs from host to host.

    `release` is for cases that made the release file themselves.
    """

    def reduce(answer: Answer, place: Place) -> Facts:
        text, *answers = str(getattr(answer, of)).split(f"{_MARK}\n")
        seen = look.parse(
            text,
            answers or None,
            container=place.container,
            site=SITE,
            parts=parts,
            hypervisor=place.tool,
            before=None,
            at_s=0.0,
            stderr=answer.stderr,
        )
        facts = seen_facts(seen, place)
        if release:
            facts["release"] = seen.release if isinstance(seen.release, dict | None) else "unknown"
        return facts

    return reduce


def seen_facts(seen: Seen, place: Place) -> dict[str, Facts]:
    """A look's facts that any host in the same situation shares."""
    facts: dict[str, Facts] = {
        "trouble": sorted(seen.trouble or {}),
        "answers": sorted(seen.answers),
        "images": sorted(_ours(seen.images, place)),
    }
    if isinstance(seen.storage, Storage):
        facts["storage"] = storage_facts(seen.storage)
    if isinstance(seen.network, NetworkFacts):
        facts["network"] = network_facts(seen.network)
    if isinstance(seen.domains, tuple):
        facts["domains"] = {d.guest: domain_facts(d) for d in seen.domains}
        facts["strangers"] = sorted(name for name in seen.strangers if name.startswith("cf-"))
    return facts


def _ours(images: Iterable[str], place: Place) -> Iterable[str]:
    """The names of downloads that are the suite's; a container in use has others."""
    names = {place.files.sha256(name): name for name in place.files.contents}
    for image in images:
        sha256, dot, rest = image.partition(".")
        if sha256 in names:
            yield names[sha256] + dot + rest


def storage_facts(storage: Storage) -> Facts:
    volumes = {}
    for v in storage.volumes:
        flags = [name for name in ("touched", "incoming", "held") if getattr(v, name)]
        volumes[v.name] = [v.guest, v.epoch, v.size_bytes, v.image[:8], v.context[:8], v.boots, flags]
        volumes[v.name] += [v.copy_of, v.quarantined]
    return {
        "group": storage.group_present,
        "goldens": sorted(golden[:8] for golden in storage.goldens),
        "volumes": dict(sorted(volumes.items())),
        "strangers": sorted(name for name in storage.strangers if "-cf-" in name),
    }


def network_facts(network: NetworkFacts) -> Facts:
    bridges = {
        str(vlan): [b.up, b.trunked, sorted(b.addresses), sorted(b.routes)]
        for vlan, b in sorted(network.bridges.items())
    }
    loose = sorted(name for name in network.loose if name.startswith("vcgcf"))
    return {"bridges": bridges, "firewall": network.firewall, "loose": loose}


def domain_facts(domain: Domain) -> Facts:
    return [domain.state, bool(domain.serial), domain.reason, domain.definition[:8]]


def output(answer: Answer, place: Place) -> Facts:
    """Standard output, as it is."""
    return answer.stdout


def shape(pattern: str) -> Reduce:
    """Whether standard output has this form: for digests and identifiers, which differ by nature."""

    def reduce(answer: Answer, place: Place) -> Facts:
        return bool(re.fullmatch(pattern, answer.stdout.strip())) or answer.stdout

    return reduce
