"""Credentials and certificates for the tests of power switches."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from fake_redfish import PASSWORD, USER, make_certificate

from vcrecon.power import Patience

QUICK = Patience(connect_s=5.0, answer_s=20.0, effect_s=20.0, poll_s=0.01)
"""Looks often, and waits long enough for a machine under load."""


@pytest.fixture
def patience() -> Patience:
    return QUICK


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "bmc.login"
    path.touch(mode=0o600)
    path.write_text(f"{USER}:{PASSWORD}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("bmc"))


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context
