"""From files of guide UMI counts to files of groupings, and from these to tests."""

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from normalisr_dask.cli.app import app
from normalisr_dask.guides import write_guide_groupings
from normalisr_dask.storage import grouping_files
from normalisr_dask.storage.ingest import ingest
from normalisr_dask.storage.tables import read_groupings
from normalisr_dask.testing import write_matrix_market

rng = np.random.default_rng(5)
GUIDES = [f"guide_{number}" for number in range(9)]
CELLS = [f"cell_{number}" for number in range(40)]
UMIS = rng.poisson(0.3, (9, 40)) + np.where(rng.random((9, 40)) < 0.1, rng.poisson(20, (9, 40)), 0)
PASSED = (UMIS >= 5) & (0.2 * UMIS.sum(axis=0) <= UMIS)
LOW = PASSED & (PASSED.sum(axis=0) == 1)


def invoke(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"NORMALISR_DASK_DEBUG": ""})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guides")
    write_matrix_market(folder / "umis.mtx.gz", sparse.csc_array(UMIS))
    (folder / "guides.txt").write_text("".join(f"{name}\n" for name in GUIDES))
    (folder / "cells.txt").write_text("".join(f"{name}\n" for name in CELLS))
    return folder


def names(inputs: Path) -> dict[str, Path]:
    return {"guide_names": inputs / "guides.txt", "cell_names": inputs / "cells.txt"}


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz", ".parquet"])
def test_what_is_written_is_what_run_reads(inputs, tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(grouping_files, "BLOCK_VALUES", 50)
    outcome = write_guide_groupings(inputs / "umis.mtx.gz", tmp_path / f"groupings{suffix}", **names(inputs))
    if suffix == ".parquet":
        assert outcome.files == (tmp_path / "groupings.parquet",)
        found = read_groupings(outcome.files[0])
    else:
        assert [file.name for file in outcome.files[1:]] == ["groupings.groupings.txt", "groupings.cells.txt"]
        found = read_groupings(outcome.files[0], names=outcome.files[1], cells=outcome.files[2])
    assert found.names == outcome.guides == tuple(GUIDES)
    assert found.cells.tolist() == CELLS
    np.testing.assert_array_equal(found.values.toarray(), LOW)
    np.testing.assert_array_equal(outcome.guides_per_cell, PASSED.sum(axis=0))
    np.testing.assert_array_equal(outcome.cells_per_guide, LOW.sum(axis=1))
    assert outcome.n_assigned == LOW.any(axis=0).sum()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in outcome.files)


def test_a_store_and_a_table_are_taken_as_well(inputs, tmp_path):
    ingest(inputs / "umis.mtx.gz", tmp_path / "umis.zarr", genes=inputs / "guides.txt", cells=inputs / "cells.txt")
    pd.DataFrame(UMIS.T, index=CELLS, columns=GUIDES).to_csv(tmp_path / "umis.tsv", sep="\t")
    of_store = write_guide_groupings(tmp_path / "umis.zarr", tmp_path / "a.parquet")
    of_table = write_guide_groupings(tmp_path / "umis.tsv", tmp_path / "b.parquet", transpose=True)
    np.testing.assert_array_equal(read_groupings(of_store.files[0]).values.toarray(), LOW)
    np.testing.assert_array_equal(read_groupings(of_table.files[0]).values.toarray(), LOW)


def test_of_typed_features_the_guides_are_taken(tmp_path):
    """A Cell Ranger HDF5 file holds genes and guides; only UMIs of guides count for fractions."""
    genes = rng.poisson(30, (4, 40))
    both = sparse.csc_array(np.vstack([genes, UMIS]))
    with h5py.File(tmp_path / "both.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(both, name)
        group["shape"] = both.shape
        group["barcodes"] = np.array(CELLS, dtype="S")
        features = [f"gene_{number}" for number in range(4)] + GUIDES
        kinds = ["Gene Expression"] * 4 + ["CRISPR Guide Capture"] * 9
        for name, values in (("id", features), ("name", features), ("feature_type", kinds)):
            group[f"features/{name}"] = np.array(values, dtype="S")
    outcome = write_guide_groupings(tmp_path / "both.h5", tmp_path / "groupings.parquet")
    assert outcome.guides == tuple(GUIDES)
    np.testing.assert_array_equal(read_groupings(outcome.files[0]).values.toarray(), LOW)


class TestCommand:
    def test_it_counts_what_came_out_and_says_how_to_go_on(self, inputs, tmp_path):
        output = tmp_path / "groupings.mtx.gz"
        options = ("--guide-names", inputs / "guides.txt", "--cell-names", inputs / "cells.txt")
        result = invoke("assign-guides", inputs / "umis.mtx.gz", "-o", output, *options)
        assert result.exit_code == 0, result.stderr
        n_passed = PASSED.sum(axis=0)
        shown = dict(line.strip().split("  ", 1) for line in result.stdout.splitlines()[1:-1])
        for name, number in (
            ("with no guide", (n_passed == 0).sum()),
            ("with 1 guide", (n_passed == 1).sum()),
            ("with 2 guides", (n_passed == 2).sum()),
            ("with 4 or more", (n_passed >= 4).sum()),
        ):
            assert shown[name].strip() == f"{number} ({number / 40:.1%})"
        assert shown["guides per cell"].strip() == f"median {np.median(n_passed):g}"
        assert shown["assigned"].strip().endswith("cells with exactly one guide")
        assert shown["cells per guide"].strip().startswith(f"median {np.median(LOW.sum(axis=1)):g}, from ")
        assert (
            f"run STORE -o OUT --groupings {output} --grouping-names {tmp_path / 'groupings.groupings.txt'} "
            f"--grouping-cells {tmp_path / 'groupings.cells.txt'}\n"
        ) in result.stdout

    def test_high_moi_keeps_all_that_pass(self, inputs, tmp_path):
        options = ("--guide-names", inputs / "guides.txt", "--cell-names", inputs / "cells.txt")
        choices = ("--moi", "high", "--threshold", "3", "--min-fraction", "0.1")
        result = invoke("assign-guides", inputs / "umis.mtx.gz", "-o", tmp_path / "g.parquet", *options, *choices)
        assert result.exit_code == 0, result.stderr
        wanted = (UMIS >= 3) & (0.1 * UMIS.sum(axis=0) <= UMIS)
        np.testing.assert_array_equal(read_groupings(tmp_path / "g.parquet").values.toarray(), wanted)
        assert "cells with a guide" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.mtx", "-o", "OUT/g.parquet"], "nowhere.mtx does not exist"),
            (["UMIS", "-o", "OUT/g.tsv"], "g.tsv: groupings are written as .mtx, .mtx.gz, .parquet"),
            (["UMIS", "-o", "OUT/no/g.parquet"], "there is no folder"),
            (["UMIS", "-o", "OUT/g.parquet", "--threshold", "0"], "Invalid value for '--threshold'"),
            (["UMIS", "-o", "OUT/g.parquet", "--min-fraction", "2"], "Invalid value for '--min-fraction'"),
            (["UMIS", "-o", "OUT/g.parquet", "--moi", "no"], "Invalid value for '--moi'"),
            (["UMIS", "-o", "OUT/g.parquet", "--guide-names", "CELLS"], "names 40 genes, but"),
        ],
    )
    def test_what_makes_no_sense_is_one_line_and_leaves_nothing(self, inputs, tmp_path, arguments, message):
        places = {"UMIS": inputs / "umis.mtx.gz", "CELLS": inputs / "cells.txt"}
        filled = [places.get(word, word.replace("OUT", str(tmp_path))) for word in arguments]
        if "--guide-names" not in filled:
            filled += ["--guide-names", inputs / "guides.txt"]
        result = invoke("assign-guides", *filled, "--cell-names", inputs / "cells.txt")
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert message in result.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_truncated_input_leaves_nothing(self, inputs, tmp_path):
        broken = tmp_path / "umis.mtx.gz"
        broken.write_bytes((inputs / "umis.mtx.gz").read_bytes()[:-40])
        options = ("--guide-names", inputs / "guides.txt", "--cell-names", inputs / "cells.txt")
        result = invoke("assign-guides", broken, "-o", tmp_path / "g.parquet", *options)
        assert result.exit_code == 2
        assert "is truncated" in result.stderr
        assert list(tmp_path.iterdir()) == [broken]

    def test_files_that_are_there_stay_unless_asked(self, inputs, tmp_path):
        output = tmp_path / "g.mtx"
        options = ("--guide-names", inputs / "guides.txt", "--cell-names", inputs / "cells.txt")
        assert invoke("assign-guides", inputs / "umis.mtx.gz", "-o", output, *options).exit_code == 0
        before = output.read_bytes()
        again = invoke("assign-guides", inputs / "umis.mtx.gz", "-o", output, *options, "--moi", "high")
        assert again.exit_code == 2
        assert "g.mtx is already there; give another name, or overwrite it (--overwrite)" in again.stderr
        assert output.read_bytes() == before
        options = (*options, "--moi", "high", "--overwrite")
        assert invoke("assign-guides", inputs / "umis.mtx.gz", "-o", output, *options).exit_code == 0
        assert output.read_bytes() != before


def test_on_a_real_screen_the_guide_is_the_top_guide_of_the_published_table(real_data, tmp_path):
    folder = real_data / "papalexi_lowmoi"
    published = pd.read_csv(folder / "cells.tsv.gz", sep="\t", keep_default_na=False)
    (tmp_path / "cells.txt").write_text("".join(f"{name}\n" for name in published["cell"]))
    outcome = write_guide_groupings(
        folder / "grnas.mtx.gz",
        tmp_path / "guides.parquet",
        guide_names=folder / "grna_names.txt",
        cell_names=tmp_path / "cells.txt",
    )
    with gzip.open(folder / "grnas.mtx.gz", "rt") as file:
        assert f"{len(outcome.guides)} {outcome.guides_per_cell.size} " in file.read(200)
    groupings = read_groupings(outcome.files[0])
    guide, cell = groupings.values.nonzero()
    assert len(cell) == outcome.n_assigned == outcome.cells_with(1)
    assert (np.array(groupings.names)[guide] == published["top_grna"].to_numpy()[cell]).all()
    assert outcome.n_assigned / len(published) == pytest.approx(0.951, abs=0.001)
    assert (outcome.guides_per_cell > 1).mean() == pytest.approx(0.048, abs=0.001)
    # cells that are not assigned have a weak or a divided top guide
    others = np.setdiff1d(np.arange(len(published)), cell)
    assert published["top_grna_fraction"].iloc[others].median() < 0.6 < 0.9 < published["top_grna_fraction"].median()
