"""Where state and socket are, and how a command finds the service that is meant."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from fake_site import FakeControls, served

from vcrecon.cli.target import Target, site_name
from vcrecon.errors import Refused, SpecError
from vcrecon.paths import listener_pid, live_sockets, socket_path, state_directory, state_root


class TestStateRoot:
    def test_root_uses_the_systems_place(self) -> None:
        assert state_root({}, 0) == Path("/var/lib/vcrecon")

    def test_others_use_the_xdg_directory(self) -> None:
        assert state_root({"XDG_STATE_HOME": "/x", "HOME": "/h"}, 1000) == Path("/x/vcrecon")

    @pytest.mark.parametrize("xdg", ["", "relative"])
    def test_without_a_usable_one_its_default(self, xdg: str) -> None:
        environ = {"XDG_STATE_HOME": xdg, "HOME": "/h"}
        assert state_root(environ, 1000) == Path("/h/.local/state/vcrecon")

    def test_each_site_has_its_own(self) -> None:
        assert state_directory("lab", Path("/r")) == Path("/r/lab")


class TestSockets:
    def test_a_path_that_is_too_long_is_refused(self) -> None:
        assert socket_path(Path("/s")) == Path("/s/control.sock")
        with pytest.raises(Refused, match=r"choose a shorter state directory with --state"):
            socket_path(Path("/" + "x" * 100))

    def test_nobody_listens_on_a_stale_one(self, tmp_path: Path) -> None:
        path = tmp_path / "control.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        assert listener_pid(path) is None
        assert listener_pid(tmp_path / "none") is None

    def test_only_live_ones_are_found(self, tmp_path: Path) -> None:
        for site in ("dead", "lab"):
            (tmp_path / site).mkdir()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "dead" / "control.sock"))
        with served(FakeControls(), tmp_path / "lab" / "control.sock") as path:
            assert live_sockets(tmp_path) == [path]


class TestFindingTheService:
    def test_the_only_one_is_meant(self, tmp_path: Path) -> None:
        (tmp_path / "lab").mkdir()
        with served(FakeControls(), tmp_path / "lab" / "control.sock") as path:
            assert Target(root=tmp_path, environ={}).must_find_socket() == path

    def test_of_two_one_must_be_named(self, tmp_path: Path) -> None:
        for site in ("one", "two"):
            (tmp_path / site).mkdir()
        with (
            served(FakeControls(), tmp_path / "one" / "control.sock"),
            served(FakeControls(), tmp_path / "two" / "control.sock") as path,
        ):
            with pytest.raises(Refused, match=r"several services run \(one, two\); say which with --specs"):
                Target(root=tmp_path, environ={}).find_socket()
            assert Target(state=tmp_path / "two", root=tmp_path, environ={}).find_socket() == path

    def test_the_specs_name_the_site(self, tmp_path: Path, specs: Path) -> None:
        (tmp_path / "small").mkdir()
        with served(FakeControls(), tmp_path / "small" / "control.sock") as path:
            assert Target(specs=specs, root=tmp_path, environ={}).find_socket() == path
            assert Target(root=tmp_path, environ={"VCRECON_SPECS": str(specs)}).find_socket() == path

    def test_none_at_all_says_where_it_looked(self, tmp_path: Path) -> None:
        with pytest.raises(Refused) as caught:
            Target(root=tmp_path, environ={}).must_find_socket()
        assert str(caught.value) == (
            f"no running service found ({tmp_path}/*/control.sock); start one with `vcrecon run SPECS`, "
            "or say which one is meant with --specs DIR or --state DIR"
        )


class TestSiteName:
    def test_site_yaml_alone_tells_it(self, specs: Path) -> None:
        (specs / "clusters.yaml").write_text("{ half-written")
        assert site_name(specs) == "small"

    @pytest.mark.parametrize("content", ["", "site: [", "site: ../../etc", "site: 7", "- x", "site: .hidden"])
    def test_what_is_no_name_gets_the_findings(self, specs: Path, content: str) -> None:
        (specs / "site.yaml").write_text(content)
        with pytest.raises(SpecError):
            site_name(specs)
