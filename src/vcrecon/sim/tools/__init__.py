"""The programs of a simulated host, by name. `sim.shell` starts them; each answers as Debian 12's does."""

from __future__ import annotations

from vcrecon.sim.process import Tool
from vcrecon.sim.tools import curl, files, iproute, lvm, mounts, nft, ping, streams, system, text, virsh, xl

TOOLS: dict[str, Tool] = {
    name: tool
    for module in (text, files, system, lvm, mounts, streams, curl, iproute, ping, nft, virsh, xl)
    for name, tool in module.TOOLS.items()
}
"""Every program but those that start other programs (sh, flock, env, timeout, xargs, nohup)."""
