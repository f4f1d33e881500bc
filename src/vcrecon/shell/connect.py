"""Open one verified SSH connection: TCP, then key exchange against the pinned key, then our key only.

Called by `shell.transport`, and by `cli.reach` for a person's own connection. Everything that can go wrong on the
way is told apart here, because the operator's next step differs: a host that is off, one that refuses the key, and
one that is not who it was.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import tenacity

from vcrecon.errors import HostError, Permanent, Unreachable

# At INFO asyncssh logs every command it runs and at DEBUG it formats every packet; we log at our own level.
asyncssh.set_log_level("WARNING")

# GCM is one call into OpenSSL a packet; the other ciphers cost several, and compression costs most.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")
_REKEY_BYTES = 1 << 30
_REKEY_S = 6 * 3600
_RETRIED_KINDS = frozenset({"refused", "connection-lost"})
_GREETING_BYTES = 255


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a host's SSH server is, and as whom to log in. `address` is an IP address or a DNS name."""

    name: str
    address: str
    port: int
    user: str

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.name} ({host}:{self.port})"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for one attempt to connect, between keep-alives; and how many of those may stay unanswered."""

    connect_deadline_s: float
    keepalive_interval_s: float
    keepalive_count: int


class _Client(asyncssh.SSHClient):
    """Remembers the key a host offered instead of the pinned one, for the message."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return False


async def connect(
    endpoint: Endpoint, client_key: Path, pinned_keys: str, limiter: asyncio.Semaphore, patience: Patience
) -> asyncssh.SSHClientConnection:
    """Connect and log in; tries again for a few seconds when a host drops or refuses us in passing.

    `limiter` bounds the logins in progress on the whole site. It is taken only after the host's SSH server
    has said its first word, so hosts that are off or hang never hold a slot that a healthy one could use.

    Raises Permanent (no-host-key, host-key-changed, permission-denied, client-key, key-exchange) or
    Unreachable (dns, refused, no-route, timeout, silent, connection-lost, protocol).
    """
    key = load_client_key(client_key)
    trusted = _trusted_keys(endpoint, pinned_keys)
    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(patience.connect_deadline_s),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=1.0),
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, Unreachable) and error.kind in _RETRIED_KINDS
        ),
        reraise=True,
    )
    return await retrying(_connect_once, endpoint, client_key, key, trusted, limiter, patience)


async def _connect_once(
    endpoint: Endpoint,
    key_path: Path,
    key: asyncssh.SSHKey,
    trusted: tuple[list[asyncssh.SSHKey], ...],
    limiter: asyncio.Semaphore,
    patience: Patience,
) -> asyncssh.SSHClientConnection:
    deadline_s = patience.connect_deadline_s
    sock = await _open_socket(endpoint, deadline_s)
    handed_over = False
    try:
        greeting = await _first_words(endpoint, sock, deadline_s)
        async with limiter:
            handed_over = True  # asyncssh closes it from here on
            return await _log_in(endpoint, sock, greeting, key_path, key, trusted, patience)
    finally:
        if not handed_over:
            sock.close()


async def _open_socket(endpoint: Endpoint, deadline_s: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadline_s) as timer:
            for family, address in await _resolve(endpoint):
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, address)
                except BaseException as error:
                    sock.close()
                    if not isinstance(error, OSError):
                        raise
                    last = error
                else:
                    return sock
            raise last
    except OSError as error:  # TimeoutError is one, ours and the kernel's
        if timer.expired():
            raise Unreachable(
                f"{endpoint}: no answer within {deadline_s:g} s; is it powered on and cabled?", kind="timeout"
            ) from None
        raise _socket_error(endpoint, error) from error


async def _resolve(endpoint: Endpoint) -> list[tuple[int, tuple[str, int]]]:
    try:
        version = ipaddress.ip_address(endpoint.address).version
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)
        return [(family, (str(address[0]), endpoint.port)) for family, _, _, _, address in found]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return [(family, (endpoint.address, endpoint.port))]


def _set(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _socket_error(endpoint: Endpoint, error: OSError) -> Unreachable:
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f"{endpoint}: the name does not resolve ({error.strerror}); check `address` in the spec, or DNS",
            kind="dns",
        )
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(
            f"{endpoint}: connection refused; the host is up but no SSH server listens there", kind="refused"
        )
    if isinstance(error, TimeoutError):
        return Unreachable(f"{endpoint}: no answer ({error.strerror})", kind="timeout")
    if isinstance(error, ConnectionError):
        return Unreachable(f"{endpoint}: {error.strerror or error}", kind="connection-lost")
    return Unreachable(f"{endpoint}: {error.strerror or error}", kind="no-route")


async def _first_words(endpoint: Endpoint, sock: socket.socket, deadline_s: float) -> bytes:
    """Wait until the server has spoken and return what it said, leaving it in the socket."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _set, readable)
    try:
        async with asyncio.timeout(deadline_s):
            await readable
        greeting = sock.recv(_GREETING_BYTES, socket.MSG_PEEK)
    except TimeoutError:
        raise Unreachable(
            f"{endpoint}: accepts connections but says nothing within {deadline_s:g} s; its SSH server hangs",
            kind="silent",
        ) from None
    except OSError as error:
        raise _socket_error(endpoint, error) from error
    finally:
        loop.remove_reader(sock)
    if not greeting:
        raise Unreachable(
            f"{endpoint}: closed the connection at once; its SSH server is starting, stopping or full (MaxStartups)",
            kind="connection-lost",
        )
    return greeting


async def _log_in(
    endpoint: Endpoint,
    sock: socket.socket,
    greeting: bytes,
    key_path: Path,
    key: asyncssh.SSHKey,
    trusted: tuple[list[asyncssh.SSHKey], ...],
    patience: Patience,
) -> asyncssh.SSHClientConnection:
    client = _Client()
    try:
        async with asyncio.timeout(patience.connect_deadline_s):
            return await asyncssh.connect(
                endpoint.address,
                endpoint.port,
                sock=sock,
                client_factory=lambda: client,
                username=endpoint.user,
                client_keys=[key],
                known_hosts=trusted,
                keepalive_interval=patience.keepalive_interval_s,
                keepalive_count_max=patience.keepalive_count,
                # Only what was given: no ~/.ssh, no agent, nothing but the key.
                config=None,
                agent_path=None,
                agent_forwarding=False,
                preferred_auth=["publickey"],
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                x509_trusted_certs=None,
                x509_trusted_cert_paths=[],
                connect_timeout=None,
                encryption_algs=_CIPHERS,
                compression_algs=["none"],
                rekey_bytes=_REKEY_BYTES,
                rekey_seconds=_REKEY_S,
            )
    except TimeoutError:
        raise Unreachable(
            f"{endpoint}: the SSH login did not finish within {patience.connect_deadline_s:g} s",
            kind="silent",
        ) from None
    except Exception as error:
        raise _login_error(endpoint, greeting, key_path, client.offered, trusted, error) from error


def _login_error(
    endpoint: Endpoint,
    greeting: bytes,
    key_path: Path,
    offered: asyncssh.SSHKey | None,
    trusted: tuple[list[asyncssh.SSHKey], ...],
    error: Exception,
) -> HostError:
    """Translate what asyncssh raised during a login."""
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return _changed_host_key(endpoint, offered, trusted[0], str(error))
        case asyncssh.PermissionDenied():
            return Permanent(
                f"{endpoint}: refuses user {endpoint.user} with key {key_path}; add the line of "
                f"{key_path}.pub to that user's ~/.ssh/authorized_keys on the host",
                kind="permission-denied",
            )
        case asyncssh.KeyExchangeFailed() if "host key" in str(error):
            return _changed_host_key(endpoint, None, trusted[0], str(error))
        case asyncssh.KeyExchangeFailed():
            return Permanent(
                f"{endpoint}: no common SSH algorithms ({error}); its SSH server is too old or too strict",
                kind="key-exchange",
            )
    if b"SSH-" not in greeting:
        return Unreachable(
            f"{endpoint}: answers {greeting[:40]!r}, which is not SSH; check `port` in the spec",
            kind="protocol",
        )
    match error:
        case asyncssh.ConnectionLost() | OSError():
            return Unreachable(f"{endpoint}: the connection was lost during login ({error})", kind="connection-lost")
    return Unreachable(
        f"{endpoint}: broke the SSH protocol during login ({type(error).__name__}: {error})", kind="protocol"
    )


def _changed_host_key(
    endpoint: Endpoint, offered: asyncssh.SSHKey | None, pinned: list[asyncssh.SSHKey], detail: str
) -> Permanent:
    now = f"offers {_fingerprint(offered)}" if offered else f"offers no key of the pinned kind ({detail})"
    was = ", ".join(_fingerprint(key) for key in pinned)
    return Permanent(
        f"{endpoint}: the host key changed: it {now}, pinned is {was}. Somebody reinstalled the host, or "
        "another machine answers at its address. Find out which; only when the new key is right, replace "
        f"the host's lines in the known_hosts file that site.yaml names (`{_scan(endpoint)}`)",
        kind="host-key-changed",
    )


def _trusted_keys(endpoint: Endpoint, pinned_keys: str) -> tuple[list[asyncssh.SSHKey], ...]:
    """The (trusted, authorities, revoked) keys pinned for a host under its address or its name."""
    known_hosts = _parse_known_hosts(pinned_keys)
    port = None if endpoint.port == 22 else endpoint.port
    try:
        address = str(ipaddress.ip_address(endpoint.address))
    except ValueError:
        address = ""
    found: tuple[list[asyncssh.SSHKey], ...] = ([], [], [])
    for host in (endpoint.address, endpoint.name):
        for keys, more in zip(found, known_hosts.match(host, address, port)[:3], strict=True):
            keys.extend(key for key in more if key not in keys)
    if not (found[0] or found[1]):
        raise Permanent(
            f"{endpoint}: no host key is pinned for it, so it cannot be trusted. Run `{_scan(endpoint)}`, "
            "compare the fingerprint with the one on the host's console, and add the line to the known_hosts "
            "file that site.yaml names",
            kind="no-host-key",
        )
    return found


@functools.lru_cache(maxsize=4)
def _parse_known_hosts(content: str) -> asyncssh.SSHKnownHosts:
    try:
        return asyncssh.import_known_hosts(content)
    except ValueError as error:
        raise Permanent(f"the known_hosts file cannot be read: {error}", kind="no-host-key") from error


def load_client_key(path: Path) -> asyncssh.SSHKey:
    """Read a private key without a passphrase. Raises Permanent(kind="client-key") saying what is wrong."""
    try:
        status = path.stat()
        return _read_key(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise Permanent(
            f"the SSH key {path} cannot be read ({error.strerror}); check `ssh.key` in site.yaml",
            kind="client-key",
        ) from error
    except asyncssh.KeyEncryptionError as error:
        raise _key_needs_passphrase(path) from error
    except asyncssh.KeyImportError as error:
        if "assphrase" in str(error):
            raise _key_needs_passphrase(path) from error
        raise Permanent(
            f"{path} is not an SSH private key ({error}); make one with "
            f"`ssh-keygen -t ed25519 -N '' -f {path.name}` and name it as `ssh.key` in site.yaml",
            kind="client-key",
        ) from error


@functools.lru_cache(maxsize=4)
def _read_key(path: Path, _mtime_ns: int, _size: int) -> asyncssh.SSHKey:
    """The file's time and size are part of the cache's key, so that a replaced key counts at once."""
    return asyncssh.read_private_key(path)


def _key_needs_passphrase(path: Path) -> Permanent:
    return Permanent(
        f"the SSH key {path} is protected by a passphrase, which a service cannot type; make a key "
        f"for vcrecon alone, without one (`ssh-keygen -t ed25519 -N '' -f FILE`), and name it in site.yaml",
        kind="client-key",
    )


def _fingerprint(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def _scan(endpoint: Endpoint) -> str:
    return f"ssh-keyscan -p {endpoint.port} {endpoint.address}"
