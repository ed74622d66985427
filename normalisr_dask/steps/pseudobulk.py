"""Sums of counts over the cells of each group, in one pass over chunks of cells; lazy."""

import dask
import dask.array as da
import numpy as np
import scipy.sparse
from dask.delayed import Delayed
from numpy.typing import NDArray

from normalisr_dask.graph.calls import CELLS, GENES, SPLIT_EVERY, BlockCall, aligned, block_source
from normalisr_dask.kernels.pseudobulk import add_sums, group_sums


def sum_cells(counts: da.Array, groups: NDArray[np.int64], n_groups: int) -> Delayed:
    """Return sums of counts over the cells of every group, a sparse array (groups, genes); lazy.

    Parameters
    ----------
    counts
        (genes, cells), dense or sparse chunks.
    groups
        Number of the group of every cell (cells,); -1 for none.
    n_groups
        Number of groups.

    Raises
    ------
    ValueError
        If a value is no count; raised by the task that reads it.

    Notes
    -----
    One pass. Memory: a block of cells a task, and a few sparse sums of no more entries than the result.
    """
    if len(counts.chunks[0]) > 1:
        counts = counts.rechunk({0: -1})
    read, source, new_axes = block_source(counts, GENES, counts.chunks[1])
    numbers = {"groups": groups, "cell_index": np.arange(groups.size)}
    by_cell = {name: da.from_array(values, chunks=(counts.chunks[1],)) for name, values in numbers.items()}
    names, arguments = aligned([(by_cell, CELLS, counts.chunks[1])])
    call = BlockCall(group_sums, names, (*source, *arguments), {"n_groups": n_groups}, read, len(source) // 2, new_axes)
    # one sum of (groups, genes) for every chunk of cells
    parts = list(call.blockwise((CELLS, GENES), np.int64, adjust_chunks={CELLS: n_groups}).to_delayed()[:, 0])
    if not parts:
        empty = scipy.sparse.csr_array((n_groups, counts.shape[0]), dtype=np.int64)
        return dask.delayed(empty)
    while len(parts) > 1:
        parts = [
            dask.delayed(add_sums)(parts[start : start + SPLIT_EVERY]) for start in range(0, len(parts), SPLIT_EVERY)
        ]
    return parts[0]
