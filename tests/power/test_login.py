"""The file with a power controller's user and password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vcrecon.errors import Permanent
from vcrecon.power.login import read_login


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "password"), [(b"me:pw", "pw"), (b"me:pw\n", "pw"), (b"me:a:b c\n", "a:b c"), ("me:ä".encode(), "ä")]
)
def test_user_and_password_are_split_at_the_first_colon(content: bytes, password: str, tmp_path: Path) -> None:
    login = read_login(written(tmp_path / "login", content), "c01")
    assert (login.user, login.password) == ("me", password)


def test_the_password_does_not_show_in_a_repr(tmp_path: Path) -> None:
    assert "hidden" not in repr(read_login(written(tmp_path / "login", b"me:hidden"), "c01"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = written(tmp_path / "login", b"me:hidden", mode)
    with pytest.raises(Permanent, match=f"chmod 600 {path}") as caught:
        read_login(path, "c01")
    assert caught.value.kind == "power-credentials"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"hidden", b":hidden", b"hidden:", b"me:hid\nden\n", b"me:hid\0den", b"hidden:\xff", b"hidden:" * 900],
)
def test_a_file_of_another_form_is_refused_without_showing_it(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Permanent) as caught:
        read_login(written(tmp_path / "login", content), "c01")
    assert caught.value.kind == "power-credentials"
    assert "hid" not in str(caught.value).replace(str(tmp_path), "")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_missing_file_a_directory_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (None, tmp_path / "nothing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(Permanent) as caught:
            read_login(path, "c01")
        assert caught.value.kind == "power-credentials"
