"""Input number N of a seed: the same on every machine. Called by `run`, and by whoever replays one."""

from __future__ import annotations

import copy
import random

from tests.fuzz.bases import BASES, ODDITIES, Case, Oddity
from tests.fuzz.heavy import heavy
from tests.fuzz.texts import mutate_bytes, mutate_yaml
from tests.fuzz.trees import dump, mutate

from vcrecon.spec.text import FILES

CUT_EVERY = 11
"""One input in so many is a file cut off at a byte; all bytes of all files come in turn."""
HEAVY_EVERY = 10_000
_BASES = ("small",) * 12 + ("rich",) * 6 + ("lab",) * 2 + ("tutorial",)
_CUTS = [(base, file, at) for base in BASES for file in FILES for at in range(len(BASES[base].files[file]))]


def cuts() -> int:
    """How many ways there are to cut one file of one base."""
    return len(_CUTS)


def make(seed: int, index: int) -> Case:
    """Input `index` of `seed`."""
    rng = random.Random(f"{seed}/{index}")
    if index % CUT_EVERY == 0:
        offset = random.Random(seed).randrange(len(_CUTS))
        return _cut(*_CUTS[(offset + index // CUT_EVERY) % len(_CUTS)])
    name = rng.choice(_BASES)
    if rng.randrange(HEAVY_EVERY) == 0:
        file, told, data = heavy(rng, BASES[name])
        return Case(name, {file: data}, (told,))
    if rng.random() < 0.03:
        return _odd_file(rng, name)
    return rng.choice([_tree, _tree, _tree, _text, _text])(rng, name)


def _cut(base: str, file: str, at: int) -> Case:
    return Case(base, {file: BASES[base].files[file][:at]}, (f"{file} cut off at byte {at}",))


def _odd_file(rng: random.Random, name: str) -> Case:
    base = BASES[name]
    changes: dict[str, bytes | Oddity] = {}
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        changes[rng.choice([*FILES, *base.others])] = rng.choice(ODDITIES)
    return Case(name, changes, tuple(f"{file} is {content!s}" for file, content in changes.items()))


def _tree(rng: random.Random, name: str) -> Case:
    base = BASES[name]
    trees = copy.deepcopy(base.trees)
    how = [mutate(rng, base, trees)[1] for _ in range(rng.choice([1, 1, 1, 2, 3, 6]))]
    changed = [file for file in FILES if repr(trees[file]) != repr(base.trees[file])]
    return Case(name, {file: dump(rng, trees[file]) for file in changed}, tuple(how))


def _text(rng: random.Random, name: str) -> Case:
    base = BASES[name]
    files = dict(base.files)
    how = [rng.choice([mutate_bytes, mutate_yaml])(rng, base, files)[1] for _ in range(rng.choice([1, 1, 1, 2, 4]))]
    return Case(name, {file: data for file, data in files.items() if data != base.files[file]}, tuple(how))
