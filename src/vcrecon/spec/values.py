"""Small values as people write them: sizes, times, ranges, names, addresses. Used all over `spec`.

Every function raises ValueError with a message that says what would be right.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network

RANGE_MAX = 10_000
"""The most values one range may stand for."""

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,3}))? ?(KiB|MiB|GiB|TiB)", re.ASCII)
_AMBIGUOUS = re.compile(r"([0-9.]{1,15}) ?([kmgt])(?:i?b)?", re.IGNORECASE | re.ASCII)
_TIMES_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"([0-9]{1,9})(?:\.[0-9]{1,3})?([smh]?)", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_KERNEL_WORD = re.compile(r"[A-Za-z0-9_.,:=/@%+-]+", re.ASCII)
_LVM = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}", re.ASCII)
_LINK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_NUMBERS = re.compile(r"([0-9]{1,9})-([0-9]{1,9})", re.ASCII)
_LETTERS = re.compile(r"([a-z])-([a-z])", re.ASCII)
LINK_NAME_MAX = 15
"""The longest network interface name that Linux takes (IFNAMSIZ less the final NUL)."""


def shorten(text: str, limit: int = 60) -> str:
    """`text` quoted for a message, cut to `limit` characters."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def escaped(text: str, limit: int = 60) -> str:
    """The same without the quotes: what cannot be printed is written as Python would."""
    return shorten(text, limit)[1:-1]


def size_bytes(text: object) -> int:
    """Bytes in `text`: a plain whole number of bytes, or a number with KiB, MiB, GiB or TiB."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if not isinstance(text, str):
        raise ValueError("expected a size such as 512MiB or 4GiB")
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return int(text)
    match = _SIZE.fullmatch(text)
    if match is None:
        unclear = _AMBIGUOUS.fullmatch(text)
        if unclear is not None:
            better = f"{unclear[1]}{unclear[2].upper()}iB"
            raise ValueError(f"ambiguous size {shorten(text)}: units are KiB, MiB, GiB, TiB; write {better}?")
        raise ValueError(f"expected a size such as 512MiB or 4GiB, found {shorten(text)}")
    fraction = match[2] or ""
    scale: int = 10 ** len(fraction)
    return int(match[1] + fraction) * _UNITS[match[3]] // scale


def seconds(text: object) -> float:
    """Seconds in `text`: `60s`, `5m`, `2h`, or a plain number of seconds."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None or not isinstance(text, str):
        raise ValueError(f"expected a time such as 60s, 5m or 2h, found {shorten(str(text))}")
    return float(text.rstrip("smh")) * _TIMES_S[match[2] or "s"]


def label(text: str, what: str) -> str:
    """`text` when it is a host label as RFC 1123 allows it, in lower case."""
    if _LABEL.fullmatch(text) is None:
        hint = f"; write {text.lower()!r}" if _LABEL.fullmatch(text.lower()) else ""
        raise ValueError(
            f"{what} name {shorten(text)} is not a host label: 1 to 63 of a-z, 0-9 and '-', "
            f"neither first nor last a '-'{hint}"
        )
    return text


def package_name(text: str) -> str:
    """`text` when it can name a Debian package (Debian Policy 5.6.1)."""
    if _PACKAGE.fullmatch(text) is None:
        hint = "; give one package a line" if " " in text.strip() or "," in text else ""
        raise ValueError(f"{shorten(text)} is not the name of a Debian package: a-z, 0-9, '+', '-' and '.'{hint}")
    return text


def kernel_args(text: str) -> str:
    """`text` as words for a kernel's command line that neither iPXE nor the installer takes for its own."""
    for word in text.split():
        if _KERNEL_WORD.fullmatch(word) is None:
            raise ValueError(
                f"{shorten(word)} cannot be a word for the kernel: letters, digits and _ . , : = / @ % + -"
            )
        if word.startswith(("vcrecon.", "initrd=")):
            raise ValueError(f"{shorten(word)} is given by vcrecon itself; leave it out")
    return " ".join(text.split())


def lvm_name(text: str) -> str:
    """`text` when LVM takes it as the name of a volume group or pool (lvm(8), VALID NAMES)."""
    if _LVM.fullmatch(text) is None or text in {".", ".."}:
        raise ValueError(f"{shorten(text)} is not a name that LVM takes: A-Z a-z 0-9 + _ . - and at most 127")
    return text


def link_name(text: str) -> str:
    """`text` when Linux takes it as the name of a network interface."""
    if len(text) > LINK_NAME_MAX:
        raise ValueError(f"interface name {shorten(text)} is too long: Linux allows {LINK_NAME_MAX} characters")
    if _LINK.fullmatch(text) is None:
        raise ValueError(f"{shorten(text)} is not an interface name: letters, digits, '_', '.' and '-' only")
    return text


def mac(text: str) -> str:
    """`text` as a unicast MAC address in lower case."""
    lowered = text.lower()
    if _MAC.fullmatch(lowered) is None:
        raise ValueError(f"{shorten(text)} is not a MAC address such as 52:54:00:12:34:56")
    if int(lowered[:2], 16) & 1:
        raise ValueError(f"{text} is a multicast MAC address: its first byte must be even, such as 52")
    if lowered == "00:00:00:00:00:00":
        raise ValueError("00:00:00:00:00:00 is no MAC address of an interface")
    return lowered


def derived_mac(vlan: int, host_number: int) -> str:
    """The MAC of host `host_number` (counted from the subnet's first address) on `vlan`.

    KVM's customary prefix 52:54:00 leaves 24 bits: 12 for the VLAN and 12 for the host, so two derived
    addresses are equal only when VLAN and host are. Raises ValueError for a host number above 4095.
    """
    if not 0 <= host_number < 4096:
        raise ValueError("no MAC can be derived for a host number above 4095; give a mac")
    tail = vlan << 12 | host_number
    return f"52:54:00:{tail >> 16:02x}:{tail >> 8 & 255:02x}:{tail & 255:02x}"


def ipv4(text: str) -> IPv4Address:
    """`text` as an IPv4 address."""
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError(f"{shorten(text)} is not an IPv4 address such as 10.1.0.11") from None


def subnet(text: str) -> IPv4Network:
    """`text` as an IPv4 network in CIDR form, its host bits zero."""
    address, slash, prefix = text.partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,2}", prefix, re.ASCII):
        raise ValueError(f"{shorten(text)} is not a subnet such as 10.1.0.0/24")
    try:
        loose = IPv4Network((ipv4(address), int(prefix)), strict=False)
    except ValueError:
        raise ValueError(f"{shorten(text)} is not a subnet such as 10.1.0.0/24") from None
    if str(loose.network_address) != address:
        raise ValueError(f"{text} has host bits set; write {loose}")
    return loose


def vlan_id(text: str) -> int:
    """`text` as a VLAN id of IEEE 802.1Q: 1 to 4094."""
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise ValueError(f"{shorten(text)} is not a VLAN id: a whole number from 1 to 4094")
    number = int(text)
    if not 1 <= number <= 4094:
        raise ValueError(f"VLAN id {number} is outside 1..4094")
    return number


def port(text: str) -> int:
    """`text` as a TCP or UDP port: 1 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{shorten(text)} is not a port: a whole number from 1 to 65535")
    return int(text)


def expand_range(text: str) -> list[str]:
    """The values that `text` stands for: `c[01-03]` is c01, c02, c03; `[a-c]` counts letters.

    Several brackets in one text advance in step and must be equally long. Text without brackets stands
    for itself.
    """
    pieces = _BRACKETS.split(text)
    literals, bodies = pieces[::2], pieces[1::2]
    range_length(text)
    if not bodies:
        return [text]
    columns = [_counted(body) for body in bodies]
    expanded = []
    for row in zip(*columns, strict=True):
        tail = "".join(part + literal for part, literal in zip(row, literals[1:], strict=True))
        expanded.append(literals[0] + tail)
    return expanded


def range_length(text: str) -> int:
    """How many values `text` stands for. Cheap: it makes none of them."""
    pieces = _BRACKETS.split(text)
    if any("[" in literal or "]" in literal for literal in pieces[::2]):
        raise ValueError(f"unbalanced bracket in {shorten(text)}; a range is written [01-64]")
    lengths: dict[int, str] = {}  # each with the first that has it
    for body in pieces[1::2]:
        lengths.setdefault(len(_span(body)), body)
    if len(lengths) > 1:
        counts = " and ".join(f"[{body}] has {length}" for length, body in list(lengths.items())[:2])
        raise ValueError(f"the ranges in {shorten(text)} must be equally long: {counts}")
    return next(iter(lengths), 1)


def _span(body: str) -> range:
    """What is between two brackets, as numbers; letters as their codes."""
    letters = _LETTERS.fullmatch(body)
    if letters is not None and letters[1] <= letters[2]:
        return range(ord(letters[1]), ord(letters[2]) + 1)
    numbers = _NUMBERS.fullmatch(body)
    if numbers is None or int(numbers[1]) > int(numbers[2]):
        raise ValueError(f"[{escaped(body, 40)}] is not a range: write first-last, such as [01-64] or [a-z]")
    span = range(int(numbers[1]), int(numbers[2]) + 1)
    if len(span) > RANGE_MAX:
        raise ValueError(f"the range [{body}] has {len(span)} values; at most {RANGE_MAX} are allowed")
    return span


def _counted(body: str) -> list[str]:
    if body[0].isalpha():
        return [chr(code) for code in _span(body)]
    first = body.partition("-")[0]
    width = len(first) if first.startswith("0") else 0
    return [str(number).zfill(width) for number in _span(body)]


def human_bytes(count: int) -> str:
    """`count` bytes in the largest binary unit that keeps it at one or above: 1.5GiB."""
    for unit, factor in reversed(_UNITS.items()):
        if count >= factor:
            return f"{count / factor:.1f}".removesuffix(".0") + unit
    return f"{count} bytes"
