"""What is published: the source distribution, the wheel built from it, and that a fresh environment runs the demo."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command: str | Path, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the source distribution, and the wheel that is built from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    return folder


def test_the_source_distribution_holds_what_a_developer_needs(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".ci/run", "tests/conftest.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("docs/generated/")]


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    package = ROOT / "normalisr_dask"
    expected = {
        file.relative_to(ROOT).as_posix()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {"normalisr_dask/py.typed", "normalisr_dask/report/templates/report.html"} <= expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_a_fresh_environment_runs_the_demo(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "environment", folder=tmp_path)
    programs = tmp_path / "environment" / "bin"
    run(programs / "pip", "install", "--quiet", f"{wheel}[report]", folder=tmp_path)
    where = run(programs / "python", "-c", "import normalisr_dask; print(normalisr_dask.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path)
    told = run(programs / "normalisr-dask", "demo", "demo", "--workers", "1", folder=tmp_path)
    assert "report  demo/results/report.html" in told
    assert re.search(r"inflation +\d.*tests of permuted cells\n", told)
    assert (tmp_path / "demo" / "results" / "report.html").stat().st_size > 100_000
    assert f"normalisr-dask {wheel.name.split('-')[1]}\n" == run(
        programs / "normalisr-dask", "--version", folder=tmp_path
    )
