"""The seeded bugs: plausible mistakes in the product, each of which the tests must find. Read by the runner.

`bugs/RULE.toml` holds those against one safety rule (s1 to s12) or another invariant. A bug replaces one piece of
text in one file of `vcrecon`; `old` must stand there exactly once, so that a change of the product that takes the
place away is noticed by `test_seeded_bugs.py` and the bug is written anew.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "vcrecon"
DIRECTORY = Path(__file__).resolve().parent / "bugs"


@dataclass(frozen=True, slots=True)
class Bug:
    """One mistake. `file` is relative to the package; `old` is text of it, `new` what stands there instead.

    `mistake` says what is wrong and what harm follows, `seen_by` which faults bring it out and what in the world
    then shows it. Where the simulation cannot see it by its nature, `test` names the test that must fail.
    """

    name: str
    rule: str
    file: str
    mistake: str
    seen_by: str
    old: str
    new: str
    test: str = ""

    def apply(self, text: str) -> str:
        """The file's text with the mistake in it. Raises ValueError when it does not fit exactly once."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.rule} {self.name}: its old text stands {found} times in {self.file}")
        return text.replace(self.old, self.new)


def load(directory: Path = DIRECTORY) -> tuple[Bug, ...]:
    """All bugs, the safety rules first. Raises ValueError for an entry with a field too few or too many."""
    found = []
    for path in sorted(directory.glob("*.toml"), key=lambda path: _order(path.stem)):
        rule = path.stem.upper() if _number(path.stem) else path.stem
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]:
            wrong = entry.keys() ^ {field.name for field in fields(Bug)} - {"rule"} - ({"test"} - entry.keys())
            if wrong:
                raise ValueError(f"{path.name}: {entry.get('name')}: missing or unknown: {', '.join(sorted(wrong))}")
            found.append(Bug(rule=rule, **entry))
    return tuple(found)


def _number(stem: str) -> int:
    match = re.fullmatch(r"s(\d+)", stem)
    return int(match[1]) if match else 0


def _order(stem: str) -> tuple[bool, int, str]:
    number = _number(stem)
    return not number, number, stem
