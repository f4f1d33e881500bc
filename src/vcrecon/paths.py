"""Where vcrecon keeps its files: the state directory of a site, and the control socket in it.

Called by `cli` for every command, and by `service` for the socket. Looks at paths and sockets only; makes
nothing.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from vcrecon.errors import Refused

SOCKET_NAME = "control.sock"
# sockaddr_un(7): 108 bytes, the last of them zero.
SOCKET_PATH_BYTES_MAX = 107
_PROBE_TIMEOUT_S = 2.0


def state_root(environ: Mapping[str, str] = os.environ, user_id: int | None = None) -> Path:
    """The directory that holds one state directory a site: /var/lib/vcrecon for root, else under XDG's.

    A relative XDG_STATE_HOME is ignored, as the XDG base directory specification asks.
    """
    if (os.geteuid() if user_id is None else user_id) == 0:
        return Path("/var/lib/vcrecon")
    configured = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(configured):
        return Path(configured) / "vcrecon"
    home = environ.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".local" / "state" / "vcrecon"


def state_directory(site: str, root: Path | None = None) -> Path:
    """The state directory of the site called `site`, below `root` or the user's default root."""
    return (state_root() if root is None else root) / site


def socket_path(state: Path) -> Path:
    """The control socket of the service whose state directory is `state`.

    Raises Refused when the path is longer than the kernel takes (107 bytes).
    """
    path = state.absolute() / SOCKET_NAME
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        raise Refused(
            f"{path}: a socket's path may have {SOCKET_PATH_BYTES_MAX} bytes and this one has {length}; "
            "choose a shorter state directory with --state"
        )
    return path


def live_sockets(root: Path) -> list[Path]:
    """The control sockets one level below `root` behind which a service answers, by name."""
    try:
        found = sorted(root.glob(f"*/{SOCKET_NAME}"))
    except OSError:
        return []
    return [path for path in found if listener_pid(path) is not None]


def listener_pid(path: Path) -> int | None:
    """The process that listens on the Unix socket `path` (0 when it cannot be told); None when nobody does.

    Raises Refused when the socket is somebody else's.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            raise Refused(
                f"{path}: this socket belongs to another user; run the command as the user that runs "
                "the service (often: with sudo)"
            ) from None
        except OSError:
            # A full backlog or a slow process: somebody is there.
            return 0
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)
