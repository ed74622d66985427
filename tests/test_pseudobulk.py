"""Pseudobulk samples from count stores and arrays."""

from pathlib import Path

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from normalisr_dask import open_counts, pseudobulk
from normalisr_dask.storage.count_store_writer import CountStoreWriter


@pytest.fixture
def cells(counts) -> pd.DataFrame:
    random = np.random.default_rng(5)
    donor = random.choice(["d1", "d2", "d3"], counts.shape[1])
    table = pd.DataFrame(
        {
            "donor": donor,
            "cell_type": pd.Categorical(random.choice(["T", "B"], counts.shape[1]), categories=["T", "B", "NK"]),
            "age": pd.Series(donor).map({"d1": 30, "d2": 41, "d3": 30}).to_numpy(),
            "depth": random.random(counts.shape[1]),
        },
        index=[f"cell{number}" for number in range(counts.shape[1])],
    )
    table.iloc[7, 0] = None
    return table


def naive_sums(counts: np.ndarray, cells: pd.DataFrame, sample: pd.Series) -> np.ndarray:
    mine = (cells["donor"] == sample["donor"]) & (cells["cell_type"] == sample["cell_type"])
    return counts[:, mine.to_numpy()].astype(np.int64).sum(axis=1)


@pytest.mark.parametrize(
    "form", [np.asarray, scipy.sparse.csc_array, lambda x: da.from_array(x, chunks=(40, 13)), lambda x: x.astype(float)]
)
def test_sums_are_those_of_the_cells(counts, cells, form) -> None:
    samples = pseudobulk(form(counts), ["donor", "cell_type"], obs=cells)
    assert samples.obs_names.tolist() == ["d1|B", "d1|T", "d2|B", "d2|T", "d3|B", "d3|T"]
    for number, (_, sample) in enumerate(samples.obs.iterrows()):
        sums = naive_sums(counts, cells, sample)
        np.testing.assert_array_equal(samples.layers["counts"].toarray()[number], sums)
        np.testing.assert_allclose(samples.layers["mean"].toarray()[number], sums / sample["n_cells"])
        np.testing.assert_allclose(samples.X[number], np.log2((sums + 0.5) / (sums.sum() + 1) * 1e6))
        assert sample["total_count"] == sums.sum()
    assert samples.obs["n_cells"].sum() == counts.shape[1] - 1  # one has no donor
    assert list(samples.obs) == ["donor", "cell_type", "age", "n_cells", "total_count"]
    assert samples.obs["age"].tolist() == [30, 30, 41, 41, 30, 30]
    assert samples.obs["cell_type"].cat.categories.tolist() == ["T", "B"]


@pytest.mark.parametrize("cells_per_block", [7, 1000])
def test_a_store_is_read_in_one_pass(counts, cells, tmp_path: Path, cells_per_block: int) -> None:
    by_cell = scipy.sparse.csr_array(counts.T)
    var = pd.DataFrame({"length": np.arange(counts.shape[0])}, index=[f"g{j}" for j in range(counts.shape[0])])
    with CountStoreWriter(tmp_path / "counts.zarr", obs=cells.fillna({"donor": "d9"}), var=var) as writer:
        writer.append(np.diff(by_cell.indptr), by_cell.indices, by_cell.data)
        writer.finalise()
    store = open_counts(tmp_path / "counts.zarr", cells_per_block=cells_per_block)
    samples = pseudobulk(store, "donor", min_cells=2)
    assert samples.obs_names.tolist() == ["d1", "d2", "d3"]
    assert samples.var["length"].tolist() == list(range(counts.shape[0]))
    expected = pseudobulk(counts, "donor", obs=cells)
    np.testing.assert_array_equal(samples.X, expected.X)
    np.testing.assert_array_equal(pseudobulk(tmp_path / "counts.zarr", "donor").X[:3], expected.X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "plate"}, "no column 'plate' in the table of cells; there is 'donor', 'cell_type', 'age', 'depth', "),
        ({"by": []}, "expected one column or more to group cells by, found none; there is 'donor'"),
        ({"by": ["donor", "donor"]}, "by names the column 'donor' more than once"),
        ({"by": "n_cells"}, "the table of samples has a column 'n_cells' of its own"),
        ({"by": "plate_number"}, "two samples by 'plate_number' would have the name '1'"),
        ({"by": ["joined", "rest"]}, r"two samples by 'joined', 'rest' would have the name 'a\|b\|c'"),
        ({"by": "donor", "obs": None}, "a row for each of 110 cells, found none"),
        ({"by": "donor", "min_cells": 99}, "no sample by 'donor' has 99 cells; the largest of 3 has"),
        ({"by": "donor", "min_cells": 0}, "min_cells must be at least 1"),
    ],
)
def test_bad_input_is_refused(counts, cells, options: dict, message: str) -> None:
    number = np.arange(len(cells)) % 2
    cells = cells.assign(
        n_cells=1,
        plate_number=pd.Series([1, "1"], dtype=object).to_numpy()[number],
        joined=np.array(["a|b", "a"])[number],
        rest=np.array(["c", "b|c"])[number],
    )
    with pytest.raises(ValueError, match=message):
        pseudobulk(counts, **({"obs": cells} | options))


def test_columns_of_cells_are_named_once(counts, cells) -> None:
    with pytest.raises(ValueError, match="the table of cells names the column 'age' more than once"):
        pseudobulk(counts, "donor", obs=cells.rename(columns={"depth": "age"}))


@pytest.mark.parametrize(("value", "written"), [(2.5, "2.5"), (-1.0, "-1.0"), (np.nan, "nan"), (np.inf, "inf")])
@pytest.mark.parametrize(
    "form", [np.asarray, scipy.sparse.csr_array, scipy.sparse.csc_array, lambda x: da.from_array(x, chunks=(40, 13))]
)
def test_what_is_no_count_is_refused(counts, cells, form, value: float, written: str) -> None:
    wrong = counts.astype(float)
    wrong[3, 101] = value
    with pytest.raises(ValueError, match=rf"expected counts .*, found {written} for gene 3, cell 101 \(counted from 0"):
        pseudobulk(form(wrong), "donor", obs=cells)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array, scipy.sparse.csc_array])
def test_anndata_is_taken_cells_by_genes(counts, cells, form) -> None:
    var = pd.DataFrame(index=[f"g{j}" for j in range(counts.shape[0])])
    samples = pseudobulk(anndata.AnnData(form(counts.T), obs=cells, var=var), ["donor", "cell_type"])
    expected = pseudobulk(counts, ["donor", "cell_type"], obs=cells)
    np.testing.assert_array_equal(samples.X, expected.X)
    pd.testing.assert_frame_equal(samples.obs, expected.obs)
    assert samples.var_names.tolist() == var.index.tolist()


def test_anndata_must_have_its_counts_at_hand(counts, cells, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected AnnData in memory with counts as X, found one without X"):
        pseudobulk(anndata.AnnData(obs=cells), "donor")
    anndata.AnnData(counts.T, obs=cells.drop(columns="donor")).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(TypeError, match=r"found one that lies in .*a\.h5ad; ingest makes a store"):
        pseudobulk(backed, "cell_type")
    backed.file.close()
