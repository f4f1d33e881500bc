"""Many runs, a few at a time, each in namespaces of its own. Used by `__main__` and by the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.box import BLKIO, PREFIX
from tests.support import sshd

ROOT = Path(__file__).parents[2]
PROGRAMS = ("ip", "nft", "tc", "nsenter", "unshare", "mount", "flock", "curl", "zstd", "sha256sum", "virsh", "lvm")
DEADLINE_S = 300.0
"""For one run; the longest on a busy machine take a minute."""
# The shell is the first process there, and takes in those whose parents were killed.
_APART = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_FIRST = ("sh", "-c", '"$@"; exit $?', "sh")

Result = dict[str, Any]


def missing() -> list[str]:
    """What a run needs and this machine has not."""
    return [name for name in PROGRAMS if shutil.which(name) is None] + ([] if sshd.SSHD else ["sshd"])


def replay(seed: int) -> str:
    return f"python -m tests.faults --seed {seed}"


def one(seed: int) -> Result:
    """One run. What went wrong with the run itself is one more violation."""
    result = apart("tests.faults.one", str(seed))
    return {"seed": seed, "faults": {}, "calls": 0, "steps": 0, "seconds": 0.0} | result


def apart(module: str, argument: str) -> Result:
    """What a module's process says, given the argument and a directory, in namespaces of its own."""
    Path("/run/netns").mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=PREFIX))
    command = [*_APART, *_FIRST, sys.executable, "-m", module, argument, str(scratch)]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said, complaints = process.communicate(timeout=DEADLINE_S)
        result: Result = json.loads(said.splitlines()[-1])
    except subprocess.TimeoutExpired:
        result = _failed(f"the run did not end within {DEADLINE_S:g} s")
    except (ValueError, IndexError):
        result = _failed(f"the run ended with status {process.returncode}: {complaints[-3000:]}")
    finally:
        # --kill-child: with it goes the first process of the namespace, and with that all of them.
        process.kill()
        process.communicate()
        shutil.rmtree(scratch, ignore_errors=True)
        for group in BLKIO.glob(f"{PREFIX}*-{scratch.name}-*"):
            group.rmdir()
    return result


def _failed(words: str) -> Result:
    return {"violations": [f"crash: {words}"]}


def outside() -> dict[str, set[str]]:
    """What runs could leave on this machine: all of it has their prefix, or lies on a file in their directories."""
    loops = (path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file"))
    namespaces = os.listdir("/run/netns") if Path("/run/netns").is_dir() else []
    return {
        "control groups": {path.name for path in BLKIO.glob(f"{PREFIX}*")},
        "loop devices": {name for name in loops if f"/{PREFIX}" in name},
        "mounts": {line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/{PREFIX}" in line},
        "namespaces": {name for name in namespaces if name.startswith(PREFIX)},
        "links": {name for name in os.listdir("/sys/class/net") if name.startswith(PREFIX)},
        "directories": {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")},
    }


def many(seeds: Iterable[int], *, at_once: int, ended: Callable[[Result], None] = lambda result: None) -> Result:
    """Runs of all seeds, and what they amount to. `ended` is told of each."""
    before, began_s = outside(), time.monotonic()
    results: list[Result] = []
    with ThreadPoolExecutor(at_once) as pool:
        for result in pool.map(one, seeds):
            results.append(result)
            ended(result)
    left = {what: sorted(names - before[what]) for what, names in outside().items() if names - before[what]}
    return summary(results, left, time.monotonic() - began_s)


def summary(results: list[Result], left: dict[str, list[str]], seconds: float) -> Result:
    faults: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for result in results:
        faults.update(result["faults"])
        outcomes.update(result.get("outcomes", {}))
    return {
        "runs": len(results),
        "violations": sum(len(result["violations"]) for result in results) + len(left),
        "unjudged": sum(bool(result.get("unjudged")) for result in results),
        "seconds": round(seconds, 1),
        "failing_seeds": [result["seed"] for result in results if result["violations"]],
        "left": left,
        "faults": dict(faults.most_common()),
        "calls": sum(result["calls"] for result in results),
        "steps": sum(result["steps"] for result in results),
        "begun_late": sum(result.get("begun_late", 0) for result in results),
        "recovery_s_max": max((result.get("recovery_s", 0.0) for result in results), default=0.0),
        "outcomes": dict(outcomes.most_common()),
    }
