"""`master export` and `master promote`: what is carried, what is checked first, what is never written over."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import stat
import tarfile
import time
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from fake_site import FakeControls, Type, Typed, served
from ruamel.yaml import YAML

from vcrecon.core.memory import Claim, Consent, Fence, Intent, Rescue
from vcrecon.errors import Refused
from vcrecon.shell import master_files
from vcrecon.shell.mastery import read_generation, write_generation
from vcrecon.shell.promote import from_export
from vcrecon.shell.record import Record
from vcrecon.spec.load import load


@pytest.fixture
def first(tmp_path: Path, specs: Path) -> Path:
    """The state directory of a master that ran, with an SSH key outside its spec directory."""
    keys = tmp_path / "keys"
    keys.mkdir()
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(keys / "id")
    (keys / "id").chmod(0o600)
    yaml = YAML()
    site = yaml.load(specs / "site.yaml")
    site["ssh"]["key"] = str(keys / "id")
    yaml.dump(site, specs / "site.yaml")
    (specs / "known_hosts").write_text("192.0.2.1 ssh-ed25519 AAAA\n")
    state = tmp_path / "first"
    with Record.open(state, clock=time.time) as record:
        record.put_claim(Claim("a-head", "c01", 2, touched=True))
        record.put_fence(Fence("c02", 1.0, "me"))
        record.put_shown("c01", 1.0)
        record.put_consent(Consent("rebuild", "a-n1", 3, 1.0))
        record.put_intent(Intent("guest/a-n1", "start-guest", 1.0))
        record.put_rescue(Rescue("a-n2", "release", 1.0, "me"))
        record.put_pause("guest/b-n1", 1.0)
        record.event("site", "converged", "as it was")
    (state / "known_hosts").write_text("192.0.2.1 ssh-ed25519 BBBB\n")
    return state


@pytest.fixture
def archive(tmp_path: Path, specs: Path, first: Path) -> Path:
    target = tmp_path / "export.tar.gz"
    master_files.export(target, specs, first, load(specs).spec, version="1", now_s=time.time())
    return target


def manifest_of(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        return dict(json.load(member))


def refusal(archive: Path, state: Path) -> str:
    """Why the archive is not taken."""
    with pytest.raises(Refused) as caught:
        from_export(archive, specs=None, state=state, default_state=Path)
    return str(caught.value)


def gone(tmp_path: Path, specs: Path, first: Path) -> None:
    """The first master burns down."""
    for path in (specs, first, tmp_path / "keys"):
        path.rename(path.with_name(f"burnt-{path.name}"))


def promote(vcrecon: Type, archive: Path, state: Path, *more: object) -> Typed:
    return vcrecon("master", "promote", archive, "--state", state, *more)


class TestExport:
    def test_it_is_private_and_shows_no_secret(self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path) -> None:
        target = tmp_path / "export.tar.gz"
        result = vcrecon("master", "export", target, "--specs", specs, "--state", first)
        assert result.code == 0
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert f"Written: {target}" in result.out
        assert "vcrecon master promote export.tar.gz" in result.out
        assert "$" not in result.out

    def test_it_finds_the_directories_of_the_service_that_runs(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        controls = FakeControls()
        controls.site["spec"]["directory"] = str(specs)
        with served(controls, first / "control.sock"):
            result = vcrecon("master", "export", tmp_path / "x.tar.gz", "--state", first)
        assert result.code == 0, result.err

    def test_it_carries_what_only_the_master_has(self, tmp_path: Path, archive: Path) -> None:
        entries = manifest_of(archive)["entries"]
        assert {e["path"] for e in entries if e["place"] == "state"} == {"site.key", "known_hosts", "record.sqlite"}
        assert {e["path"] for e in entries if e["place"] == "elsewhere"} == {str(tmp_path / "keys/id")}

    def test_images_are_listed_with_their_digests_and_hidden_files_are_not(self, tmp_path: Path) -> None:
        (tmp_path / "installer").mkdir()
        (tmp_path / "installer" / "initrd").write_bytes(b"abc")
        (tmp_path / ".hidden").write_bytes(b"abc")
        assert list(master_files.image_files(tmp_path)) == [
            master_files.ImageFile("installer/initrd", 3, hashlib.sha256(b"abc").hexdigest())
        ]

    def test_where_no_master_ever_ran_there_is_nothing_to_export(
        self, vcrecon: Type, tmp_path: Path, specs: Path
    ) -> None:
        result = vcrecon("master", "export", tmp_path / "x", "--specs", specs, "--state", tmp_path / "none")
        assert result.code == 1
        assert "no site key" in result.err

    def test_a_target_that_cannot_be_written_leaves_nothing(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        result = vcrecon("master", "export", tmp_path / "no" / "x", "--specs", specs, "--state", first)
        assert (result.code, "cannot be written" in result.err) == (1, True)


class TestPromoteAnExport:
    def test_everything_is_where_it_was(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path, archive: Path
    ) -> None:
        gone(tmp_path, specs, first)
        state = tmp_path / "second"
        result = promote(vcrecon, archive, state)
        assert result.code == 0, result.err
        assert f"vcrecon run {specs} --state {state}" in result.out
        for burnt, new in (("burnt-specs", "specs"), ("burnt-keys", "keys")):
            before = {
                p.relative_to(tmp_path / burnt): p.read_bytes() for p in (tmp_path / burnt).rglob("*") if p.is_file()
            }
            after = {p.relative_to(tmp_path / new): p.read_bytes() for p in (tmp_path / new).rglob("*") if p.is_file()}
            assert after == before
        assert (state / "site.key").read_bytes() == (tmp_path / "burnt-first/site.key").read_bytes()
        assert (state / "known_hosts").read_text().endswith("BBBB\n")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (state, state / "site.key", tmp_path / "keys/id")}
        assert modes == {"second": 0o700, "site.key": 0o600, "id": 0o600}

    def test_the_new_master_ranks_higher_than_the_first(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        write_generation(first, 99_999_999_999)
        target = tmp_path / "export.tar.gz"
        assert vcrecon("master", "export", target, "--specs", specs, "--state", first).code == 0
        assert promote(vcrecon, target, tmp_path / "second").code == 0
        assert read_generation(tmp_path / "second") == 100_000_000_000

    def test_what_an_old_record_would_permit_is_forgotten(self, vcrecon: Type, tmp_path: Path, archive: Path) -> None:
        assert promote(vcrecon, archive, tmp_path / "second").code == 0
        with Record.read_only(tmp_path / "second") as record:
            memory, events = record.memory, record.events()
        assert (memory.fences, memory.consents, memory.rescues) == ({}, {}, {})
        assert memory.shown == {}, "what c01 held then may be on another container now"
        assert memory.intents.keys() == {"site"}, "every container is looked at before anything is done"
        assert not memory.claims_complete
        assert memory.claims["a-head"].epoch == 2
        assert memory.paused.keys() == {"guest/b-n1"}
        assert [e.reason for e in events] == ["converged", "promoted"]

    def test_another_spec_directory_may_be_named(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path, archive: Path
    ) -> None:
        gone(tmp_path, specs, first)
        result = promote(vcrecon, archive, tmp_path / "second", "--specs", tmp_path / "elsewhere" / "specs")
        assert result.code == 0, result.err
        assert (tmp_path / "elsewhere/specs/site.yaml").exists()

    def test_a_running_service_is_not_pulled_away_from(self, vcrecon: Type, tmp_path: Path, archive: Path) -> None:
        (tmp_path / "second").mkdir()
        with served(FakeControls(), tmp_path / "second" / "control.sock"):
            result = promote(vcrecon, archive, tmp_path / "second")
        assert result.code == 1
        assert "a service runs here" in result.err

    def test_a_state_that_is_there_is_kept(self, vcrecon: Type, tmp_path: Path, first: Path, archive: Path) -> None:
        before = (first / "record.sqlite").read_bytes()
        result = promote(vcrecon, archive, first)
        assert result.code == 1
        assert f"mv {first} {first}.old" in result.err
        assert (first / "record.sqlite").read_bytes() == before

    def test_another_spec_in_its_place_is_kept(self, tmp_path: Path, specs: Path, archive: Path) -> None:
        (specs / "site.yaml").write_text("site: other\n")
        assert "another spec is there" in refusal(archive, tmp_path / "second")
        assert not (tmp_path / "second").exists()

    def test_another_key_in_its_place_is_kept(self, tmp_path: Path, archive: Path) -> None:
        (tmp_path / "keys" / "id").write_text("another\n")
        assert "another file is there" in refusal(archive, tmp_path / "second")
        assert not (tmp_path / "second").exists()

    @pytest.mark.parametrize("kept", [0, 1, 100, 2000])
    def test_half_an_archive_is_refused(self, kept: int, tmp_path: Path, archive: Path) -> None:
        archive.write_bytes(archive.read_bytes()[:kept])
        assert re.search("export again|no export", refusal(archive, tmp_path / "second"))
        assert not (tmp_path / "second").exists()

    def test_a_changed_file_is_refused(self, tmp_path: Path, archive: Path) -> None:
        content = gzip.decompress(archive.read_bytes())
        archive.write_bytes(
            gzip.compress(content.replace(b"192.0.2.1 ssh-ed25519 BBBB", b"192.0.2.1 ssh-ed25519 CCCC"))
        )
        assert "known_hosts in it is damaged" in refusal(archive, tmp_path / "second")

    @pytest.mark.parametrize(
        ("place", "path"),
        [
            ("specs", "../../etc/evil"),
            ("specs", "/etc/evil"),
            ("state", "evil"),
            ("elsewhere", "etc/evil"),
            ("specs", ""),
        ],
    )
    def test_an_archive_that_reaches_out_of_its_directories_is_refused(
        self, place: str, path: str, tmp_path: Path, archive: Path
    ) -> None:
        manifest = manifest_of(archive)
        manifest["entries"][0] |= {"place": place, "path": path}
        text = json.dumps(manifest).encode()
        with tarfile.open(archive, "w:gz") as tar:
            info = tarfile.TarInfo("manifest.json")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        assert "do not trust" in refusal(archive, tmp_path / "second")


class TestPromoteASpec:
    def test_the_sites_key_is_enough_when_the_first_master_burnt_down(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        key = shutil.copy(first / "site.key", tmp_path / "copy.key")
        state = tmp_path / "second"
        result = vcrecon("master", "promote", specs, "--key", key, "--state", state)
        assert result.code == 0, result.err
        assert "without a record" in result.out
        assert (state / "site.key").read_bytes() == (first / "site.key").read_bytes()
        assert read_generation(state) >= int(time.time()) - 600

    def test_without_the_key_it_says_what_that_would_cost(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        result = vcrecon("master", "promote", specs, "--state", tmp_path / "second")
        assert result.code == 1
        assert "--key" in result.err
        assert not (tmp_path / "second").exists()

    def test_another_key_than_the_one_that_is_there_is_refused(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        other = tmp_path / "other.key"
        other.touch(mode=0o600)
        other.write_bytes(b"k" * 32)
        result = vcrecon("master", "promote", specs, "--key", other, "--state", first)
        assert (result.code, "another key" in result.err) == (1, True)

    def test_an_outranked_master_is_made_the_first_again(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        assert vcrecon("master", "promote", specs, "--state", first).code == 0
        assert read_generation(first) >= int(time.time()) - 600

    def test_an_ssh_key_that_is_not_there_is_told_before_anything_is_made(
        self, vcrecon: Type, tmp_path: Path, specs: Path, first: Path
    ) -> None:
        (tmp_path / "keys" / "id").unlink()
        result = vcrecon("master", "promote", specs, "--key", first / "site.key", "--state", tmp_path / "second")
        assert (result.code, "keys/id" in result.err) == (1, True)
        assert not (tmp_path / "second").exists()

    def test_what_is_neither_is_refused(self, vcrecon: Type, tmp_path: Path) -> None:
        result = vcrecon("master", "promote", tmp_path / "nothing")
        assert (result.code, "no such file" in result.err) == (1, True)
