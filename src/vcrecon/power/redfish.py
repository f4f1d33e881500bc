"""Power by Redfish, the HTTP interface of servers' management controllers, through the library sushy.

Made by `power.power_switch`. sushy blocks, so each question runs in a daemon thread of its own: a controller that
hangs holds neither the event loop, nor the shared thread pool, nor the end of the process up. Each question is a
fresh visit with basic authentication over verified TLS: no session is left behind on a controller that has few.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import sushy
from sushy import auth, connector, exceptions

from vcrecon.errors import HostError, Permanent, Transient, Unreachable
from vcrecon.power.login import Login, read_login
from vcrecon.power.switch import Patience, PowerState, VerifiedSwitch, words
from vcrecon.spec.model import Power

# It logs what it raises as well, and at DEBUG whole requests; what matters is in our own errors.
logging.getLogger("sushy").setLevel(logging.CRITICAL)

_T = TypeVar("_T")
_ROOT = "/redfish/v1"
_BUSY = frozenset({409, 412, 423, 429})
"""HTTP answers of a controller that is at something else."""
_GARBAGE = (exceptions.SushyError, ValueError, TypeError, AttributeError, LookupError)
"""What sushy raises on answers that are not Redfish."""


class RedfishSwitch(VerifiedSwitch):
    def __init__(self, power: Power, name: str, *, patience: Patience) -> None:
        super().__init__(f"{name}: its power controller", patience)
        self._power = power

    async def state(self) -> PowerState:
        return await self._ask(_state)

    async def _press(self, wanted: Literal["on", "off"]) -> None:
        await self._ask(_switch_on if wanted == "on" else _switch_off)

    async def netboot_once(self) -> None:
        if not await self._ask(_set_netboot):
            raise Transient(
                f"{self.title} took the order to boot from the network, but does not show it afterwards; "
                "set the boot order by hand: network first",
                delay_s=30.0,
                kind="power-no-effect",
            )

    async def _ask(self, question: Callable[[Any], _T]) -> _T:
        """Put `question`, a function of a `sushy` System, in a thread. Raises HostError."""
        service, path = _parts(self._power.address, self.title)
        login = read_login(self._power.credentials, self.title)
        trusted = self._trusted()

        def visit() -> _T:
            try:
                with _service(service, login, trusted, self._patience) as root:
                    return question(root.get_system(path or _only_system(root)))
            except _GARBAGE as error:
                # `from None`: the chain below holds requests, and these the password.
                raise self._meaning(error, service) from None

        try:
            async with asyncio.timeout(self._patience.answer_s):
                return await _in_thread(visit)
        except TimeoutError:
            raise Unreachable(
                f"{self.title} at {service} did not finish its answer within {self._patience.answer_s:g} s; "
                "if it goes on, reset the power controller",
                kind="power-unreachable",
            ) from None

    def _trusted(self) -> str | bool:
        if self._power.ca is not None:
            if not self._power.ca.is_file():
                raise Permanent(
                    f"{self.title}: no certificate in {self._power.ca}; put the one there that its power controller "
                    "is trusted by, or correct power.ca",
                    kind="power-certificate",
                )
            return str(self._power.ca)
        # The library would take a list of its own; people install theirs in the system.
        system = ssl.get_default_verify_paths()
        return system.cafile or system.capath or True

    def _meaning(self, error: Exception, service: str) -> HostError:
        """The error of ours that says what went wrong, and what to type."""
        where = f"{self.title} at {service}"
        match error:
            case exceptions.ConnectionError() if type(error.__context__).__name__ == "SSLError":
                return Permanent(
                    f"{where} cannot be trusted: {words(error.__context__)}; name its certificate under power.ca",
                    kind="power-certificate",
                )
            case exceptions.ConnectionError():
                return Unreachable(
                    f"{where} does not answer; is it powered and cabled, and is power.address right?",
                    kind="power-unreachable",
                )
            case exceptions.AccessError():
                return Permanent(
                    f"{where} does not take user and password of {self._power.credentials}, or they may not do this; "
                    "correct the file, or the user's role there",
                    kind="power-credentials",
                )
            case exceptions.UnknownDefaultError() | exceptions.ResourceNotFoundError():
                return Permanent(
                    f"{where} has no such system, or more than one; give the system's path in power.address, as in "
                    f"{service}{_ROOT}/Systems/1",
                    kind="power-address",
                )
            case exceptions.HTTPError(status_code=status) if 400 <= status < 500 and status not in _BUSY:
                return self._refusal(where, error)
            case exceptions.InvalidParameterValueError() | exceptions.MissingActionError():
                return self._refusal(where, error)
        return Transient(f"{where} is faulty or busy: {words(error)}", delay_s=15.0, kind="power-faulty")

    def _refusal(self, where: str, error: Exception) -> Permanent:
        return Permanent(f"{where} refuses: {words(error)}; do it by hand there", kind="power-refused")


def _parts(address: str, title: str) -> tuple[str, str | None]:
    """Scheme and host of the service, and the system's path where one is given. Raises Permanent (power-address)."""
    try:
        url = urlsplit(address)
        plain = url.scheme == "http" and _is_loopback(url.hostname or "")
        usable = bool(url.hostname) and (url.scheme == "https" or plain) and url.username is None
        service = f"{url.scheme}://{url.netloc}"
    except ValueError:
        usable = False
    if not usable:
        # The address itself is not shown: somebody may have put a password into it.
        raise Permanent(
            f"{title}: power.address is not https://HOST or https://HOST/redfish/v1/Systems/NAME; correct it, and "
            "keep user and password in the file under power.credentials",
            kind="power-address",
        )
    path = url.path.rstrip("/")
    return service, path if path not in {"", "/redfish", _ROOT} else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def _service(url: str, login: Login, trusted: str | bool, patience: Patience) -> Iterator[Any]:
    """The service's root, for one visit."""
    # One attempt: sushy repeats a lost request by itself otherwise, orders included.
    line = connector.Connector(
        url,
        verify=trusted,
        server_side_retries=1,
        server_side_retries_delay=1,
        default_request_timeout=patience.answer_s,
        connect_timeout=patience.connect_s,
    )
    # No proxy and no .netrc out of the environment: a power controller is near, and its password is not theirs.
    line._session.trust_env = False
    try:
        yield sushy.Sushy(url, auth=auth.BasicAuth(login.user, login.password), connector=line)
    finally:
        line.close()


def _only_system(root: Any) -> str:
    """The path of the service's one system. sushy's own default would load it twice, and others as well."""
    paths: tuple[str, ...] = root.get_system_collection().members_identities
    if len(paths) != 1:
        raise exceptions.UnknownDefaultError(entity="ComputerSystem", error=f"there are {len(paths)}")
    return paths[0]


def _state(system: Any) -> PowerState:
    match system.power_state:
        case sushy.PowerState.ON:
            return "on"
        case sushy.PowerState.OFF:
            return "off"
    return "unknown"


def _switch_on(system: Any) -> None:
    allowed = system.get_allowed_reset_system_values()
    system.reset_system(sushy.ResetType.ON if sushy.ResetType.ON in allowed else sushy.ResetType.FORCE_ON)


def _switch_off(system: Any) -> None:
    # Never the graceful one: a system that hangs ignores it, and the controller says "done".
    system.reset_system(sushy.ResetType.FORCE_OFF)


def _set_netboot(system: Any) -> bool:
    """Ask for one boot from the network. Whether the service shows it afterwards, now or for the next boot."""
    system.set_system_boot_options(target=sushy.BootSource.PXE, enabled=sushy.BootSourceOverrideEnabled.ONCE)
    system.refresh(force=True)
    shown = [system.json]
    pending = system.json.get("@Redfish.Settings", {}).get("SettingsObject", {}).get("@odata.id")
    if pending:
        shown.append(system._conn.get(pending).json())
    return any(_netboots(document.get("Boot") or {}) for document in shown)


def _netboots(boot: dict[str, Any]) -> bool:
    return boot.get("BootSourceOverrideTarget") == "Pxe" and boot.get("BootSourceOverrideEnabled") != "Disabled"


async def _in_thread(call: Callable[[], _T]) -> _T:
    """The answer of a blocking `call`, from a daemon thread; one that is given up ends by its own time limits."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="redfish", daemon=True).start()
    return await answer
