"""The command line as its users meet it: the real program in its own process, and for the rest Typer's runner."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import MISSING, fields
from pathlib import Path

import anndata
import pandas as pd
import psutil
import pytest
from typer.testing import CliRunner

from normalisr_dask.cli.app import OVERVIEW, app
from normalisr_dask.cli.messages import describe, one_line_warnings
from normalisr_dask.cli.options import ClusterOptions, GroupingOptions, OtherGroupings, QualityOptions, ScreenOptions
from normalisr_dask.cli.run_work import inflation_text, note_many_left_out
from normalisr_dask.cluster import ClusterSettings
from normalisr_dask.pipeline import RunSettings
from normalisr_dask.summary import FamilyInflation, RunSummary
from normalisr_dask.testing import SimulatedScreen, simulate_screen, write_cell_ranger_folder

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
COMMANDS = ("demo", "ingest", "run", "info", "report", "assign-guides", "pseudobulk", "vooma")
MADE_BY = "Made by (paths as they were given there)"
SMALL_CLUSTER = ("--workers", "1", "--memory-limit", "2GB")


def normalisr_dask(*arguments: object, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """Run the program in a process of its own."""
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        timeout=200,
        check=False,
    )


def invoke(*arguments: object):
    """Run the program in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)), env={"NORMALISR_DASK_DEBUG": ""})


def error_line(result) -> str:
    """Return the one line of stderr of a command that failed as it should."""
    code = result.exit_code if hasattr(result, "exit_code") else result.returncode
    lines = result.stderr.splitlines()
    assert code == 2
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("normalisr-dask: error: ")
    return lines[0].removeprefix("normalisr-dask: error: ")


@pytest.fixture(scope="module")
def screen() -> SimulatedScreen:
    return simulate_screen(n_genes=700, n_cells=600, n_guides=8, seed=3, n_downstream=3, n_modules=2, module_size=20)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, screen) -> Path:
    """A Cell Ranger folder, a table of its cells, and one of their guides."""
    folder = tmp_path_factory.mktemp("inputs")
    write_cell_ranger_folder(folder / "matrix", screen.counts, screen.gene_names, screen.cell_names)
    cells = pd.Index(screen.cell_names, name="cell")
    guides = pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)
    guides.to_csv(folder / "guides.tsv.gz", sep="\t")
    batch = pd.Series(range(len(cells)), index=cells) % 3
    obs = pd.DataFrame({"guide": guides.idxmax(axis=1), "batch": batch.map("batch_{}".format)})
    obs.to_csv(folder / "cells.tsv", sep="\t")
    return folder


@pytest.fixture(scope="module")
def store(inputs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store") / "counts.zarr"
    result = invoke("ingest", inputs / "matrix", path, "--obs", inputs / "cells.tsv")
    assert result.exit_code == 0, result.stderr
    return path


class TestHelp:
    def test_without_arguments_it_shows_what_one_can_do(self):
        result = normalisr_dask()
        assert result.returncode == 0
        assert result.stdout == OVERVIEW
        assert result.stderr == ""
        shown = re.findall(r"^[1-5]\. .+\n     normalisr-dask (\S+)", result.stdout, re.MULTILINE)
        assert shown == ["demo", "ingest", "run", "info", "pseudobulk"]
        assert len(result.stdout.splitlines()) <= 24

    def test_the_commands_that_it_shows_can_be_typed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        commands = [line.split()[1:] for line in OVERVIEW.splitlines() if line.startswith("     normalisr-dask ")]
        for arguments in commands:
            assert invoke(*arguments, "--help").exit_code == 0

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_explains_itself(self, command):
        result = invoke(command, "--help")
        assert result.exit_code == 0
        assert f"Usage: normalisr-dask {command}" in result.stdout
        assert f"Example: normalisr-dask {command}" in result.stdout
        assert "TODO" not in result.stdout

    def test_group_help_lists_the_commands_and_the_version_is_a_version(self):
        assert all(command in invoke("-h").stdout for command in COMMANDS)
        assert re.fullmatch(r"normalisr-dask \d+\.\d+\.\d+\S*\n", invoke("--version").stdout)

    def test_python_m_is_the_same_program(self):
        result = subprocess.run([sys.executable, "-m", "normalisr_dask"], capture_output=True, text=True, check=True)
        assert result.stdout == OVERVIEW

    @pytest.mark.parametrize("option", [field.name for field in fields(ClusterOptions)])
    def test_computing_commands_take_all_cluster_options(self, option):
        typed = f"--{option.replace('_', '-')}"
        assert all(typed in invoke(command, "--help").stdout for command in ("run", "demo"))


class TestOptionsAndSettings:
    def test_cluster_options_are_the_settings_of_the_cluster(self):
        options = {field.name: field.default for field in fields(ClusterOptions)}
        settings = {field.name: field.default for field in fields(ClusterSettings)}
        assert [settings.pop(f"{which}_seconds") for which in ("answer", "worker")] == [10, 60]
        assert options == settings

    def test_run_options_are_the_settings_of_a_run_with_the_same_defaults(self):
        groups = (GroupingOptions, ScreenOptions, QualityOptions)
        options = {field.name: field.default for group in groups for field in fields(group)}
        settings = {field.name: field.default for field in fields(RunSettings) if field.default is not MISSING}
        assert settings.pop("coex") is False
        assert settings.pop("qcut") == 0.05
        assert settings.pop("coex_store") == "all"
        assert [settings.pop(name) for name in ("go", "go_levels", "go_names")] == [None, 5, None]
        for names in ("covariate_columns", "control"):
            assert settings.pop(names) == ()
            assert options.pop(names) is None
        assert options == settings
        assert options["other_groupings"] is OtherGroupings.IGNORE


class TestErrors:
    """What is wrong with command lines and inputs: test_bad_input.py."""

    def test_a_store_that_is_there_is_not_overwritten_unless_asked(self, tmp_path, inputs):
        assert invoke("ingest", inputs / "matrix", tmp_path / "counts.zarr").exit_code == 0
        assert "there is already a store at" in error_line(
            invoke("ingest", inputs / "matrix", tmp_path / "counts.zarr")
        )
        assert invoke("ingest", inputs / "matrix", tmp_path / "counts.zarr", "--overwrite").exit_code == 0

    @pytest.mark.slow
    def test_a_scheduler_that_does_not_answer_is_one_line(self, store, tmp_path):
        result = normalisr_dask("run", store, "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1")
        assert "the Dask scheduler at tcp://127.0.0.1:1 did not answer within 10 seconds" in error_line(result)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("how", [{"option": "--debug"}, {"variable": "1"}])
    def test_the_traceback_is_shown_when_asked_for(self, how):
        arguments = ["info", "nowhere.zarr", *([how["option"]] if "option" in how else [])]
        result = normalisr_dask(*arguments, NORMALISR_DASK_DEBUG=how.get("variable", ""))
        assert result.returncode == 1
        assert result.stderr.startswith("Traceback (most recent call last)")
        assert "FileNotFoundError: there is no count store at nowhere.zarr" in result.stderr

    def test_messages_say_what_happened_in_words(self):
        assert describe(ValueError("too few cells")) == "too few cells"
        assert (
            describe(FileNotFoundError(2, "No such file or directory", "a.tsv")) == "a.tsv: No such file or directory"
        )
        assert describe(MemoryError()).startswith("out of memory; use fewer workers")
        assert describe(KeyError("gene")).startswith("KeyError: 'gene'; this should not happen: please report it")
        assert describe(ValueError()).startswith("ValueError: ; this should not happen")


class TestWarnings:
    def test_a_warning_is_one_line(self, tmp_path, screen):
        names = ["twice", "twice", *screen.gene_names[2:]]
        write_cell_ranger_folder(tmp_path / "matrix", screen.counts, names, screen.cell_names)
        result = normalisr_dask("ingest", "matrix", "counts.zarr", folder=tmp_path)
        assert result.returncode == 0
        assert result.stderr.splitlines() == [
            "normalisr-dask: warning: matrix/matrix.mtx.gz: 1 duplicate gene names, the first 'twice', "
            "were made unique by suffixes -1, -2, …"
        ]

    def test_each_text_is_shown_once_and_none_for_programmers(self, capsys):
        program = "import warnings\nfor text in ('one', 'two', 'one'):\n    warnings.warn(text, UserWarning)"
        with one_line_warnings():
            exec(program)
            exec("import warnings; warnings.warn('old', DeprecationWarning)")
        assert capsys.readouterr().err == "normalisr-dask: warning: one\nnormalisr-dask: warning: two\n"


class TestIngestAndInfo:
    def test_ingest_tells_what_is_in_the_store(self, tmp_path, inputs, screen):
        result = normalisr_dask(
            "ingest", inputs / "matrix", "counts.zarr", "--obs", inputs / "cells.tsv", folder=tmp_path
        )
        assert result.returncode == 0
        assert result.stderr == ""
        n_genes, n_cells = screen.counts.shape
        for expected in (
            "Count store counts.zarr",
            f"cells       {n_cells:,}",
            f"genes       {n_genes:,}",
            f"entries     {screen.counts.nnz:,} ({screen.counts.nnz / n_genes / n_cells:.2%} of the matrix)",
            f"counts      {screen.counts.sum():,} in all",
            "batch  3 labels: 'batch_0', 'batch_1', 'batch_2'",
            "matrix.mtx.gz",
            "To test it: normalisr-dask run counts.zarr -o results --groupby guide",
        ):
            assert expected in result.stdout
        assert anndata.read_zarr(tmp_path / "counts.zarr").shape == (n_cells, n_genes)
        assert normalisr_dask("info", "counts.zarr", folder=tmp_path).stdout == result.stdout

    def test_all_options_reach_the_ingest(self, tmp_path, screen):
        cells = ["".join(("other_", name)) for name in screen.cell_names]
        for number, names in enumerate((screen.cell_names, cells)):
            write_cell_ranger_folder(tmp_path / str(number), screen.counts, screen.gene_names, names)
        (tmp_path / "1" / "features.tsv.gz").write_bytes(
            gzip.compress("".join(f"g{i}\tg{i}\tGene Expression\n" for i in range(len(screen.gene_names))).encode())
        )
        both = [tmp_path / "0", tmp_path / "1"]
        assert "the inputs differ in their genes" in error_line(invoke("ingest", *both, tmp_path / "x.zarr"))
        result = invoke("ingest", *both, tmp_path / "joined.zarr", "--join", "outer")
        assert result.exit_code == 0
        assert f"cells       {2 * len(cells):,}" in result.stdout
        assert f"genes       {2 * len(screen.gene_names):,}" in result.stdout

        genes = tmp_path / "genes.txt"
        genes.write_text("".join(f"renamed_{i}\n" for i in range(len(screen.gene_names))))
        result = invoke("ingest", tmp_path / "0", tmp_path / "renamed.zarr", "--genes", genes)
        assert result.exit_code == 0
        assert anndata.read_zarr(tmp_path / "renamed.zarr").var_names[1] == "renamed_1"


class TestRun:
    def test_a_dry_run_prints_the_plan_and_writes_nothing(self, store, tmp_path):
        result = invoke("run", store, "-o", tmp_path / "out", "--groupby", "guide", "--coex", "--dry-run")
        assert result.exit_code == 0, result.stderr
        for expected in (
            "Plan; nothing was computed",
            "peak of a task",
            "de: blocks: 1 × 600 cells, 1 × 8 groupings in 1 submission\n",
            "qc",
            "normalisation",
            "de",
            "coex",
            "a worker",
        ):
            assert expected in result.stdout
        assert list(tmp_path.iterdir()) == []

    def test_a_dry_run_plans_for_the_cluster_that_was_asked_for(self, store, tmp_path):
        size = ("--workers", "3", "--threads-per-worker", "2", "--memory-limit", "1.5GB")
        result = invoke("run", store, "-o", tmp_path / "out", "--dry-run", *size)
        assert "Memory limit: 1.5 GB a worker, 3 workers with 2 tasks at a time each" in result.stdout
        assert re.search(r"the command itself takes about \d{3}\.\d MB$", result.stdout, re.MULTILINE)

    @pytest.mark.slow
    def test_counts_become_results_and_a_second_call_goes_on(self, inputs, store, tmp_path, screen):
        command = (
            "run", store, "-o", "out", "--groupings", inputs / "guides.tsv.gz", "--covariate-columns", "batch",
            "--min-gene-cells", "20", "--min-cell-reads", "100", *SMALL_CLUSTER,
        )  # fmt: skip
        result = normalisr_dask(*command, folder=tmp_path)
        assert result.returncode == 0, result.stderr
        assert f"of {len(screen.cell_names):,}" in result.stdout
        assert "hits at Q ≤ 0.05" in result.stdout
        assert "out/results.zarr" in result.stdout
        assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
            "Quality control of reads",
            "Normalisation",
            "Differential expression",
            "Report",
        ]
        assert "report  out/report.html" in result.stdout
        assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
        table = pd.read_parquet(tmp_path / "out" / "de.parquet")
        assert set(table["grouping"]) == set(screen.grouping_names)
        hits = table[table["qvalue"] <= 0.05]
        found = f"{len(hits):,} at Q ≤ 0.05 in {hits['grouping'].nunique()} of {len(screen.grouping_names)} groupings"
        assert f"hits         {found}\n" in result.stdout

        again = normalisr_dask(*command, "--coex", "--no-report", folder=tmp_path)
        assert again.returncode == 0, again.stderr
        assert "report" not in again.stdout
        stages = dict(line.split(": ", 1) for line in again.stderr.splitlines())
        assert [what.split(",")[0] for what in stages.values()][:3] == ["done earlier"] * 3
        assert stages["Co-expression"].startswith("done in ")
        assert (tmp_path / "out" / "coex_edges.parquet").is_file()

        told = invoke("info", tmp_path / "out")
        assert told.exit_code == 0
        assert "not done yet" not in told.stdout
        made_by = told.stdout.splitlines()[told.stdout.splitlines().index(MADE_BY) + 1]
        once_more = normalisr_dask(*shlex.split(made_by)[1:], *SMALL_CLUSTER, "--no-report", folder=tmp_path)
        assert once_more.stderr.count(": done earlier") == 5 == len(once_more.stderr.splitlines())

        other = normalisr_dask(*command, "--min-cell-genes", "7", folder=tmp_path)
        assert "out holds another run: it has min_cell_genes = 100, asked for is 7" in error_line(other)

    @pytest.mark.slow
    def test_all_options_of_a_screen_reach_the_run(self, inputs, store, tmp_path, screen):
        targets = {name: name.partition("_")[0] for name in screen.grouping_names}
        pd.Series(targets, name="target").rename_axis("guide").to_csv(tmp_path / "targets.csv")
        genes = [*dict.fromkeys(targets.values())]
        genes.remove("control")
        pairs = [(grouping, gene) for grouping in screen.grouping_names for gene in genes]
        pd.DataFrame(pairs, columns=["guide", "gene"]).to_csv(tmp_path / "pairs.tsv", sep="\t", index=False)
        (tmp_path / "controls.txt").write_text("control_g2\n")
        result = normalisr_dask(
            "run", store, "-o", "out", "--groupings", inputs / "guides.tsv.gz", "--targets", "targets.csv",
            "--test", "guides", "--control", "control_g1, control_g3", "--control-file", "controls.txt",
            "--control-use", "negative", "--pairs", "pairs.tsv", "--permutations", "2", "--seed", "3",
            "--min-grouping-cells", "5", "--min-gene-cells", "5", "--min-cell-reads", "100", *SMALL_CLUSTER,
            folder=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert [line.split(":")[0] for line in result.stderr.splitlines()][-2:] == ["Calibration", "Report"]
        table = pd.read_parquet(tmp_path / "out" / "de.parquet")
        assert set(table[["grouping", "gene"]].itertuples(index=False, name=None)) <= set(pairs)
        assert table.set_index("grouping")["target"].to_dict() == targets
        n_control = int(table["grouping"].isin(["control_g1", "control_g2", "control_g3"]).sum())
        shown = next(line for line in result.stdout.splitlines() if line.startswith("  inflation "))
        numbers = [int(part.split(" over ")[1].split()[0].replace(",", "")) for part in shown.split(";")]
        assert numbers == [len(table) - n_control, n_control, 2 * len(table)]
        assert "tests of controls" in shown
        told = invoke("info", tmp_path / "out").stdout
        assert re.search(r"calibration +inflation .* tested, .* control, .* permuted; ", told)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("send", "end", "code", "said"),
        [  # a terminal sends it to every process of the group
            pytest.param(os.killpg, signal.SIGINT, 130, "interrupted", id="ctrl-c"),
            pytest.param(os.kill, signal.SIGTERM, 143, "terminated", id="sigterm"),
        ],
    )
    def test_a_signal_is_one_line_and_ends_the_cluster_and_the_same_command_goes_on(
        self, inputs, store, tmp_path, send, end, code, said
    ):
        command = [
            PROGRAM, "run", store, "-o", "out", "--groupings", inputs / "guides.tsv.gz", "--min-gene-cells", "20",
            "--min-cell-reads", "100", "--log-json", "log.json", *SMALL_CLUSTER,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first.startswith("Quality control of reads: done in")
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        send(process.pid, end)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        assert stdout == ""
        *lines, last = stderr.splitlines()
        assert last == f"normalisr-dask: {said}: run the same command again to go on"
        assert all(": done in " in line for line in lines), stderr
        events = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
        assert (events[-1]["event"], events[-1]["error"]) == ("failed", "interrupted")
        gone, alive = psutil.wait_procs(workers, timeout=10)
        assert gone
        assert alive == []
        done = json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]
        assert "qc" in done

        again = normalisr_dask(*command[1:], folder=tmp_path)
        assert again.returncode == 0, again.stderr
        assert again.stderr.startswith("Quality control of reads: done earlier")

    @pytest.mark.slow
    def test_ctrl_c_again_and_again_until_it_has_ended_is_one_line(self, inputs, store, tmp_path):
        command = [
            PROGRAM, "run", store, "-o", "out", "--groupings", inputs / "guides.tsv.gz", "--min-gene-cells", "20",
            "--min-cell-reads", "100", *SMALL_CLUSTER,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stderr is not None
        process.stderr.readline()
        while process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.1)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert stdout == ""
        *lines, last = stderr.splitlines()
        assert last == "normalisr-dask: interrupted: run the same command again to go on"
        assert all(": done in " in line for line in lines), stderr

    @pytest.mark.slow
    def test_ctrl_c_while_ingesting_leaves_nothing_that_looks_like_a_store(self, tmp_path):
        path = tmp_path / "long.mtx"
        n_cells = 200_000
        with path.open("w") as file:
            file.write(f"%%MatrixMarket matrix coordinate integer general\n100 {n_cells} {20 * n_cells}\n")
            for cell in range(1, n_cells + 1):
                file.write("".join(f"{gene} {cell} 1\n" for gene in range(1, 21)))
        for what in ("genes", "cells"):
            number = 100 if what == "genes" else n_cells
            (tmp_path / f"{what}.txt").write_text("".join(f"{what}_{i}\n" for i in range(number)))
        names = ["--genes", "genes.txt", "--cells", "cells.txt"]
        process = subprocess.Popen(
            [PROGRAM, "ingest", "long.mtx", "counts.zarr", *names],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("counts.zarr*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert stderr == "normalisr-dask: interrupted: run the same command again to go on\n"
        assert not (tmp_path / "counts.zarr").exists()


@pytest.mark.parametrize(
    ("n_tests", "expected"),
    [(3, "6.458 over 3 tests of controls (too few to judge by)"), (1200, "6.458 over 1,200 tests of controls")],
)
def test_inflation_over_few_tests_is_said_to_be_so(n_tests: int, expected: str):
    assert inflation_text(FamilyInflation("control", n_tests, 6.4581)) == expected


@pytest.mark.parametrize(("kept", "is_told"), [(50, False), (49, True)])
def test_where_most_cells_are_left_out_it_says_by_which_bounds(capsys, kept: int, is_told: bool):
    summary = RunSummary(100, kept, 300, 247, (), (), None, (), 1.0, 1, 1, "results.zarr", ())
    note_many_left_out(summary, RunSettings("counts.zarr", "out", min_cell_genes=30))
    told = capsys.readouterr().err
    assert ("left out 51 of 100 cells; a cell needed 500 reads (--min-cell-reads) and 30 genes" in told) == is_told
