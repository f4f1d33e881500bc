"""`python -m tests.lab.conformance`: run the cases on a real container and on the simulated one, and compare.

python -m tests.lab.conformance --local --out table.md
python -m tests.lab.conformance --real root@10.0.0.11:22 --key KEY --known-hosts FILE --serve 10.0.0.1
    --hypervisor kvm --group vg0 --pool vcpool --trunk eth0 --out table.md --capture kvm-debian12.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.lab.conformance.cases import all_cases
from tests.lab.conformance.disk_cases import VOLUMES
from tests.lab.conformance.hosts import LOCAL_GROUP, LOCAL_LACKS, LOCAL_SERVER, LOCAL_TRUNK, LocalHost, SshHost
from tests.lab.conformance.place import ABILITIES, Place
from tests.lab.conformance.runner import Run, compare, load, run_all, save, table
from tests.lab.conformance.serving import Server
from tests.lab.conformance.simulated import simulated

HYPERVISOR_FAMILIES = (
    *("look at guests: ", "start-guest: ", "stop-guest: ", "off and forget: ", "streams: ", "console: "),
    *("put aside: ", "remove: ", "hold: "),
)


async def run(options: argparse.Namespace) -> int:
    """Both runs, the comparison, the files. Returns the exit status: 1 when something differs."""
    async with contextlib.AsyncExitStack() as stack:
        if options.local:
            host = await stack.enter_async_context(LocalHost(VOLUMES))
            files = await stack.enter_async_context(Server(LOCAL_SERVER))
            shape = ("kvm", LOCAL_GROUP, "cfpool", LOCAL_TRUNK)
            place = Place(*shape, files, LOCAL_LACKS)
        else:
            files = await stack.enter_async_context(Server(options.serve))
            user, _, where = options.real.rpartition("@")
            address, _, port = where.partition(":")
            host = await stack.enter_async_context(
                SshHost(address, int(port or 22), user or "root", options.key, options.known_hosts)
            )
            shape = (options.hypervisor, options.group, options.pool, options.trunk)
            place = Place(*shape, files, frozenset(options.lacks))
        if (await host.run("command -v xz", b""))[0]:
            place = replace(place, lacks=place.lacks | {"xz"})
        chosen = [*options.only, *(HYPERVISOR_FAMILIES if options.hypervisor_only else ())]
        cases = [case for case in all_cases(place) if not chosen or any(part in case.name for part in chosen)]
        if options.changed:
            asked = load(options.changed, files).digests
            cases = [case for case in cases if asked.get(case.name) != case.digest(place)]
        cases = cases[:: options.every]
        real = await run_all(cases, host, place, progress=options.verbose)
        other, _ = await stack.enter_async_context(simulated(place))
        mirrored = await run_all(cases, other, place, progress=options.verbose)
    return report(options, real, mirrored)


def report(options: argparse.Namespace, real: Run, mirrored: Run) -> int:
    rows = list(compare(all_cases(real.place), real, mirrored))
    text = table(rows, real.versions)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    if options.capture:
        save(
            real,
            options.capture,
            options.what,
            update=bool(options.only or options.hypervisor_only or options.every > 1 or options.changed),
        )
    wrong = [row for row in rows if row.wrong]
    for row in wrong:
        print(f"{row.case.name}\n    {row.wrong}")
    print(f"{len(rows)} cases, {len(wrong)} differ")
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 1 when a case differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.conformance", description=__doc__.split("\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--real", metavar="USER@ADDRESS:PORT", help="a container to reach over SSH")
    where.add_argument("--local", action="store_true", help="this machine, in namespaces (root)")
    parser.add_argument("--key", type=Path, help="private key for --real")
    parser.add_argument("--known-hosts", type=Path, help="pins the container's host key")
    parser.add_argument("--serve", default="127.0.0.1", help="this side's address, from which the container downloads")
    parser.add_argument("--hypervisor", choices=["kvm", "xen"], default="kvm")
    parser.add_argument("--group", default="vg0")
    parser.add_argument("--pool", default="vcpool")
    parser.add_argument("--trunk", default="eth0")
    parser.add_argument("--lacks", action="append", default=[], choices=sorted(ABILITIES), help="what it cannot do")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="cases whose name contains this")
    parser.add_argument(
        "--hypervisor-only", action="store_true", help="only what a hypervisor answers: the rest is the same Debian"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth of these cases")
    parser.add_argument(
        "--changed", type=Path, metavar="CAPTURE", help="only what this capture lacks, or asked otherwise"
    )
    parser.add_argument("--out", type=Path, help="write the table (Markdown)")
    parser.add_argument("--capture", type=Path, help="keep the real answers (JSON); with --only or --changed, of these")
    parser.add_argument("--what", default="a real container", help="says in the capture what the host is")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each case on the real host")
    return asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
