"""nft 1.0.6 on a simulated host: -f FILE, list, add, delete, flush; text and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from vcrecon.sim.nftables import BRIDGE_PRIORITIES, FAMILIES, PRIORITIES, NftError, Table
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import STDIN, Failure, given, last, options, read_input, reason, tool

TOOLS: dict[str, Tool] = {}
METAINFO = {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}}


def _complaint(error: NftError, text: str, source: str) -> str:
    """nft's message with the place, the line and the marker under it."""
    token = error.token
    if token is None:
        return f"Error: {error}"
    width = max(1, len(token.text.strip("\n")))
    lines = text.replace("\\\n", "  ").split("\n")
    line = lines[token.line - 1] if token.line <= len(lines) else ""
    where = f"{source}:{token.line}:{token.column}-{token.column + width - 1}: " if source else ""
    return f"{where}Error: {error}\n{line}\n{' ' * (token.column - 1)}{'^' * width}"


@tool(TOOLS, "nft")
async def nft(process: Process, args: Sequence[str]) -> int:
    found, rest = options(
        "nft", args, "f:sjcanev", ["file=", "stateless", "json", "check", "handle", "version"], gnu=False
    )
    ruleset = process.machine.nft
    if given(found, "-v", "--version"):
        await process.say("nftables v1.0.6 (Lester Gooch #5)\n")
        return 0
    await process.machine.work("nft")
    path = last(found, "-f", "--file")
    if path is not None:
        source = "/dev/stdin" if path in STDIN else path
        try:
            text = (await read_input(process, path)).decode("utf-8", "replace")
        except OSError as error:
            raise Failure(f'internal:0:0-0: Error: Could not open file "{path}": {reason(error)}\n\n') from None
    else:
        source, text = "", " ".join(rest)
        if not rest:
            raise Failure("nft: no command specified")
        if rest[0] == "list" or (len(rest) == 1 and text.startswith("list ")):
            words = text.split()
            return await _list(
                process,
                words[1:],
                as_json=given(found, "-j", "--json"),
                stateless=given(found, "-s", "--stateless"),
            )
    try:
        ruleset.apply(text, check=given(found, "-c", "--check"))
    except NftError as error:
        return await process.fail(_complaint(error, text, source))
    return 0


async def _list(process: Process, words: Sequence[str], *, as_json: bool, stateless: bool) -> int:
    what, names = (words[0], list(words[1:])) if words else ("", [])
    tables = list(process.machine.nft.tables.values())
    shown = "list " + " ".join(words)
    if what in ("ruleset", "tables"):
        if names:
            tables = [table for table in tables if table.family == names[0]]
    elif what in ("table", "chain", "set", "map"):
        family = names.pop(0) if names and names[0] in FAMILIES else "ip"
        name = names[0] if names else ""
        tables = [t for t in tables if (t.family, t.name) == (family, name)]
        missing = not tables
        if tables and what != "table":
            inner = names[1] if len(names) > 1 else ""
            table = tables[0]
            part = Table(table.family, table.name, table.handle)
            part.chains = {k: v for k, v in table.chains.items() if what == "chain" and k == inner}
            part.sets = {k: v for k, v in table.sets.items() if what in ("set", "map") and k == inner}
            missing = not (part.chains or part.sets)
            tables = [part]
        if missing:
            column = shown.index(name) if name else 0
            return await process.fail(f"Error: No such file or directory\n{shown}\n{' ' * column}{'^' * len(name)}")
    else:
        return await process.fail(f"Error: syntax error, unexpected string\n{shown}\n     {'^' * len(what)}")
    if as_json:
        rows: list[dict[str, Any]] = [METAINFO]
        for table in tables:
            rows += [_table_json(table)] if what == "tables" else table_objects(table)
        await process.say(json.dumps({"nftables": rows}, ensure_ascii=False) + "\n")
    elif what == "tables":
        await process.say("".join(f"table {table.family} {table.name}\n" for table in tables))
    else:
        await process.say("".join(table.text(stateless=stateless) for table in tables))
    return 0


def _table_json(table: Table) -> dict[str, Any]:
    comment = next((p[9:-1] for p in table.properties if p.startswith('comment "')), None)
    row = {"family": table.family, "name": table.name, "handle": table.handle}
    return {"table": row | ({"comment": comment} if comment else {})}


def table_objects(table: Table) -> list[dict[str, Any]]:
    """A table as the objects of `nft -j list ruleset`: table, sets, chains, then rules."""
    rows = [_table_json(table)]
    for name, item in table.sets.items():
        row: dict[str, Any] = {"family": table.family, "name": name, "table": table.name}
        kind, _, target = item.type_text.partition(" : ")
        row |= {"type": _concat(kind), "handle": 1}
        if item.kind == "map":
            row["map"] = target
        flags = next((p.split(maxsplit=1)[1].split(",") for p in item.properties if p.startswith("flags")), None)
        row |= {"flags": [f.strip() for f in flags]} if flags else {}
        row |= {"elem": [_element(e) for e in item.elements]} if item.elements else {}
        rows.append({item.kind: row})
    for index, (name, chain) in enumerate(table.chains.items(), 1):
        row = {"family": table.family, "table": table.name, "name": name, "handle": index}
        match = re.match(r"type (\w+) hook (\w+) .*?priority ([^;]+); policy (\w+);", chain.base)
        if match is not None:
            priority = _priority(match[3], table.family)
            row |= {"type": match[1], "hook": match[2], "prio": priority, "policy": match[4]}
        rows.append({"chain": row})
    for name, chain in table.chains.items():
        for handle, text in chain.rules:
            comment = re.search(r' comment "([^"]*)"$', text)
            row = {"family": table.family, "table": table.name, "chain": name, "handle": handle}
            row |= {"comment": comment[1]} if comment else {}
            rows.append({"rule": row | {"expr": expressions(text[: comment.start()] if comment else text)}})
    return rows


def _concat(kind: str) -> str | list[str]:
    parts = kind.split(" . ")
    return parts if len(parts) > 1 else kind


def _priority(text: str, family: str) -> int:
    words = text.split()
    names = BRIDGE_PRIORITIES if family == "bridge" else PRIORITIES
    base = names.get(words[0])
    if base is None:
        return int(words[0])
    return base + (int("".join(words[1:])) if len(words) > 1 else 0)


def _element(text: str) -> Any:
    key, colon, value = text.partition(" : ")
    if colon:
        return [_value(key), _value(value)]
    if " . " in key:
        return {"concat": [_value(part) for part in key.split(" . ")]}
    return _value(key)


def _value(text: str) -> Any:
    text = text.strip()
    if text.isdigit():
        return int(text)
    if re.fullmatch(r"[0-9a-f.:]+/\d+", text):
        address, _, length = text.partition("/")
        return {"prefix": {"addr": address, "len": int(length)}}
    if re.fullmatch(r"[0-9.]+-[0-9.]+", text):
        return {"range": [_value(part) for part in text.split("-")]}
    return text.strip('"')


MATCH = re.compile(
    r"(?P<left>(?:ip|ip6|ether|tcp|udp|icmp|icmpv6|arp|vlan|th|ct|meta) \w+|[io]if(?:name)?|[io]brname|mark)"
    r'(?P<op> (?:!=|<=|>=|<|>))? (?P<right>\{[^}]*\}|"[^"]*"|\S+) ?'
)


def expressions(text: str) -> list[dict[str, Any]]:
    """The common statements of a rule as nft's JSON; what is not understood stays under `unparsed`."""
    found: list[dict[str, Any]] = []
    while text:
        verdict = re.match(r"(accept|drop|return|continue|counter|masquerade|reject|log|notrack)(?: |$)", text)
        jump = re.match(r"(jump|goto) (\S+) ?", text)
        nat = re.match(r"(dnat|snat)(?: ip6?)? to ([0-9.]+)(?::(\d+))? ?", text)
        match = MATCH.match(text)
        if verdict is not None:
            found.append({verdict[1]: None})
        elif jump is not None:
            found.append({jump[1]: {"target": jump[2]}})
        elif nat is not None:
            found.append({nat[1]: {"addr": nat[2]} | ({"port": int(nat[3])} if nat[3] else {})})
        elif match is not None:
            found.append(_match_json(match))
        else:
            found.append({"unparsed": text})
            break
        end = verdict or jump or nat or match
        assert end is not None
        text = text[end.end() :]
    return found


def _match_json(match: re.Match[str]) -> dict[str, Any]:
    words = match["left"].split()
    if len(words) == 1:
        left: dict[str, Any] = {"meta": {"key": words[0]}}
    elif words[0] in ("meta", "ct"):
        left = {words[0]: {"key": words[1]}}
    else:
        left = {"payload": {"protocol": words[0], "field": words[1]}}
    text = match["right"]
    op = (match["op"] or " ==").strip()
    right: Any = _value(text)
    if text.startswith("{"):
        right = {"set": [_element(item.strip()) for item in text.strip("{} ").split(",")]}
    elif "," in text:
        op, right = ("in" if op == "==" else op), text.split(",")
    return {"match": {"op": op, "left": left, "right": right}}
