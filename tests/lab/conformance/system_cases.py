"""Cases of locks, of the look as a whole, and of downloads with all that can go wrong with them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.lab.conformance.case import Answer, Case, Facts, look_script, looked, output
from tests.lab.conformance.disk_cases import Builder
from tests.lab.conformance.place import GUEST, Place

from vcrecon.core.mastery import Master
from vcrecon.core.observation import Part
from vcrecon.host import storage
from vcrecon.host.lease import LEASE_FILE, release, show_and_renew
from vcrecon.host.names import FIREWALL_FILE, IMAGE_DIR, RELEASE_FILE, RUN_DIR
from vcrecon.host.steps import CORRUPT, UNSAFE, locked
from vcrecon.spec.model import Artifact


def cases(place: Place) -> Iterator[Case]:
    yield from _locks(place)
    yield from _looks(place)
    yield from _leases(place)
    yield from _downloads(place)


def _locks(place: Place) -> Iterator[Case]:
    b = Builder(place, "lock")
    says: dict[str, object] = {"then": "", "reduce": output, "cleanup": ("rm -f /run/lock/vcrecon.cf*",)}

    def held(script: str, name: str = "cf") -> str:
        quoted = script.replace("'", "'\\''")
        return f"flock /run/lock/vcrecon.{name} sh -c '{quoted}'"

    done = locked("cf", ["echo done"])
    yield b.case("free", done, **says)
    yield b.case("twice, one after the other", f"{done}\n{done}", **says)
    yield b.case("held by an earlier step", held(done), **says)
    yield b.case("another object's lock is held", held(done, "cf2"), **says)
    for status in (1, CORRUPT, UNSAFE, 127):
        yield b.case(f"the step ends with {status}", locked("cf", [f"exit {status}"]), **says)
    yield b.case("the step fails half way", locked("cf", ["echo begun", "false", "echo never"]), **says)
    yield b.case("a variable that is not set", locked("cf", ["echo $cf_nothing", "echo never"]), **says)
    yield b.case("a command that does not exist", locked("cf", ["cf-no-such-command", "echo never"]), **says)
    yield b.case("a script that does not parse", locked("cf", ["if true; then"]), **says)
    yield b.case("a failing pipe", locked("cf", ["false | cat", "echo goes on"]), **says)
    yield b.case(
        "the lock is a directory",
        done,
        ["mkdir -p /run/lock/vcrecon.cf"],
        **(says | {"cleanup": ("rm -rf /run/lock/vcrecon.cf",)}),
    )
    yield b.case("a step that was killed lets go", f"{locked('cf', ['kill -9 $$'])}\necho $?\n{done}", **says)


def _leases(place: Place) -> Iterator[Case]:
    b = Builder(place, "lease")
    me = Master("cf0", 3, "cf@here:/var/lib/vcrecon/cf", lease_s=90)
    shows = f"cut -d' ' -f1,2,4 {LEASE_FILE} 2>/dev/null || echo none"
    says: dict[str, object] = {
        "then": shows,
        "reduce": lambda answer, place: [answer.stdout, answer.after],
        "cleanup": (f"rm -rf {LEASE_FILE}",),
    }

    def of(name: str, generation: int) -> list[str]:
        since = "$(cut -d. -f1 /proc/uptime)"
        return [f"mkdir -p {RUN_DIR}", f'echo "{name} {generation} {since} title" >{LEASE_FILE}']

    nothing = [f"rm -rf {LEASE_FILE}"]
    without_ages = "{ read -r now; echo \"$now\" | cut -d' ' -f1,2,4; cut -d' ' -f1,3; }"
    looks = f"( {show_and_renew(me)} ) | {without_ages}"
    yield b.case("taken and given up", f"( {show_and_renew(me)} ) >/dev/null; {release(me)}", nothing, **says)
    yield b.case("taken", looks, nothing, **says)
    yield b.case("nothing to give up", release(me), nothing, **says)
    yield b.case("given up twice", f"{release(me)}\n{release(me)}", of("cf0", 3), **says)
    yield b.case("another master's is not given up", release(me), of("cf1", 3), **says)
    yield b.case("that of a later generation is not given up", release(me), of("cf0", 4), **says)
    yield b.case("junk is not given up", release(me), [f"mkdir -p {RUN_DIR}", f"echo x y >{LEASE_FILE}"], **says)
    yield b.case("a directory in its place", release(me), [*nothing, f"mkdir -p {LEASE_FILE}"], **says)
    yield b.case("a higher one is left in place", looks, of("cf1", 4), **says)
    yield b.case("a lower one is taken", looks, of("cf1", 2), **says)
    yield b.case("one that was given up is taken", looks, of("-", 3), **says)
    yield b.case("a higher one that was given up is left in place", looks, of("-", 4), **says)


def _looks(place: Place) -> Iterator[Case]:
    b = Builder(place, "look")
    system = look_script(place, [Part.SYSTEM])

    def of(*parts: Part) -> dict[str, object]:
        return {"then": "", "reduce": looked(*parts, of="stdout", release=Part.SYSTEM in parts)}

    release = ["mkdir -p /etc/vcrecon", f"printf 'generation=1\\nhypervisor=kvm\\n' > {RELEASE_FILE}"]
    keep = f"[ ! -e {RELEASE_FILE}.cf ] || mv {RELEASE_FILE}.cf {RELEASE_FILE}"
    put_by = f"[ ! -e {RELEASE_FILE} ] || mv {RELEASE_FILE} {RELEASE_FILE}.cf"
    away = (f"rm -f {RELEASE_FILE}", keep)
    yield b.case("no release file", system, [put_by], **(of(Part.SYSTEM) | {"cleanup": away}))
    yield b.case("a release file", system, [put_by, *release], **(of(Part.SYSTEM) | {"cleanup": away}))
    yield b.case(
        "an empty release file",
        system,
        [put_by, "mkdir -p /etc/vcrecon", f": > {RELEASE_FILE}"],
        **(of(Part.SYSTEM) | {"cleanup": away}),
    )
    yield b.case(
        "images and a part of one",
        system,
        [put_by, *b.fetched(), f": > {IMAGE_DIR}/{place.files.sha256('no-archive')}.part"],
        **(of(Part.SYSTEM) | {"cleanup": (*away, *b.sweep)}),
    )
    storage_look = look_script(place, [Part.STORAGE])
    yield b.case("storage, nothing of ours", storage_look, **of(Part.STORAGE))
    tagged = [
        b.ours(),
        b.volume("vcg-cf-b", "vc.guest=cf-b", "vc.epoch=2", "vc.boots=0", "vc.building"),
        b.ours("vcq-cf-a-1", "vc.quarantined=moved", "vc.touched", "vc.held"),
    ]
    yield b.case("storage, volumes in all states", storage_look, tagged, **of(Part.STORAGE))
    foreign = [f"lvcreate -y -Wy -L 8m -n cf-foreign --addtag vcrecon --addtag vc.site=other {place.group} >/dev/null"]
    yield b.case("storage, a volume of another site", storage_look, foreign, **of(Part.STORAGE))
    other = Part.SYSTEM, Part.STORAGE, Part.NETWORK
    yield b.case(
        "system, storage and network at once",
        look_script(place, other),
        [put_by, f"rm -f {FIREWALL_FILE}"],
        **(of(*other) | {"cleanup": away}),
    )
    fill = f"lvm fullreport --reportformat json -o bogus_field {place.group}"
    yield b.case("a report with a field that lvm does not know", fill, then="")


def _downloads(place: Place) -> Iterator[Case]:
    b = Builder(place, "download")
    name = "root.tar"
    sha256 = place.files.sha256(name)
    part = f"{IMAGE_DIR}/{sha256}.part"
    # What is there afterwards, and how much of it.
    then = f"cd {IMAGE_DIR} && for f in {sha256}*; do if [ -e $f ]; then wc -c < $f; echo $f; fi; done"

    def fetch(url: str, sha: str = sha256) -> str:
        return locked(GUEST, [f"mkdir -p {IMAGE_DIR}", *storage._download(place.image(name), Artifact(url, sha))])

    def case(situation: str, url: str, *given: str, **more: object) -> Case:
        defaults: dict[str, object] = {"then": then, "reduce": _files}
        return b.case(situation, fetch(url), [f"mkdir -p {IMAGE_DIR}", *given], **(defaults | more))

    base, url = place.files.base, place.files.url(name)
    yield case("a file", url)
    yield case("a file that is there", url, fetch(url))
    yield case("a file that is there, and its server is gone", "http://127.0.0.1:9/gone", fetch(url))
    yield case("not found", f"{base}/missing/{name}")
    yield case("a server error", f"{base}/broken/{name}")
    yield case("nobody listens", "http://127.0.0.1:9/root.tar")
    yield case("an unknown host", "http://nosuch.invalid/root.tar")
    yield case("a protocol that there is not", "bogus://127.0.0.1/root.tar")
    yield case("a garbage address", "http://[/root.tar")
    yield case("other bytes than promised", f"{base}/other/{name}")
    yield case("cut off half way", f"{base}/cut/{name}")
    # A source that is cut short, then one that is whole: how a second try goes on.
    head = f"curl -fsS {url} | head -c 200000 > {part}"
    yield case("going on with a part", url, head)
    yield case("going on where the server knows no ranges", f"{base}/whole/{name}", head)
    yield case("a part that is whole", url, f"curl -fsS -o {part} {url}")
    yield case("a part of other bytes", url, f"dd if=/dev/zero bs=1000 count=200 status=none of={part}")
    yield case("a part that is too long", url, f"curl -fsS -o {part} {url}", f"echo more >> {part}")
    yield case("an empty part", url, f": > {part}")
    yield (
        case(
            "the directory is a file",
            url,
            f"rm -rf {IMAGE_DIR}",
            f": > {IMAGE_DIR}",
            then="echo",
            cleanup=(f"rm -f {IMAGE_DIR}",),
        )
        if "device-mapper" in place.lacks
        else case("the part is a directory", url, f"mkdir {part}", then="echo", cleanup=(f"rm -r {part}", *b.sweep))
    )
    small = f"mount -t tmpfs -o size=256k cf {IMAGE_DIR}"
    yield case("a full disk", url, small, cleanup=(f"umount {IMAGE_DIR}", *b.sweep))
    read_only = f"mount -t tmpfs -o ro cf {IMAGE_DIR}"
    yield case("a disk that is read-only", url, read_only, cleanup=(f"umount {IMAGE_DIR}", *b.sweep))
    yield b.case("an empty file's digest", "sha256sum -c --status - < /dev/null", then="")
    yield b.case(
        "two at once",
        f"{fetch(url)} & {fetch(url)}; wait",
        [f"mkdir -p {IMAGE_DIR}"],
        then=then,
        reduce=_files,
        known="",
    )


def _files(answer: Answer, place: Place) -> Facts:
    """Names and sizes of what is in the image directory afterwards; of a part only whether there is something."""
    names = {place.files.sha256(name): name for name in place.files.contents}
    words = answer.after.split()
    found = [
        (int(size), names.get(name[:64], name[:64]) + name[64:])
        for size, name in zip(words[::2], words[1::2], strict=True)
    ]
    return [[bool(size) if name.endswith(".part") else size, name] for size, name in found]
