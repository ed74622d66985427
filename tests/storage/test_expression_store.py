"""Stores of expression that is made of counts."""

import numpy as np
import pytest
import zarr

from normalisr_dask.storage.counts import open_counts
from normalisr_dask.storage.expression_store import StoredForm, read_expression, write_expression


def test_what_is_written_is_read(count_store, counts, tmp_path):
    genes, cells = np.arange(5, 80, 3), np.arange(0, 110, 2)
    chosen = open_counts(count_store, cells_per_block=20).subset(genes=genes, cells=cells)
    vectors = {"cell_offset": np.arange(cells.size) / 7, "fit": np.ones((genes.size, 3))}
    write_expression(tmp_path / "a.zarr", StoredForm("log_cpm", chosen, vectors))
    stored = read_expression(tmp_path / "a.zarr")
    assert stored.kind == "log_cpm"
    assert stored.counts.genes.tolist() == chosen.genes.tolist()
    assert stored.counts.cells.tolist() == chosen.cells.tolist()
    np.testing.assert_array_equal(stored.counts.matrix.compute().toarray(), counts[np.ix_(genes, cells)])
    assert set(stored.vectors) == set(vectors)
    for name, values in vectors.items():
        np.testing.assert_array_equal(stored.vectors[name], values)


def test_other_stores_are_none(count_store):
    assert read_expression(count_store) is None


def test_another_version_is_refused(count_store, tmp_path):
    write_expression(tmp_path / "a.zarr", StoredForm("log_cpm", open_counts(count_store), {}))
    group = zarr.open_group(tmp_path / "a.zarr")
    group.attrs["normalisr_dask"] = {"expression": "log_cpm", "format_version": 99}
    with pytest.raises(ValueError, match="expression of format version 99, expected 1"):
        read_expression(tmp_path / "a.zarr")


def test_expression_is_written_to_a_url_and_read_from_there(count_store):
    counts = open_counts(count_store)
    write_expression("memory://stores/a.zarr", StoredForm("log_cpm", counts, {"offset": np.arange(3.0)}))
    form = read_expression("memory://stores/a.zarr")
    np.testing.assert_array_equal(form.vectors["offset"], np.arange(3.0))
    assert form.counts.cells.tolist() == counts.cells.tolist()
    assert (next(form.counts.blocks()) != next(counts.blocks())).nnz == 0


def test_a_vector_that_lost_a_chunk_is_not_read_as_zeros(count_store, tmp_path):
    store = tmp_path / "a.zarr"
    write_expression(store, StoredForm("log_cpm", open_counts(count_store), {"offset": np.zeros(3)}))
    form = read_expression(store)
    np.testing.assert_array_equal(form.vectors["offset"], np.zeros(3))
    (store / "vectors" / "offset" / "c" / "0").unlink()
    with pytest.raises(ValueError, match=r"a\.zarr is damaged or incompletely copied: vectors/offset/c/0 is missing"):
        read_expression(store)
