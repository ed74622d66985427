"""Bad input of every command: one line that says what is wrong, exit code 2, no traceback, and nothing changed."""

import re
import shlex
import subprocess
import sys
from collections import Counter
from contextlib import chdir
from pathlib import Path

import pytest
from bad_inputs import linear_models, normalisr, runs, stores
from bad_inputs.making import Case, copy_named, tree, write_good_inputs
from distributed import LocalCluster
from typer.main import get_command
from typer.testing import CliRunner

from normalisr_dask.cli.app import app

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
TABLES = {
    "general": stores.GENERAL,
    "ingest": stores.INGEST,
    "info": stores.INFO,
    "assign-guides": stores.ASSIGN_GUIDES,
    "run": runs.RUN_INPUTS,
    "logs": runs.LOGS,
    "groupings": runs.GROUPINGS,
    "screen": runs.SCREEN,
    "computed": runs.COMPUTED,
    "report": runs.REPORT,
    "pseudobulk": linear_models.PSEUDOBULK,
    "vooma": linear_models.VOOMA,
    "counts": normalisr.COUNTS,
    "steps": normalisr.STEPS,
}
CASES = [pytest.param(case, id=f"{table}: {case.what}") for table, rows in TABLES.items() for case in rows]
#: What no user should read: types and representations of Python, temporary names, and what nobody foresaw.
UGLY = re.compile(r"Traceback|\bnp\.|numpy|\.partial|\bat 0x|<class|\[Errno|this should not happen|\\n|  ")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, two_workers: LocalCluster) -> Path:
    """Good inputs, and the results of a run: by relative paths, though the workers are in another folder."""
    folder = tmp_path_factory.mktemp("good")
    write_good_inputs(folder)
    words = f"{runs.BOUNDS} --scheduler {two_workers.scheduler_address} --no-report"
    with chdir(folder):
        result = CliRunner().invoke(app, ["run", "counts.zarr", "-o", "finished", *words.split()])
    assert result.exit_code == 0, result.stderr
    assert (folder / "finished" / "results.zarr" / "normalisation").is_dir()
    return folder


@pytest.fixture
def prepare(good: Path, tmp_path: Path, two_workers: LocalCluster, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes the inputs of a case in an empty folder, and gives the words to type there."""

    def prepare_case(case: Case) -> list[str]:
        monkeypatch.chdir(tmp_path)
        words = shlex.split(case.command.format(scheduler=two_workers.scheduler_address))
        copy_named(good, tmp_path, words)
        for spoil in case.spoil:
            spoil()
        return words

    return prepare_case


def assert_one_line(case: Case, code: int, stdout: str, stderr: str) -> None:
    """Check that a command failed as it should."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("normalisr-dask: error: ")
    assert case.line in lines[0]
    assert not UGLY.search(lines[0]), lines[0]
    assert stdout == ""
    assert code == 2


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_changed(case: Case, prepare, tmp_path: Path) -> None:
    words = prepare(case)
    before = tree(tmp_path)
    result = CliRunner().invoke(app, words, env={"NORMALISR_DASK_DEBUG": ""})
    assert_one_line(case, result.exit_code, result.stdout, result.stderr)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("ingest", "truncated gzip"),
        ("info", "truncated manifest"),
        ("computed", "truncated counts"),
        ("counts", "nothing passes"),
    ],
)
def test_as_a_program_of_its_own(table: str, what: str, prepare, tmp_path: Path) -> None:
    (case,) = (case for case in TABLES[table] if case.what == what)
    words = prepare(case)
    before = tree(tmp_path)
    result = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=100, check=False)
    assert_one_line(case, result.returncode, result.stdout, result.stderr)
    assert tree(tmp_path) == before


def test_the_tables_hold_every_command_and_no_case_twice() -> None:
    commands = Counter(case.command.partition(" ")[0] for rows in TABLES.values() for case in rows)
    assert set(get_command(app).commands) <= set(commands)
    names = Counter(case.id for case in CASES)
    assert names.most_common(1)[0][1] == 1
