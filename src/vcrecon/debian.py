"""Makes trees of Debian packages with mmdebstrap, and says what it does.

Called by the builders of `boot` (`installer.build`, `images.build`) and of the lab (`lab.images`).

Needs root, and Debian's archive as this machine's own apt knows it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vcrecon.errors import Refused

Say = Callable[[str], None]

EPOCH_S = 1686355200
"""SOURCE_DATE_EPOCH of every build: what a build writes bears this time, so that equal inputs give equal bytes."""

NICENESS = 15

_UMASK = 0o022
"""Of every tool that is run: what a build writes has the same modes, whoever builds."""


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A directory below `directory` for a build; it goes when the build ends, however it ends."""
    directory.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="building-", dir=directory))
    # mmdebstrap unpacks as other users, who must be able to pass through.
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def hooks(
    place: Path, files: Mapping[str, str], *, units: Sequence[str] = (), units_masked: Sequence[str] = ()
) -> list[str]:
    """For `bootstrap`: lay `files` (by path; drafted in `place`) before packages are configured, then set units."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    # Files and directories as any system has them, whatever the umask here.
    lay = f'chmod -R u=rwX,go=rX {place} && cp -r --preserve=mode {place}/. "$1"/'
    found = [f"--essential-hook={lay}"]
    if units:
        found.append(f'--customize-hook=chroot "$1" systemctl --quiet enable {" ".join(units)}')
    if units_masked:
        found.append(f'--customize-hook=chroot "$1" systemctl --quiet mask {" ".join(units_masked)}')
    return found


def bootstrap(
    target: Path,
    packages: Sequence[str],
    *,
    suite: str,
    variant: str,
    hooks: Sequence[str],
    what: str,
    say: Say,
    components: Sequence[str] = ("main",),
) -> None:
    """Make a tree of Debian packages at `target`. Raises Refused, with the tool's last words."""
    run(
        [
            # In a mount namespace of its own: a build that is killed leaves no /proc and /sys mounted in its tree,
            # through which whoever clears it away would reach the real ones.
            *("unshare", "--mount", "--propagation", "private"),
            "mmdebstrap",
            f"--variant={variant}",
            "--format=directory",
            f"--components={','.join(components)}",
            f"--include={','.join(packages)}",
            *hooks,
            suite,
            str(target),
            *_mirrors(suite, components),
        ],
        what,
        say,
    )


def run(command: Sequence[str], what: str, say: Say) -> None:
    """Run a tool, out of the way of others, and pass its progress on. Raises Refused, with its last words."""
    said: list[str] = []
    environment = {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(EPOCH_S),
    }
    try:
        with subprocess.Popen(
            ["nice", "-n", str(NICENESS), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            umask=_UMASK,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = [*said[-20:], line.rstrip()]
                if line.startswith("I: ") and line.rstrip().endswith("..."):
                    say(f"{what}: {line[3:].strip().rstrip('.')}")
    except FileNotFoundError:
        raise Refused("nice is not installed on this machine; try: apt install coreutils") from None
    if process.returncode == 127:
        raise Refused(f"{command[0]} is not installed on this machine; try: apt install {command[0]}")
    if process.returncode:
        last = "\n  ".join(said[-8:])
        raise Refused(f"{what}: {command[0]} failed with exit status {process.returncode}:\n  {last}")


def need_root(what: str) -> None:
    """Raises Refused without root."""
    if os.geteuid() != 0:
        raise Refused(f"{what} needs root (mmdebstrap makes devices and files of other users); try it with sudo")


def _mirrors(suite: str, components: Sequence[str]) -> list[str]:
    """This machine's own Debian mirrors, as lines for sources.list; none when it has none, then Debian's."""
    form = "$(ORIGIN)\tdeb $(REPO_URI) $(RELEASE)"
    try:
        lines = subprocess.run(
            ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()
    except FileNotFoundError:
        return []
    found = [line.partition("\t")[2] for line in lines if line.startswith("Debian")]
    return [f"{line} {' '.join(components)}" for line in dict.fromkeys(found) if f" {suite}" in line]
