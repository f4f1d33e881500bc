"""`python -m dashboards`: write what is made from code into this repository."""

from __future__ import annotations

from pathlib import Path

from dashboards.files import files

ROOT = Path(__file__).parents[1]

for name, content in files().items():
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    print(name)
