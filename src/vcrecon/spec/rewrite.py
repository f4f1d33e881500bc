"""Changes a spec file in place and keeps its comments. Called by what binds a copied spec to hosts: `sim`, `lab`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    """Give the YAML document in `path` to `change`, and write what became of it. Raises OSError."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    document = yaml.load(path.read_text())
    change(document)
    with path.open("w") as stream:
        yaml.dump(document, stream)
