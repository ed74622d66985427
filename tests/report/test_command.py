"""The command ``normalisr-dask report``."""

import sys
from pathlib import Path
from shutil import copytree

import pytest
from typer.testing import CliRunner

from normalisr_dask.cli.app import app


def test_it_writes_the_report_and_says_where(finished_run: Path, tmp_path: Path) -> None:
    output = copytree(finished_run, tmp_path / "out")
    (output / "report.html").unlink(missing_ok=True)
    result = CliRunner().invoke(app, ["report", str(output)])
    assert result.exit_code == 0
    assert result.stdout == f"  report  {output / 'report.html'}\n"
    assert result.stderr.startswith("Report: done in ")
    assert (output / "report.html").is_file()


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr == f"normalisr-dask: error: {tmp_path} holds no run: there is no manifest.json in it\n"


def test_missing_packages_are_one_line(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = CliRunner().invoke(app, ["report", str(finished_run)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "the report needs jinja2: install them with pip install 'normalisr-dask[report]'" in line
