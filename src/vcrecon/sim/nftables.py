"""The nftables ruleset of a simulated host: enough of nft 1.0.6's language to store, list and refuse rules.

State and rules only; `sim.tools.nft` reads options and prints. A batch is applied to a copy and swapped
in whole, as the kernel does: one bad line changes nothing.
"""

from __future__ import annotations

import copy
import ipaddress
import itertools
import re
from dataclasses import dataclass, field

from vcrecon.sim.nft_ranges import merged

TOKEN = re.compile(r'"[^"\n]*"|[{};,\n]|[^\s{};,"]+')
FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
COMMANDS = (
    "table",
    "add",
    "create",
    "delete",
    "flush",
    "list",
    "insert",
    "replace",
    "rename",
    "reset",
    "define",
)
SET_KINDS = ("set", "map", "counter", "flowtable", "quota", "limit", "secmark", "synproxy")
RULE_WORDS = frozenset(
    [
        "ip",
        "ip6",
        "ether",
        "tcp",
        "udp",
        "udplite",
        "sctp",
        "dccp",
        "icmp",
        "icmpv6",
        "igmp",
        "ah",
        "esp",
        "comp",
        "arp",
        "vlan",
        "ct",
        "meta",
        "iif",
        "iifname",
        "oif",
        "oifname",
        "ibrname",
        "obrname",
        "iiftype",
        "oiftype",
        "iifgroup",
        "oifgroup",
        "mark",
        "skuid",
        "skgid",
        "nfproto",
        "l4proto",
        "protocol",
        "pkttype",
        "cpu",
        "counter",
        "accept",
        "drop",
        "reject",
        "return",
        "jump",
        "goto",
        "continue",
        "limit",
        "log",
        "masquerade",
        "snat",
        "dnat",
        "redirect",
        "queue",
        "notrack",
        "set",
        "add",
        "update",
        "delete",
        "th",
        "rt",
        "socket",
        "fib",
        "numgen",
        "jhash",
        "symhash",
        "tproxy",
        "dup",
        "fwd",
        "flow",
        "quota",
        "exthdr",
        "hbh",
        "frag",
        "dst",
        "type",
        "@",
        "synproxy",
        "xt",
        "osf",
        "tcp",
        "rtclassid",
        "priority",
    ]
)
VERDICTS = ("accept", "drop", "return", "continue")
PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
BRIDGE_PRIORITIES = {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}
CT_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
PER_LINE = {"ipv4_addr": 2, "ipv6_addr": 2, "inet_service": 5, "mark": 5, "inet_proto": 5, "icmp_type": 5}
INDENT = ",\n\t\t\t     "


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    line: int
    column: int


class NftError(Exception):
    """A refused batch. `token` is where; the message is what nft writes after `Error: `."""

    def __init__(self, message: str, token: Token | None = None) -> None:
        super().__init__(message)
        self.token = token


@dataclass
class SetObject:
    """A named set or map (or a counter and the like): its properties and its elements, in nft's order."""

    kind: str
    properties: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)

    @property
    def type_text(self) -> str:
        """What follows `type`: one type, a concatenation, or `key : value` of a map."""
        return next((p.partition(" ")[2] for p in self.properties if p.startswith("type")), "")

    @property
    def type(self) -> str:
        return self.type_text.split(" ")[0]


@dataclass
class Chain:
    """`base` is the normalised `type … hook …` line of a base chain; rules are normalised text."""

    base: str = ""
    properties: list[str] = field(default_factory=list)
    rules: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class Table:
    family: str
    name: str
    handle: int
    properties: list[str] = field(default_factory=list)
    sets: dict[str, SetObject] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    next_handle: int = 1

    def text(self, *, stateless: bool = True) -> str:
        """The table as `nft list table` prints it."""
        lines = [f"table {self.family} {self.name} {{"]
        lines += [f"\t{line}" for line in self.properties]
        blocks: list[list[str]] = []
        for name, item in self.sets.items():
            block = [f"\t{item.kind} {name} {{", *(f"\t\t{line}" for line in item.properties)]
            if item.elements:
                block.append(f"\t\telements = {{ {join_elements(item)} }}")
            blocks.append([*block, "\t}"])
        for name, chain in self.chains.items():
            block = [f"\tchain {name} {{", *(f"\t\t{line}" for line in chain.properties)]
            block += [f"\t\t{chain.base}"] if chain.base else []
            for _, rule in chain.rules:
                block.append("\t\t" + (rule if stateless else with_counters(rule)))
            blocks.append([*block, "\t}"])
        for index, block in enumerate(blocks):
            lines += ([""] if index else []) + block
        return "\n".join([*lines, "}"]) + "\n"


def with_counters(rule: str) -> str:
    return re.sub(r"\bcounter\b(?! packets| name)", "counter packets 0 bytes 0", rule)


def join_elements(item: SetObject) -> str:
    per_line = PER_LINE.get(item.type.rstrip(":"), 1)
    rows = [", ".join(item.elements[index : index + per_line]) for index in range(0, len(item.elements), per_line)]
    return INDENT.join(rows)


def element_key(text: str) -> tuple[int, int, str]:
    """nft keeps elements in the order of their value."""
    first = text.split(" : ")[0].split(" . ")[0].strip()
    if first in CT_STATES:
        return (0, CT_STATES[first], "")
    try:
        return (1, int(first.split("-")[0]), "")
    except ValueError:
        pass
    try:
        return (2, int(ipaddress.ip_interface(first.split("-")[0]).ip), "")
    except ValueError:
        return (3, 0, text)


class Ruleset:
    """All tables of a host. `apply` raises NftError and then has changed nothing."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], Table] = {}
        self._next_handle = 1

    def clear(self) -> None:
        self.tables.clear()

    def apply(self, text: str, *, check: bool = False) -> None:
        """Run one batch of commands. With `check` nothing is kept."""
        batch = Batch(copy.deepcopy(self.tables), self._next_handle)
        batch.run(text)
        if not check:
            self.tables, self._next_handle = batch.tables, batch.next_handle

    def find(self, family: str, name: str) -> Table | None:
        return self.tables.get((family, name))


class Batch:
    """One parse-and-apply run over a copy of the tables."""

    def __init__(self, tables: dict[tuple[str, str], Table], next_handle: int) -> None:
        self.tables = tables
        self.next_handle = next_handle
        self._tokens: list[Token] = []
        self._position = 0
        self._defines: dict[str, str] = {}
        self._references: list[tuple[Table, str, Token]] = []

    # -- tokens -------------------------------------------------------------------------------------

    def run(self, text: str) -> None:
        self._tokens = self._scan(text)
        while self._peek().text:
            if self._peek().text in ("\n", ";"):
                self._next()
                continue
            self._command()
        for table, name, token in self._references:
            known: dict[str, object] = {**table.chains} if not name.startswith("@") else {**table.sets}
            if name.lstrip("@") not in known:
                raise NftError("No such file or directory", token)

    @staticmethod
    def _scan(text: str) -> list[Token]:
        tokens = []
        lines = text.replace("\\\n", "  ").split("\n")
        for number, line in enumerate(lines, 1):
            bare = re.sub(r'("[^"]*")|#.*', lambda m: m.group(1) or "", line)
            tokens += [Token(m.group(), number, m.start() + 1) for m in TOKEN.finditer(bare)]
            if number < len(lines):
                tokens.append(Token("\n", number, len(line) + 1))
        return [*tokens, Token("", len(lines), 1)]

    def _peek(self) -> Token:
        return self._tokens[self._position]

    def _next(self) -> Token:
        token = self._tokens[self._position]
        if token.text:
            self._position += 1
        return token

    @staticmethod
    def _unexpected(token: Token, expecting: str = "") -> NftError:
        names = {"": "end of file", "\n": "newline", ";": "semicolon"}
        shown = names.get(token.text)
        if shown is None:
            word = token.text in VERDICTS or token.text in COMMANDS
            shown = f"'{token.text}'" if token.text in "{},;" else token.text if word else "string"
        tail = f", expecting {expecting}" if expecting else ""
        return NftError(f"syntax error, unexpected {shown}{tail}", token)

    def _expect(self, text: str) -> Token:
        token = self._next()
        if token.text != text:
            raise self._unexpected(token)
        return token

    def _word(self) -> Token:
        token = self._next()
        if not token.text or token.text in "{};,\n":
            raise self._unexpected(token, "string")
        return token

    def _end_of_statement(self) -> None:
        token = self._peek()
        if token.text not in ("\n", ";", ""):
            raise self._unexpected(token, "newline or semicolon")
        self._next()

    def _skip_blank(self) -> None:
        while self._peek().text in ("\n", ";"):
            self._next()

    # -- commands -----------------------------------------------------------------------------------

    def _command(self) -> None:
        word = self._next()
        if word.text in "{};,":
            raise self._unexpected(word)
        if word.text == "table":
            self._table()
        elif word.text == "define":
            name = self._word().text
            self._expect("=")
            self._defines[name] = self._join(self._statement())
        elif word.text in ("add", "create", "insert"):
            self._add(self._word(), create=word.text == "create")
        elif word.text == "delete":
            self._delete(self._word())
        elif word.text == "flush":
            self._flush(self._word())
        else:
            # nft takes an unknown word for the table of a rule, the next for its chain.
            if word.text not in FAMILIES and self._peek().text not in ("\n", ";", ""):
                self._next()
            raise self._unexpected(self._peek())
        if self._peek().text not in ("\n", ";", ""):
            raise self._unexpected(self._peek(), "end of file or newline or semicolon")

    def _family(self) -> str:
        return self._next().text if self._peek().text in FAMILIES else "ip"

    def _existing(self) -> Table:
        family = self._family()
        token = self._word()
        table = self.tables.get((family, token.text))
        if table is None:
            raise NftError("Could not process rule: No such file or directory", token)
        return table

    def _make_table(self, family: str, name: str) -> Table:
        table = self.tables.get((family, name))
        if table is None:
            table = self.tables[family, name] = Table(family, name, self.next_handle)
            self.next_handle += 1
        return table

    def _table(self) -> None:
        family = self._family()
        table = self._make_table(family, self._word().text)
        if self._peek().text == "{":
            self._next()
            self._table_body(table)

    def _table_body(self, table: Table) -> None:
        while True:
            self._skip_blank()
            token = self._next()
            if token.text == "}":
                return
            if token.text == "chain":
                name = self._word().text
                self._expect("{")
                self._chain_body(table, table.chains.setdefault(name, Chain()))
            elif token.text in SET_KINDS:
                name = self._word().text
                self._expect("{")
                self._set_body(table.sets.setdefault(name, SetObject(token.text)))
            elif token.text in ("comment", "flags"):
                line = f"{token.text} {self._join(self._statement())}"
                if line not in table.properties:
                    table.properties.append(line)
            else:
                raise self._unexpected(token)

    def _chain_body(self, table: Table, chain: Chain) -> None:
        while True:
            self._skip_blank()
            token = self._peek()
            if token.text == "}":
                self._next()
                return
            if token.text == "type":
                chain.base = self._base(table.family)
            elif token.text == "policy":
                self._next()
                chain.base = re.sub(r"policy \w+", f"policy {self._word().text}", chain.base)
                self._end_of_statement()
            elif token.text == "comment":
                chain.properties.append(self._join(self._statement()))
            else:
                self._rule(table, chain, self._statement())

    def _base(self, family: str) -> str:
        words = self._statement()
        text = self._join(words)
        match = re.fullmatch(r'type (\w+) hook (\w+) (?:device "?(\S+?)"? )?priority (-?\w+)(?: ([-+]) (\d+))?', text)
        if match is None:
            raise self._unexpected(words[1] if len(words) > 1 else words[0])
        kind, hook, device, priority, sign, offset = match.groups()
        names = BRIDGE_PRIORITIES if family == "bridge" else PRIORITIES
        if priority.lstrip("-").isdigit():
            base = int(priority)
        elif priority in names:
            base = names[priority]
        else:
            raise NftError(f"'{priority}' is invalid priority in this context.", words[-1])
        value = base + int(f"{sign or '+'}{offset or 0}")
        shown = priority_text(value, family)
        policy = "accept"
        while self._peek().text in (";", "\n"):
            # `policy` may follow on the same line; it belongs to the base line either way.
            after = min(self._position + 1, len(self._tokens) - 1)
            if self._peek().text == "\n" or self._tokens[after].text != "policy":
                break
            self._next()
        if self._peek().text == "policy":
            self._next()
            policy = self._word().text
            self._end_of_statement()
        where = f'device "{device}" ' if device else ""
        return f"type {kind} hook {hook} {where}priority {shown}; policy {policy};"

    def _set_body(self, item: SetObject) -> None:
        while True:
            self._skip_blank()
            token = self._peek()
            if token.text == "}":
                self._next()
                return
            if token.text == "elements":
                self._next()
                self._expect("=")
                self._elements(item)
                self._end_of_statement()
            elif token.text in (
                "type",
                "typeof",
                "flags",
                "timeout",
                "comment",
                "size",
                "policy",
                "auto-merge",
                "packets",
                "hook",
                "devices",
                "gc-interval",
                "counter",
                "over",
            ):
                line = self._join(self._statement())
                if line not in item.properties:
                    item.properties.append(line)
            else:
                raise self._unexpected(token)

    def _elements(self, item: SetObject, *, remove: bool = False) -> None:
        self._expect("{")
        current: list[Token] = []
        found: list[str] = []
        while True:
            token = self._next()
            if token.text == "":
                raise self._unexpected(token)
            if token.text in (",", "}"):
                if current:
                    found.append(self._join(current))
                current = []
                if token.text == "}":
                    break
            elif token.text != "\n":
                current.append(token)
        if remove:
            item.elements = [e for e in item.elements if e not in found]
            return
        if item.type.startswith("ifname"):
            found = [text if text.startswith('"') else re.sub(r"^\S+", r'"\g<0>"', text) for text in found]
        item.elements = sorted({*item.elements, *found}, key=element_key)

    # -- rules --------------------------------------------------------------------------------------

    def _statement(self) -> list[Token]:
        """Tokens to the end of the statement; braces inside it are anonymous sets."""
        words: list[Token] = []
        depth = 0
        while True:
            token = self._peek()
            if token.text == "" and depth:
                raise self._unexpected(token)
            if depth == 0 and token.text in ("\n", ";", ""):
                return words
            if token.text == "}" and depth == 0:
                raise self._unexpected(token, "newline or semicolon")
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            self._next()
            if token.text != "\n":
                words.append(token)

    def _join(self, words: list[Token]) -> str:
        """Tokens as nft prints them: one space between, none around commas outside braces."""
        out = ""
        depth = 0
        for token in words:
            text = token.text
            if text.startswith("$"):
                if text[1:] not in self._defines:
                    raise NftError(f"unknown identifier '{text[1:]}'", token)
                text = self._defines[text[1:]]
            depth += {"{": 1, "}": -1}.get(text, 0)
            if text == ",":
                out += ", " if depth else ","
            else:
                out += text if not out or out.endswith((" ", ",")) else f" {text}"
        return out

    def _rule(self, table: Table, chain: Chain, words: list[Token]) -> None:
        if not words:
            raise self._unexpected(self._peek())
        first = words[0]
        if first.text.lower() not in RULE_WORDS and not first.text.startswith("@"):
            raise self._unexpected(words[1] if len(words) > 1 else self._peek())
        for before, token in itertools.pairwise(words):
            if before.text in ("jump", "goto") or token.text.startswith("@"):
                self._references.append((table, token.text, token))
        table.next_handle += 1
        chain.rules.append((table.next_handle, normal_rule(self._join(words))))

    def _add(self, kind: Token, *, create: bool) -> None:
        if kind.text == "table":
            family, name = self._family(), self._word()
            if create and (family, name.text) in self.tables:
                raise NftError("Could not process rule: File exists", name)
            self._position -= 1
            table = self._make_table(family, self._word().text)
            if self._peek().text == "{":
                self._next()
                self._table_body(table)
            return
        table = self._existing()
        name = self._word()
        if kind.text == "chain":
            chain = table.chains.setdefault(name.text, Chain())
            if self._peek().text == "{":
                self._next()
                self._chain_body(table, chain)
        elif kind.text in SET_KINDS:
            item = table.sets.setdefault(name.text, SetObject(kind.text))
            if self._peek().text == "{":
                self._next()
                self._set_body(item)
        elif kind.text == "element":
            if name.text not in table.sets:
                raise NftError("Could not process rule: No such file or directory", name)
            self._elements(table.sets[name.text])
        elif kind.text == "rule":
            if name.text not in table.chains:
                raise NftError("Could not process rule: No such file or directory", name)
            self._rule(table, table.chains[name.text], self._statement())
        else:
            raise self._unexpected(kind)

    def _delete(self, kind: Token) -> None:
        table = self._existing()
        if kind.text == "table":
            del self.tables[table.family, table.name]
            return
        name = self._word()
        if kind.text == "element" and name.text in table.sets:
            self._elements(table.sets[name.text], remove=True)
            return
        owner: dict[str, Chain] | dict[str, SetObject] = table.chains if kind.text == "chain" else table.sets
        if kind.text not in ("chain", "element", *SET_KINDS):
            raise self._unexpected(kind)
        if name.text not in owner:
            raise NftError("Could not process rule: No such file or directory", name)
        del owner[name.text]

    def _flush(self, kind: Token) -> None:
        if kind.text == "ruleset":
            family = self._next().text if self._peek().text in FAMILIES else ""
            for key in [k for k in self.tables if family in ("", k[0])]:
                del self.tables[key]
            return
        table = self._existing()
        chains = table.chains
        if kind.text == "chain":
            name = self._word()
            if name.text not in chains:
                raise NftError("Could not process rule: No such file or directory", name)
            chains = {name.text: chains[name.text]}
        elif kind.text != "table":
            raise self._unexpected(kind)
        for chain in chains.values():
            chain.rules.clear()


def priority_text(value: int, family: str) -> str:
    """nft names a priority, or one within 10 of a name."""
    names = BRIDGE_PRIORITIES if family == "bridge" else PRIORITIES
    for name, base in names.items():
        if value == base:
            return name
        if abs(value - base) <= 10:
            return f"{name} {'+' if value > base else '-'} {abs(value - base)}"
    return str(value)


def normal_rule(text: str) -> str:
    """A rule as nft lists it: interface names quoted, counts dropped, sets in value order."""
    text = re.sub(r"\bmeta (iif|oif|iifname|oifname)\b", r"\1", text)
    text = re.sub(r"(?<!meta )\b([io]brname)\b", r"meta \1", text)
    text = re.sub(r"\bcounter packets \d+ bytes \d+", "counter", text)
    text = re.sub(r'\b([io]if(?:name)?|[io]brname)( (?:!=|==))? (?=[^"{@!=.\s])(\S+)', r'\1\2 "\3"', text)
    text = text.replace(" == ", " ")
    text = text.replace("ether type vlan", "ether type 8021q").replace("ether type 0x88a8", "ether type 8021ad")
    # What a later expression says anyway is not repeated.
    text = re.sub(r"\bether type (arp|ip) (?=(?:.* )?\1 [a-z])", "", text)

    def ordered(match: re.Match[str]) -> str:
        items = [item.strip() for item in match.group(1).split(",") if item.strip()]
        if re.search(r"[io](if|br)name( !=)? $", text[: match.start()]):
            items = [item if item.startswith('"') else f'"{item}"' for item in items]
        if len(items) == 1:
            return items[0]
        return "{ " + ", ".join(sorted(merged(items), key=element_key)) + " }"

    return re.sub(r"\{ ([^{}]*?) ?\}", ordered, text)
