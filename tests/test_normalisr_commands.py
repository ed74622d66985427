"""Normalisr's pipelines, by its commands and by ours, the same words after the name; and what ours do besides."""

import argparse
import gzip
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest.mock import patch

import anndata
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import typer
import zarr
from gene_ontologies import GROWTH, REPAIR, SIGNAL, TERMS, gaf_line
from normalisr_pipelines import (
    COEXPRESSION,
    DIFFERENTIAL,
    NORMALISE,
    TERM_FILES,
    assert_same_component,
    assert_same_files,
    filled,
    read_matrix,
    run_in_shell,
    run_ours,
    run_published,
    write_inputs,
)
from test_cli import error_line, invoke, normalisr_dask

from normalisr_dask.cli.app import app
from normalisr_dask.cli.normalisr_commands import EXAMPLES
from normalisr_dask.ontology import EVIDENCE
from normalisr_dask.storage.number_text import write_rows
from normalisr_dask.testing import simulate_screen

BOUNDS = "--cell_read_count 300 --cell_gene_count=60 --gene_cell_prop 0.3"
NAMES = sorted(command.__name__ for command in EXAMPLES)


#: Runs the program and prints its peak memory in bytes.
MEASURED = """
from normalisr_dask.cli import main
from normalisr_dask.process_memory import peak_bytes
try:
    main()
finally:
    print(peak_bytes())
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Simulated counts, a design, batches, and a Gene Ontology."""
    folder = tmp_path_factory.mktemp("inputs")
    screen = simulate_screen(
        220,
        360,
        6,
        seed=4,
        n_controls=2,
        n_downstream=3,
        n_modules=2,
        module_size=24,
        module_strength=0.5,
        median_depth=2500.0,
        decades=1.5,
    )
    write_inputs(folder, screen.counts, screen.groupings.toarray()[:4], screen.gene_names)
    terms = dict.fromkeys(screen.modules[0], GROWTH) | dict.fromkeys(screen.modules[1], REPAIR)
    lines = [gaf_line(gene, gene, terms.get(gene, SIGNAL), "IDA") for gene in screen.gene_names]
    (folder / "go.gaf").write_text("!gaf-version: 2.1\n" + "\n".join(lines) + "\n")
    (folder / "go.obo").write_text(TERMS)
    return folder


def our_command(name: str):
    """Return our command as the command line has it."""
    return typer.main.get_command(app).commands[name]


def published_actions(name: str) -> list[argparse.Action]:
    """Return what the parser of a command of normalisr takes, in its order, but for the help."""
    with (
        patch.object(sys, "argv", ["normalisr", name]),
        patch.object(argparse.ArgumentParser, "parse_args", autospec=True, side_effect=InterruptedError) as parse,
        pytest.raises(InterruptedError),
    ):
        runpy.run_module("normalisr", run_name="__main__")
    (parser,) = parse.call_args.args
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [action for action in commands.choices[name]._actions if action.dest != "help"]


def copied(inputs: Path, folder: Path, *names: str) -> list[Path]:
    """Copy the inputs to folders of these names."""
    return [Path(shutil.copytree(inputs, folder / name)) for name in names]


def gene_symbols(real_data: Path) -> list[str]:
    """Return the symbols of the genes of pbmc3k."""
    with tarfile.open(real_data / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        lines = archive.extractfile("filtered_gene_bc_matrices/hg19/genes.tsv").read().decode().splitlines()
    return [line.split("\t")[1] for line in lines]


def identifiers(symbols: list[str], annotations: list[str]) -> list[str]:
    """Return what annotations call genes, since normalisr takes no other names without asking the web; unique."""
    known = {fields[2]: fields[1] for line in annotations if len(fields := line.split("\t")) > 2}
    names: dict[str, None] = {}
    for symbol in symbols:
        name = known.get(symbol, symbol)
        names[name if name not in names else f"{name}.{len(names)}"] = None
    return list(names)


def both_levels(theirs: Path, ours: Path, run_theirs, run_ours, *, least_correlation: float, **words: object) -> None:
    """Run two levels of co-expression; the second begins with normalisr's covariates, which are random, in both."""
    for folder in (theirs, ours):
        shutil.copy(folder / "cov_exp.tsv", folder / "cov_0.tsv")
    for level in (0, 1):
        commands = filled(COEXPRESSION, **words, LEVEL=level, NEXT=level + 1)
        run_theirs(theirs, commands)
        run_ours(ours, commands)
        component = f"cov_{level + 1}.tsv"
        assert_same_component(ours / component, theirs / component, least_correlation)
        shutil.copy(theirs / component, ours / component)


@pytest.fixture(scope="module")
def normalised(inputs, tmp_path_factory) -> tuple[Path, Path]:
    """Two folders of normalised expression, and of what comes before: normalisr's and ours."""
    theirs, ours = copied(inputs, tmp_path_factory.mktemp("normalised"), "theirs", "ours")
    commands = filled(NORMALISE, BOUNDS=BOUNDS, MATRIX="tsv.gz")
    run_published(theirs, commands)
    run_ours(ours, commands)
    return theirs, ours


class TestBesideNormalisr:
    def test_normalisation(self, normalised):
        theirs, ours = normalised
        assert_same_files(ours, theirs)

    def test_differential_expression(self, normalised, tmp_path):
        theirs, ours = (copied(folder, tmp_path, folder.name)[0] for folder in normalised)
        commands = filled(DIFFERENTIAL, MATRIX="tsv.gz")
        run_published(theirs, commands)
        run_ours(ours, commands)
        assert_same_files(ours, theirs)

    def test_coexpression_with_two_levels_of_terms(self, normalised, tmp_path, capsys):
        theirs, ours = (copied(folder, tmp_path, folder.name)[0] for folder in normalised)
        words = {"QCUT": 0.3, "TERMS": f"{TERM_FILES} -n 20 -m 2", "MATRIX": "tsv.gz"}
        both_levels(theirs, ours, run_published, run_ours, least_correlation=0.999, **words)
        assert_same_files(ours, theirs)

    @pytest.mark.slow
    @pytest.mark.timeout(1200)
    def test_pbmc3k_by_shell_commands(self, pbmc3k, pbmc3k_cell_types, real_data, tmp_path):
        inputs = tmp_path / "inputs"
        inputs.mkdir()
        annotations = gzip.decompress(next((real_data / "go").glob("*.gaf.gz")).read_bytes()).decode().splitlines()
        counting = [line for line in annotations if line.startswith("!") or line.split("\t")[6] in EVIDENCE]
        (inputs / "go.gaf").write_text("\n".join(counting) + "\n")
        (inputs / "go.obo").write_bytes(gzip.decompress(next((real_data / "go").glob("*.obo.gz")).read_bytes()))
        write_inputs(inputs, pbmc3k, pbmc3k_cell_types[:-2], identifiers(gene_symbols(real_data), counting))
        theirs, ours = copied(inputs, tmp_path, "theirs", "ours")
        commands = filled(NORMALISE + DIFFERENTIAL.lstrip(), BOUNDS="--gene_cell_prop 0.15", MATRIX="tsv")
        run_in_shell(theirs, "normalisr", commands)
        run_in_shell(ours, "normalisr-dask", commands)
        both_levels(
            theirs,
            ours,
            lambda folder, commands: run_in_shell(folder, "normalisr", commands),
            lambda folder, commands: run_in_shell(folder, f"{sys.executable} -m normalisr_dask", commands),
            least_correlation=0.999,
            QCUT="1E-15",
            TERMS=TERM_FILES,
            MATRIX="tsv",  # normalisr takes minutes to compress each of its matrices
        )
        assert_same_files(ours, theirs)


class TestStores:
    @pytest.fixture(scope="class")
    @staticmethod
    def chains(inputs, normalised, tmp_path_factory) -> tuple[Path, Path]:
        """Two folders of all results but terms: by text, and by Zarr stores."""
        folder = tmp_path_factory.mktemp("stores")
        (text,) = copied(normalised[1], folder, "text")
        (stores,) = copied(inputs, folder, "stores")
        tests = DIFFERENTIAL + "".join(COEXPRESSION.lstrip().splitlines(keepends=True)[:2])
        words = {"LEVEL": "exp", "QCUT": 0.3, "BOUNDS": BOUNDS}
        run_ours(text, filled(tests, MATRIX="tsv.gz", **words))
        run_ours(stores, filled(NORMALISE + tests.lstrip(), MATRIX="zarr", **words))
        return text, stores

    def test_a_chain_of_stores_gives_what_a_chain_of_text_does(self, chains):
        text, stores = chains
        compared = set()
        for store in stores.glob("*.zarr"):
            if store.name.startswith(("reads", "lcpm", "exp")):
                continue
            found, expected = read_matrix(store), read_matrix(text / f"{store.stem}.tsv.gz")
            compared.add(store.stem)
            if "pv" in store.stem:  # text has eight digits, and P-values many digits fewer that are sure
                found, expected = np.log10(np.maximum(found, 1e-290)), np.log10(np.maximum(expected, 1e-290))
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
        assert {"pv_ignore", "lfc_single", "vart_1", "coex_pv_exp", "dot_exp", "net_exp"} <= compared

    def test_expression_is_stored_as_counts_and_small_vectors(self, chains):
        text, stores = chains
        for name in ("lcpm", "exp"):
            store = zarr.open_group(stores / f"{name}.zarr", mode="r")
            assert {name for name, _ in store.groups()} == {"counts", "vectors"}
            assert anndata.read_zarr(stores / f"{name}.zarr" / "counts").X.nnz
            run_ours(stores, [f"subset {name}.zarr all.tsv -c cells_kept.txt cells_kept.txt"])
            expected = read_matrix(text / ("lcpm_kept.tsv.gz" if name == "lcpm" else "exp.tsv.gz"))
            if name == "exp":
                np.testing.assert_allclose(read_matrix(stores / "all.tsv"), expected, atol=1e-6)

    def test_counts_are_stored_as_counts(self, chains):
        text, stores = chains
        counts = anndata.read_zarr(stores / "reads_qc.zarr").X.toarray().T
        np.testing.assert_array_equal(counts, read_matrix(text / "reads_qc.tsv.gz"))

    def test_names_come_from_stores_of_counts(self, chains, tmp_path):
        store = chains[1] / "reads_qc.zarr"
        run_ours(tmp_path, [f"qc_reads {store} {store} {store} genes.txt cells.txt --cell_gene_count 70"])
        genes = (tmp_path / "genes.txt").read_text().splitlines()
        assert set(genes) <= set(anndata.read_zarr(store).var_names)

    @pytest.mark.parametrize("place", ["{folder}", "file://{folder}", "memory://{folder}"])
    def test_any_dense_array_is_a_matrix_and_so_are_urls(self, chains, tmp_path, place):
        text, place = chains[0], place.format(folder=tmp_path)
        names = ("design_kept.tsv", "exp.tsv.gz", "cov_exp.tsv")
        stores = [f"{place}/{name.partition('.')[0]}.zarr" for name in names]
        for name, store in zip(names, stores, strict=True):
            local = store.removeprefix("file://")
            zarr.create_array(local, data=read_matrix(text / name), chunks=(40, 37))
        run_ours(tmp_path, [f"de {' '.join(stores)} {place}/pv.zarr lfc.tsv --vart_out vart.tsv"])
        p_values = zarr.open_array(f"{place}/pv.zarr", mode="r")[...]
        np.testing.assert_allclose(p_values, read_matrix(text / "pv_ignore.tsv.gz"), rtol=1e-7)
        np.testing.assert_allclose(
            read_matrix(tmp_path / "lfc.tsv"), read_matrix(text / "lfc_ignore.tsv.gz"), rtol=1e-7
        )

    def test_dense_counts_vectors_and_sparse_designs(self, chains, tmp_path):
        text = chains[0]
        counts, design = read_matrix(text / "reads_qc.tsv.gz"), read_matrix(text / "design_kept.tsv")
        zarr.create_array(tmp_path / "reads.zarr", data=counts)
        run_ours(tmp_path, ["lcpm reads.zarr lcpm.tsv scale.zarr cov.tsv --var_out var.tsv -r 3"])
        np.testing.assert_array_equal(read_matrix(tmp_path / "lcpm.tsv"), read_matrix(text / "lcpm.tsv.gz"))
        assert zarr.open_array(tmp_path / "scale.zarr").shape == counts.shape[:1]
        assert (read_matrix(tmp_path / "var.tsv") > 0).all()
        for name in ("lcpm_kept.tsv.gz", "weights_kept.tsv.gz", "cov_kept.tsv", "exp.tsv.gz", "cov_exp.tsv"):
            shutil.copy(text / name, tmp_path)
        scipy.io.mmwrite(tmp_path / "design.mtx", scipy.sparse.coo_array(design), field="integer")
        run_ours(
            tmp_path,
            [
                "normvar lcpm_kept.tsv.gz weights_kept.tsv.gz cov_kept.tsv scale.zarr exp.tsv cov.tsv",
                "de design.mtx exp.tsv cov.tsv pv.tsv lfc.tsv --clfc_out effects.tsv",
            ],
        )
        np.testing.assert_allclose(
            read_matrix(tmp_path / "lfc.tsv"), read_matrix(text / "lfc_ignore.tsv.gz"), rtol=1e-6, atol=1e-7
        )
        n_covariates = read_matrix(tmp_path / "cov.tsv").shape[0]
        assert read_matrix(tmp_path / "effects.tsv").shape == (design.shape[0] * counts.shape[0], n_covariates)

    def test_weights_and_scales_may_be_stores(self, chains, tmp_path):
        text, stores = chains
        for name in ("lcpm.zarr", "lcpm_kept.zarr"):
            shutil.copytree(stores / name, tmp_path / name)
        for name in ("cov_norm.tsv", "cells_qc.txt", "cells_kept.txt", "cov_kept.tsv", "scale.tsv"):
            shutil.copy(text / name, tmp_path)
        run_ours(
            tmp_path,
            [
                "fitvar lcpm.zarr cov_norm.tsv weights.zarr",
                "qc_outlier weights.zarr cells_qc.txt kept.txt --outrate 0.03",
                "subset weights.zarr weights_kept.zarr -c cells_qc.txt kept.txt",
                "normvar lcpm_kept.zarr weights_kept.zarr cov_kept.tsv scale.tsv exp.tsv cov_exp.tsv",
            ],
        )
        assert (tmp_path / "kept.txt").read_text() == (text / "cells_kept.txt").read_text()
        found = zarr.open_array(tmp_path / "weights_kept.zarr", mode="r")[...].ravel()
        np.testing.assert_allclose(found, read_matrix(text / "weights_kept.tsv.gz").ravel(), rtol=1e-6)
        np.testing.assert_allclose(read_matrix(tmp_path / "exp.tsv"), read_matrix(text / "exp.tsv.gz"), atol=1e-6)

    def test_expression_is_no_counts(self, chains, tmp_path):
        names = (chains[1] / "genes.txt", chains[1] / "cells.txt", tmp_path / "g", tmp_path / "c")
        stderr = error_line(invoke("qc_reads", chains[1] / "lcpm.zarr", *names))
        assert "holds expression made of counts, expected the counts themselves: they are at" in stderr

    def test_on_a_cluster(self, chains, two_workers, tmp_path):
        text, stores = chains
        cluster = f"--scheduler {two_workers.scheduler_address}"
        inputs = [str(text / name) for name in ("design_kept.tsv", "exp.tsv.gz", "cov_exp.tsv")]
        run_ours(tmp_path, [f"de {' '.join(inputs)} pv.tsv lfc.tsv.gz {cluster}"])
        np.testing.assert_array_equal(read_matrix(tmp_path / "pv.tsv"), read_matrix(text / "pv_ignore.tsv.gz"))
        run_ours(stores, [f"coex exp.zarr cov_exp.tsv again.zarr {cluster}"])  # workers are in another folder
        np.testing.assert_array_equal(read_matrix(stores / "again.zarr"), read_matrix(stores / "coex_pv_exp.zarr"))
        shutil.rmtree(stores / "again.zarr")


class TestFiles:
    def test_rows_and_columns_come_in_the_order_of_the_names(self, tmp_path):
        matrix = np.arange(12.0).reshape(3, 4)
        np.savetxt(tmp_path / "a.tsv", matrix, delimiter="\t")
        scipy.io.mmwrite(tmp_path / "a.mtx", scipy.sparse.coo_array(matrix.astype(int)), field="integer")
        for name, names in (("r", "abc"), ("r2", "ca"), ("c", "wxyz"), ("c2", "zwx")):
            (tmp_path / name).write_text("\n".join(names) + "\n\n")
        run_ours(
            tmp_path,
            [f"subset {given} -r r r2 -c c c2" for given in ("a.tsv b.tsv", "a.tsv b.zarr", "-s a.mtx c.tsv")],
        )
        for name in ("b.tsv", "b.zarr", "c.tsv"):
            np.testing.assert_array_equal(read_matrix(tmp_path / name), matrix[[2, 0]][:, [3, 0, 1]])

    def test_nodummy_leaves_out_columns_when_rows_are_chosen(self, tmp_path):
        (tmp_path / "a.tsv").write_text("1\t2\t3\n1\t5\t3\n4\t4\t4\n")
        (tmp_path / "all").write_text("a\nb\nc")
        (tmp_path / "some").write_text("a\nb")
        run_ours(tmp_path, ["subset a.tsv b.tsv --nodummy -r all some"])
        assert (tmp_path / "b.tsv").read_text() == "2\n5\n"

    def test_an_input_may_be_the_output(self, tmp_path):
        np.savetxt(tmp_path / "cov.tsv", [[1.0, 2, 3, 5]], delimiter="\t")
        (tmp_path / "cells").write_text("a\nb\nc\nd")
        (tmp_path / "some").write_text("a\nd")
        commands = [
            "normcov cov.tsv cov.tsv",
            "subset cov.tsv cov.zarr -c cells cells",
            "subset cov.zarr cov.zarr -c cells some",
        ]
        run_ours(tmp_path, commands)
        np.testing.assert_allclose(read_matrix(tmp_path / "cov.zarr"), read_matrix(tmp_path / "cov.tsv")[:, [0, 3]])

    def test_pipes_and_devices(self, tmp_path):
        np.savetxt(tmp_path / "cov.tsv", [[1.0, 2, 3, 5]], delimiter="\t")
        run_in_shell(tmp_path, "normalisr-dask", ["normcov <(cat cov.tsv) out.tsv", "normcov cov.tsv /dev/null"])
        assert read_matrix(tmp_path / "out.tsv").shape == (2, 4)

    def test_verbose_tells_the_steps(self, tmp_path):
        np.savetxt(tmp_path / "cov.tsv", [[1.0, 2, 3, 5]], delimiter="\t")
        result = normalisr_dask("-v", "normcov", "cov.tsv", "out.tsv", folder=tmp_path)
        assert result.returncode == 0
        assert [line.split(" ", 2)[2] for line in result.stderr.splitlines()] == [
            "reading cov.tsv",
            "computing",
            "writing out.tsv",
        ]


class TestMemory:
    @pytest.mark.slow
    def test_it_does_not_grow_with_the_matrix(self, tmp_path):
        peaks = []
        for n_rows in (1000, 3000):  # 160 and 480 MB as float64
            random = np.random.default_rng(1)
            blocks = (random.normal(size=(100, 20_000)) for _ in range(n_rows // 100))
            write_rows(tmp_path / "in.tsv", blocks, gzipped=False)
            (tmp_path / "names").write_text("\n".join(map(str, range(20_000))))
            words = [sys.executable, "-c", MEASURED, "subset", "in.tsv", "out.tsv.gz", "-c", "names", "names"]
            result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
            peaks.append(int(result.stdout))
        assert peaks[1] < 1.3 * peaks[0]
        assert peaks[1] < 900e6  # of which 250 MB are libraries


class TestWords:
    @pytest.mark.parametrize("name", NAMES)
    def test_arguments_options_and_defaults_are_normalisrs(self, name):
        theirs, ours = published_actions(name), our_command(name).params
        positional = [action.dest for action in theirs if not action.option_strings]
        assert [given.metavar for given in ours if given.param_type_name == "argument"] == positional
        options = {flag: option for option in ours if option.param_type_name == "option" for flag in option.opts}
        for action in theirs:
            for flag in action.option_strings:
                assert options[flag].is_flag == (action.nargs == 0)
                assert options[flag].nargs == (action.nargs or 1)
                if action.nargs == 0 or action.default is None:
                    assert options[flag].default in {None, False, 500}  # 0 and 500 are what their functions take
                else:
                    assert options[flag].default == (action.type or str)(action.default)

    def test_options_may_be_abbreviated_where_one_begins_so(self, tmp_path):
        (tmp_path / "counts.tsv").write_text("1\t0\n3\t4\n")
        (tmp_path / "names").write_text("a\nb")
        bounds = "--gene_cell_c 0 --gene_r=2 --cell_read 0 --cell_gene_count 0"
        run_ours(tmp_path, [f"qc_reads counts.tsv names names genes cells {bounds}"])
        assert (tmp_path / "genes").read_text() == "b"
        assert "No such option: --gene" in error_line(invoke("qc_reads", "--gene", "3"))

    @pytest.mark.parametrize("name", NAMES)
    def test_help_tells_what_it_does_and_gives_an_example(self, name):
        shown = invoke(name, "--help").stdout
        assert f"Usage: normalisr-dask {name}" in shown
        assert f"Example: normalisr-dask {name}" in shown
        assert "Zarr store" in shown
        for argument in our_command(name).params:
            assert argument.help
