"""Normalisr's pipelines as the words of its commands, data to run them on, and how their files are compared."""

import gzip
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import oracles
import pandas as pd
import scipy.io
import scipy.sparse
import zarr
from comparing import NEARLY_ONE, SMALLEST_LOG10_P, assert_close
from typer.testing import CliRunner

from normalisr_dask.cli.app import app

#: From counts to normalised expression: MATRIX is the suffix of large matrices, BOUNDS are options.
NORMALISE = """
qc_reads -s reads.mtx.gz genes.txt cells.txt genes_qc.txt cells_qc.txt BOUNDS
subset -s reads.mtx.gz reads_qc.MATRIX -r genes.txt genes_qc.txt -c cells.txt cells_qc.txt
subset design.tsv design_qc.tsv.gz -c cells.txt cells_qc.txt
subset batches.tsv batches_qc.tsv --nodummy -c cells.txt cells_qc.txt
lcpm reads_qc.MATRIX lcpm.MATRIX scale.tsv cov_all.tsv.gz -c batches_qc.tsv -n 1
normcov cov_all.tsv.gz cov_norm.tsv
fitvar lcpm.MATRIX cov_norm.tsv weights.tsv
qc_outlier weights.tsv cells_qc.txt cells_kept.txt --outrate 0.03
subset lcpm.MATRIX lcpm_kept.MATRIX -c cells_qc.txt cells_kept.txt
subset cov_norm.tsv cov_kept.tsv -c cells_qc.txt cells_kept.txt
subset weights.tsv weights_kept.tsv.gz -c cells_qc.txt cells_kept.txt
subset design_qc.tsv.gz design_kept.tsv -c cells_qc.txt cells_kept.txt
normvar lcpm_kept.MATRIX weights_kept.tsv.gz cov_kept.tsv scale.tsv exp.MATRIX cov_exp.tsv -n 1 -b 100
"""

DIFFERENTIAL = """
de design_kept.tsv exp.MATRIX cov_exp.tsv pv_ignore.MATRIX lfc_ignore.MATRIX -n 1 --vart_out vart_ignore.MATRIX
de -m ignore -d 2 -b 50 design_kept.tsv exp.MATRIX cov_exp.tsv pv_2.MATRIX lfc_2.MATRIX -n 1 --vard_out vard_2.tsv
de -m single design_kept.tsv exp.MATRIX cov_exp.tsv pv_single.MATRIX lfc_single.MATRIX -n 1 --vart_out vart_1.MATRIX
de design_kept.tsv exp.MATRIX cov_exp.tsv pv_cov.MATRIX lfc_cov.MATRIX -m covariate -n 1 --vard_out vard_cov.tsv.gz
"""

COEXPRESSION = """
coex exp.MATRIX cov_LEVEL.tsv coex_pv_LEVEL.MATRIX -n 1 --var_out var_LEVEL.tsv --dot_out dot_LEVEL.MATRIX
binnet coex_pv_LEVEL.MATRIX net_LEVEL.MATRIX QCUT
gocovt exp.MATRIX cov_LEVEL.tsv net_LEVEL.MATRIX genes_qc.txt go.obo go.gaf cov_NEXT.tsv TERMS
"""
TERM_FILES = "--master_out master_LEVEL.txt --goe_out goe_LEVEL.tsv --go_out go_LEVEL.txt"


def filled(script: str, **words: object) -> list[str]:
    """Return the commands of a script with its words in capitals filled in."""
    for word, value in words.items():
        script = script.replace(word, str(value))
    return script.strip().splitlines()


def write_inputs(folder: Path, counts, design: np.ndarray, genes: list[str]) -> None:
    """Write counts as Matrix Market, a design and batches as text, and names."""
    n_cells = counts.shape[1]
    with gzip.open(folder / "reads.mtx.gz", "wb") as stream:
        scipy.io.mmwrite(stream, scipy.sparse.coo_array(counts), field="integer")
    batches = np.vstack([np.arange(n_cells) % 3 == 0, np.zeros(n_cells)])  # --nodummy leaves out the second
    for name, matrix in (("design.tsv", design), ("batches.tsv", batches)):
        np.savetxt(folder / name, matrix, fmt="%i", delimiter="\t")
    (folder / "genes.txt").write_text("\n".join(genes) + "\n")
    (folder / "cells.txt").write_text("".join(f"cell{number}\n" for number in range(n_cells)))


# ---- three ways to run commands


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_published(folder: Path, commands: list[str]) -> None:
    """Run normalisr's commands in this process."""
    for command in commands:
        with inside(folder), oracles.quiet(), patch.object(sys, "argv", ["normalisr", *shlex.split(command)]):
            runpy.run_module("normalisr", run_name="__main__")


def run_ours(folder: Path, commands: list[str]) -> None:
    """Run our commands in this process."""
    for command in commands:
        with inside(folder):
            result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}: {result.stderr}"
        assert result.stderr == ""


def run_in_shell(folder: Path, program: str, commands: list[str]) -> None:
    """Run commands of a program by bash."""
    script = "\n".join(f"{program} {command}" for command in commands)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euc", script], cwd=folder, env={**os.environ, "PATH": path}, check=True, capture_output=True
    )


# ---- comparison


def read_matrix(path: Path) -> np.ndarray:
    """Read text by NumPy, or a dense Zarr array as it would be written to text."""
    if path.suffix == ".zarr":
        values = zarr.open_array(path, mode="r")[...]
        return values.astype(np.float64).reshape(values.shape[0], -1)
    return np.loadtxt(path, delimiter="\t", ndmin=2)


def assert_same_files(found: Path, expected: Path, *, tolerance: float = 1e-6) -> None:
    """Assert that a folder has every file of another, of the same names, numbers and shapes."""
    files = sorted(file for file in expected.iterdir() if file.is_file())
    assert sorted(file.name for file in found.iterdir()) == [file.name for file in files]
    for file in files:
        mine = found / file.name
        if file.suffix == ".txt" and not file.name.startswith("go_"):
            assert mine.read_text() == file.read_text(), file.name
        elif file.name.startswith("go_"):
            p_values = pd.read_csv(found / f"goe{file.stem[2:]}.tsv", sep="\t", index_col="GO")["p_uncorrected"]
            term = file.read_text().replace("\n", "")  # normalisr writes each letter on a line of its own
            # which of terms of the same P-value comes first is chance in normalisr
            assert np.isclose(p_values[mine.read_text()], p_values[term], rtol=1e-9, atol=0)
        elif file.name.startswith("goe_"):
            assert_same_terms(mine, file)
        elif file.name.endswith((".tsv", ".tsv.gz")):
            assert_same_matrix(read_matrix(mine), read_matrix(file), file.name, tolerance)


def assert_same_matrix(found: np.ndarray, expected: np.ndarray, name: str, tolerance: float) -> None:
    assert found.shape == expected.shape, name
    if "pv_" in name:
        assert_same_logarithms(found, expected, name)
    elif name.startswith(("net_", "reads_", "design_", "batches_")):
        np.testing.assert_array_equal(found, expected, err_msg=name)
    else:
        assert_close(found, expected, tolerance)


def assert_same_logarithms(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Assert that log₁₀ P agree to six digits; near P = 1, where normalisr loses digits of 1 − P, so do P."""
    nearly_one = expected > NEARLY_ONE
    np.testing.assert_allclose(found[nearly_one], expected[nearly_one], rtol=0, atol=1e-6, err_msg=name)
    smallest = 10.0**SMALLEST_LOG10_P
    logs = (np.log10(np.maximum(values[~nearly_one], smallest)) for values in (found, expected))
    np.testing.assert_allclose(*logs, rtol=1e-6, atol=1e-7, err_msg=name)


def assert_same_terms(found: Path, expected: Path) -> None:
    """Assert that two tables of terms are the same, but for the order of terms of the same P-value."""
    tables = [pd.read_csv(path, sep="\t").set_index("GO").sort_index() for path in (found, expected)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)
    order = pd.read_csv(found, sep="\t")["p_uncorrected"]
    assert order.is_monotonic_increasing


def assert_same_component(found: Path, expected: Path, least_correlation: float) -> None:
    """Assert that covariates are the same, but for the last: normalisr computes it at random, and of either sign."""
    ours, theirs = read_matrix(found), read_matrix(expected)
    assert ours.shape == theirs.shape
    assert_close(ours[:-1], theirs[:-1], 1e-6)
    assert abs(np.corrcoef(ours[-1], theirs[-1])[0, 1]) > least_correlation
