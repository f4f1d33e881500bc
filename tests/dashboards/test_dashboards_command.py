"""`vcrecon dashboards`: what it writes, also from an installed package, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from vcrecon.cli.app import app

ROOT = Path(__file__).parents[2]


def typed(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["dashboards", *map(str, arguments)])


def test_all_of_it_is_written_and_fits_together(tmp_path: Path) -> None:
    result = typed("--write", tmp_path / "out", "--listen", "10.0.0.5:9999", "--prometheus", "http://10.0.0.6:9090")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    config = yaml.safe_load((out / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": ["10.0.0.5:9999"]}]
    assert all((out / name).is_file() for name in config["rule_files"])
    source = yaml.safe_load((out / "provisioning" / "datasources" / "vcrecon.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://10.0.0.6:9090"
    provider = yaml.safe_load((out / "provisioning" / "dashboards" / "vcrecon.yaml").read_text())["providers"][0]
    assert sorted(path.name for path in Path(provider["options"]["path"]).iterdir()) == [
        "vcrecon-clusters.json",
        "vcrecon-containers.json",
        "vcrecon-controller.json",
        "vcrecon-site.json",
    ]
    assert (out / "runbook.md").read_text() == (ROOT / "docs" / "runbook.md").read_text()


def test_writing_again_changes_addresses_and_keeps_what_is_not_ours(tmp_path: Path) -> None:
    assert typed("--write", tmp_path, "--listen", "10.0.0.5:9999").exit_code == 0
    (tmp_path / "mine.txt").write_text("mine")
    assert typed("--write", tmp_path).exit_code == 0
    assert "127.0.0.1:9620" in (tmp_path / "prometheus.yml").read_text()
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_without_a_directory_it_lists_them() -> None:
    result = typed()
    assert result.exit_code == 0
    assert "dashboards/vcrecon-site.json" in result.output
    assert "--write DIR" in result.output


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = typed("--write", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert f"{tmp_path}/file/below: cannot write there" in result.output


@pytest.mark.parametrize("listen", ["none", "nonsense", "10.0.0.5"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    assert typed("--write", tmp_path / "out", "--listen", listen).exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_installed_package_has_them_and_needs_no_generator(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path / "site")
    assert not any(name.startswith("dashboards/") for name in names)
    code = "import sys; sys.modules['grafana_foundation_sdk'] = None; from vcrecon.__main__ import main; main()"
    subprocess.run(
        [sys.executable, "-P", "-c", code, "dashboards", "--write", tmp_path / "out"],
        env={"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    written = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    source = {path.relative_to(ROOT / "grafana") for path in (ROOT / "grafana").rglob("*.*") if path.is_file()}
    assert written == source | {Path("runbook.md")}
