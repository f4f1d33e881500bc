"""`python -m vcrecon.sim`: a site in a process of its own, from its ready line to SIGTERM."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from vcrecon.sim.control import SiteClient
from vcrecon.spec.load import load

SPECS = Path(__file__).parents[2] / "specs" / "small"


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vcrecon.sim",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_site_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    out = tmp_path / "bound"
    process = await start("--specs", str(SPECS), "--out", str(out), "--control", str(tmp_path / "s"))
    assert process.stdout is not None
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        assert ready["specs"] == str(out)
        assert load(out, require_placement=False).spec.images["debian-12"].root.url.startswith(ready["image_url"])
        async with SiteClient(Path(ready["control"])) as client:
            world = await client.world()
        assert {host["state"] for host in world["hosts"].values()} == {"up"}
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
    assert not (tmp_path / "s").exists()


async def test_a_spec_that_is_wrong_is_named_and_nothing_is_served(tmp_path: Path) -> None:
    process = await start("--specs", str(tmp_path / "missing"), "--out", str(tmp_path / "bound"))
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"missing" in errors
    assert b"Traceback" not in errors
