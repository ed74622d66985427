"""Blocks of a count store: the chosen genes and cells, whichever are chosen and however they are cut into blocks."""

from pathlib import Path

import numpy as np
import pytest

from normalisr_dask.storage.counts import Counts, open_counts


@pytest.fixture
def stored(count_store: Path) -> Counts:
    return open_counts(count_store, cells_per_block=20)


def every_third(size: int) -> np.ndarray:
    return np.arange(size)[1::3]


@pytest.mark.parametrize("genes", [None, every_third, np.arange], ids=["no genes named", "some genes", "all genes"])
@pytest.mark.parametrize("cells", [None, every_third, np.arange], ids=["no cells named", "some cells", "all cells"])
def test_chosen_genes_and_cells(stored: Counts, genes, cells) -> None:
    whole = stored.matrix.compute().toarray()
    genes, cells = (
        None if choose is None else choose(size) for choose, size in zip((genes, cells), stored.shape, strict=True)
    )
    chosen = stored.subset(genes=genes, cells=cells)
    expected = whole[slice(None) if genes is None else genes][:, slice(None) if cells is None else cells]
    assert whole.any()
    np.testing.assert_array_equal(chosen.matrix.compute().toarray(), expected)
    np.testing.assert_array_equal(np.hstack([block.toarray() for block in chosen.blocks()]), expected)


def test_blocks_without_a_chosen_cell(stored: Counts) -> None:
    whole = stored.matrix.compute().toarray()
    cells = np.array([0, stored.shape[1] - 1])
    np.testing.assert_array_equal(stored.subset(cells=cells).matrix.compute().toarray(), whole[:, cells])
