"""Recipes: shell scripts that mend a held guest. Built-in ones, and a site's own in SPECS/recipes. Used by `fix`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vcrecon.errors import Refused

DIRECTORY = "recipes"
BYTES_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHEBANGS = ("#!/bin/sh", "#! /bin/sh", "#!/usr/bin/env sh")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One script. `origin` is "built in" or the file; `summary` is the first line of its comment."""

    name: str
    origin: str
    summary: str
    script: bytes


def recipes(specs: Path) -> dict[str, Recipe]:
    """All recipes by name: those of the site in `specs` stand in for built-in ones of the same name.

    Raises Refused for one that cannot be read or is not a shell script.
    """
    found = {}
    for entry in resources.files("vcrecon").joinpath("data", DIRECTORY).iterdir():
        if _NAME.fullmatch(entry.name) and entry.is_file():
            found[entry.name] = _recipe(entry.name, "built in", entry.read_bytes())
    directory = specs / DIRECTORY
    try:
        files = sorted(directory.iterdir()) if directory.is_dir() else []
        for path in files:
            if _NAME.fullmatch(path.name) and not path.name.endswith("~") and path.is_file():
                with path.open("rb") as file:
                    found[path.name] = _recipe(path.name, str(path), file.read(BYTES_MAX + 1))
    except OSError as error:
        raise Refused(f"{error.filename}: cannot read this recipe: {error.strerror}") from None
    return dict(sorted(found.items()))


def choose(name: str, known: dict[str, Recipe]) -> Recipe:
    """The recipe called `name`. Raises Refused, with a suggestion; also for a script that /bin/sh cannot run."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`vcrecon fix --list` shows them"
        raise Refused(f"there is no recipe {name!r}; {hint}")
    recipe = known[name]
    first = recipe.script.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    if len(recipe.script) > BYTES_MAX:
        raise Refused(f"{recipe.origin}: a recipe has at most 1 MiB")
    if first.startswith("#!") and not first.startswith(_SHEBANGS):
        raise Refused(f"{recipe.origin}:1: {first}: recipes are run by /bin/sh on the container; write it for that")
    return recipe


def _recipe(name: str, origin: str, script: bytes) -> Recipe:
    lines = script[:4096].decode("utf-8", "replace").splitlines()
    comments = [line.lstrip("# ").strip() for line in lines if line.startswith("#") and not line.startswith("#!")]
    return Recipe(name, origin, next((c for c in comments if c), ""), script)
