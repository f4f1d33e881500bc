"""Runs the cases on a host, compares two runs, prints the table, and keeps what a real host said."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.conformance.case import Answer, Case, Facts, Host, conclude, run_case, said
from tests.lab.conformance.place import Place
from tests.lab.conformance.serving import Offer

VERSIONS = (
    "uname -r | cut -d . -f 1,2; lvm version 2>/dev/null | grep 'LVM version'; nft --version; ip -V; mkfs.xfs -V;"
    " curl --version | head -n 1; tar --version | head -n 1; zstd --version; ping -V; flock --version;"
    " virsh --version 2>/dev/null | sed 's/^/libvirt /'; xl info 2>/dev/null | grep -e xen_version"
)


@dataclass(frozen=True)
class Run:
    """What one host answered to every case it could take part in, by the case's name."""

    place: Place
    answers: dict[str, Answer]
    versions: tuple[str, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One case on two hosts. `same` compares what vcrecon concludes; `stale` says the capture is of other commands."""

    case: Case
    real: Facts
    simulated: Facts
    real_said: str
    simulated_said: str
    stale: bool = False

    @property
    def same(self) -> bool:
        return bool(self.real == self.simulated)

    @property
    def wrong(self) -> str:
        """Why this row cannot stay as it is; nothing when all is well."""
        if self.stale:
            return "stale: the case was changed after the real host was asked; capture again"
        if self.case.fails and not self.real.get("status"):
            return "the real host did not refuse"
        if self.case.known:
            return f"now the same: take the mark away ({self.case.known})" if self.same else ""
        return self.difference()

    def difference(self) -> str:
        """What differs, for a person."""
        if self.same:
            return ""
        parts = []
        for key in sorted({*self.real, *self.simulated}):
            real, simulated = self.real.get(key), self.simulated.get(key)
            if real != simulated:
                parts.append(f"{key}: real {_short(real)}, simulated {_short(simulated)}")
        return "; ".join(parts) + f" (real said {self.real_said!r}, simulated {self.simulated_said!r})"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 600 else text[:597] + "..."


async def run_all(cases: Iterable[Case], host: Host, place: Place, *, progress: bool = False) -> Run:
    """Every case that the place can take part in, one after another."""
    _, out, _ = await host.run(VERSIONS, b"")
    answers, digests = {}, {}
    for case in cases:
        if case.needs & place.lacks:
            continue
        began_s = time.monotonic()
        answers[case.name] = await run_case(case, host)
        digests[case.name] = case.digest(place)
        if progress:
            print(f"{answers[case.name].status:4d} {time.monotonic() - began_s:6.1f} s  {case.name}", flush=True)
    return Run(place, answers, tuple(line.strip() for line in out.decode().splitlines() if line.strip()), digests)


def compare(cases: Iterable[Case], real: Run, simulated: Run) -> Iterator[Row]:
    """A row for each case that both took part in."""
    for case in cases:
        if case.name in real.answers and case.name in simulated.answers:
            one, other = real.answers[case.name], simulated.answers[case.name]
            yield Row(
                case,
                conclude(case, one, real.place),
                conclude(case, other, simulated.place),
                said(one),
                said(other),
                real.digests.get(case.name, "") != case.digest(real.place),
            )


def table(rows: Iterable[Row], versions: Iterable[str]) -> str:
    """Markdown: what the tools were, and a line for each case."""
    lines = ["Real tools: " + "; ".join(versions), "", "| case | real | simulated | same |", "|---|---|---|---|"]
    for row in rows:
        same = f"**no**: {row.wrong}" if row.wrong else "yes" if row.same else f"known: {row.case.known}"
        lines.append(f"| {row.case.name} | {_brief(row.real)} | {_brief(row.simulated)} | {_cell(same)} |")
    return "\n".join(lines) + "\n"


def _brief(facts: Facts) -> str:
    if "broken" in facts:
        return _cell(f"not set up: {facts['broken']}")
    kind = facts["failure"][1] if "failure" in facts else ""
    return f"{facts['status']} {kind}".strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- captures --------------------------------------------------------------------------------------------------


def save(run: Run, path: Path, tools: str, *, update: bool = False) -> None:
    """Keep a real host's answers. Addresses that belong to the run are replaced by names.

    With `update`, answers that the file has to other cases stay.
    """
    place = run.place
    before = json.loads(path.read_text(encoding="utf-8"))["answers"] if update and path.exists() else {}
    content = {
        "what": tools,
        "versions": list(run.versions),
        "place": {
            "hypervisor": place.hypervisor,
            "group": place.group,
            "pool": place.pool,
            "trunk": place.trunk,
            "lacks": sorted(place.lacks),
        },
        "answers": before
        | {
            name: {"digest": run.digests[name]} | {k: v for k, v in asdict(answer).items() if v}
            for name, answer in run.answers.items()
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text.replace(place.files.base, "http://files.example"), encoding="utf-8")


def load(path: Path, files: Offer) -> Run:
    """A run that was saved; `files` stands in for the server of that day."""
    content = json.loads(path.read_text(encoding="utf-8").replace("http://files.example", files.base))
    kept = content["place"]
    place = Place(kept["hypervisor"], kept["group"], kept["pool"], kept["trunk"], files, frozenset(kept["lacks"]))
    answers, digests = {}, {}
    for name, fields in content["answers"].items():
        digests[name] = fields.pop("digest")
        answers[name] = Answer(**({"status": 0, "stdout": "", "stderr": ""} | fields))
    return Run(place, answers, tuple(content["versions"]), digests)
