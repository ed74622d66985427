"""Some of the tests of differential expression, as lazy Dask arrays."""

from dataclasses import replace

import dask.array as da
import numpy as np
import scipy.sparse

from normalisr_dask.kernels.pairs import keep_pairs
from normalisr_dask.results import DifferentialExpression


def of_first_groupings(tested: DifferentialExpression, number: int) -> DifferentialExpression:
    """Return the tests of the first groupings."""
    arrays = {name: array[:number] for name, array in vars(tested).items() if array is not None}
    return replace(tested, **arrays)


def only_pairs(values: da.Array, pairs: scipy.sparse.csr_array) -> da.Array:
    """Return values (groupings, genes) with NaN wherever ``pairs``, bool (groupings, genes), has no entry.

    Notes
    -----
    A task gets the pairs of its groupings alone. Memory: one block a task.
    """
    rows = values.rechunk({1: -1})
    kept = da.from_array(
        pairs, chunks=(rows.chunks[0], -1), asarray=False, meta=scipy.sparse.csr_array((0, 0), dtype=pairs.dtype)
    )
    return da.map_blocks(keep_pairs, rows, kept, dtype=np.float64, meta=np.empty((0, 0)))
