"""Stores may come from anybody: pickles in them, which could run anything, are not read."""

import json
import os
import pickle
import re
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse
import zarr
from anndata.io import write_elem
from typer.testing import CliRunner

from normalisr_dask.cli.app import app


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def set_trap(array: Path, trap: Path, role: str) -> None:
    """Store a pickle as the first chunk of an array in Zarr's format 2, whose metadata may name such a codec."""
    metadata = json.loads((array / ".zarray").read_text())
    codec = {"id": "pickle", "protocol": 5}
    metadata |= {"filters": None, "compressor": codec} if role == "compressor" else {"filters": [codec]}
    (array / ".zarray").write_text(json.dumps(metadata))
    (array / ".".join("0" for _ in metadata["shape"])).write_bytes(pickle.dumps(Trap(trap)))


def assert_refused(*arguments: str | Path, trap: Path) -> None:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2
    assert result.stderr.startswith("normalisr-dask: error: ")
    assert re.search("unpickling data can execute|No Zarr data type .* 'object_codec_id': 'pickle'", result.stderr)
    assert result.stderr.count("\n") == 1
    assert not trap.exists()


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "trap")))
    assert (tmp_path / "trap").exists()


@pytest.mark.parametrize("role", ["compressor", "filter"])
@pytest.mark.parametrize("command", ["ingest", "run"])
@pytest.mark.parametrize("array", ["X/data", "X/indices", "obs/batch"])
def test_in_a_store_of_counts(tmp_path: Path, command: str, array: str, role: str) -> None:
    store, trap = tmp_path / "counts.zarr", tmp_path / "trap"
    counts = scipy.sparse.random_array((30, 20), density=0.5, rng=1, data_sampler=lambda size: np.ones(size))
    adata = anndata.AnnData(counts.tocsr().astype(np.int32))
    adata.obs["batch"] = np.arange(30)
    write_elem(zarr.open_group(store, mode="w", zarr_format=2), "/", adata)
    set_trap(store / array, trap, role)
    options = ("--groupby", "batch", "--workers", "1") if command == "run" else ()
    output = ("-o", tmp_path / "out") if command == "run" else (tmp_path / "out.zarr",)
    assert_refused(command, store, *output, *options, trap=trap)


@pytest.mark.parametrize("role", ["compressor", "filter"])
def test_in_a_matrix(tmp_path: Path, role: str) -> None:
    matrix, trap = tmp_path / "reads.zarr", tmp_path / "trap"
    zarr.create_array(matrix, data=np.ones((30, 20)), zarr_format=2)
    set_trap(matrix, trap, role)
    names = []
    for axis, size in (("genes", 30), ("cells", 20)):
        names.append(tmp_path / f"{axis}.txt")
        names[-1].write_text("".join(f"{axis}{number}\n" for number in range(size)))
    assert_refused("qc_reads", matrix, *names, tmp_path / "genes_out.txt", tmp_path / "cells_out.txt", trap=trap)
