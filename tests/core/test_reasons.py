"""Every reason for which an object can be blocked is explained in docs/troubleshooting.md, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from vcrecon.core import programs
from vcrecon.core.actions import ACTIONS
from vcrecon.core.install_rules import ADVICE

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "vcrecon"
CODE = re.compile(r"[a-z]+(?:-[a-z]+)*")
ERRORS = {"HostError", "Unreachable", "Transient", "Permanent", "Unseen"}
DECIDES = {"core/guest_rules.py", "core/strangers.py", "host/steps.py"}
"""Modules in which a pair that begins with a code is a reason and its message."""
CONSTANTS = {"CRASH_LOOP", "NEEDS_CONFIRMATION"}
NEVER_SHOWN = {"host"}
"""The kind of the base class, which is never raised."""


def reasons_in(path: Path) -> Iterator[str]:
    """The codes that a module gives as a reason, however it gives them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="Block"), args=[_, ast.Constant(value=str(code)), *_]):
                yield code
            case ast.Call(func=ast.Name(id="refuse"), args=[ast.Constant(value=str(code)), *_]):
                yield code
            case ast.Call(func=ast.Name(id="Unseen"), args=[_, _, ast.Constant(value=str(code)), *_]):
                yield code
            case ast.Call(func=ast.Name(id=name), keywords=keywords) if name in ERRORS:
                yield from (
                    str(k.value.value) for k in keywords if k.arg == "kind" and isinstance(k.value, ast.Constant)
                )
            case ast.ClassDef(name=name, body=body) if name in ERRORS:
                for line in body:
                    match line:
                        case ast.Assign(targets=[ast.Name(id="kind")], value=ast.Constant(value=str(code))):
                            yield code
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(code))) if name in CONSTANTS:
                yield code
            case ast.Tuple(elts=[ast.Constant(value=str(code)), _, *_]) if str(path.relative_to(SOURCE)) in DECIDES:
                if CODE.fullmatch(code) and "-" in code:
                    yield code


def reasons() -> set[str]:
    found = {programs.missing(name, "c1")[0] for name in (*programs._PACKAGES, "anything")} | ADVICE.keys()
    for path in SOURCE.rglob("*.py"):
        if "sim" not in path.relative_to(SOURCE).parts:
            found.update(reasons_in(path))
    return found - NEVER_SHOWN - {action.kind for action in ACTIONS}


def explained() -> list[str]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)


def test_every_reason_is_explained() -> None:
    assert sorted(reasons() - set(explained())) == []


def test_nothing_is_explained_that_cannot_happen_or_twice() -> None:
    assert sorted(set(explained()) - reasons()) == []
    assert len(explained()) == len(set(explained()))
