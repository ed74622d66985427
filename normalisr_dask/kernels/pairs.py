"""Tests of chosen pairs of grouping and gene."""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray


def keep_pairs(values: NDArray[np.float64], pairs: scipy.sparse.csr_array) -> NDArray[np.float64]:
    """Return values (groupings, genes) with NaN where the sparse ``pairs`` of the same shape have no entry.

    Examples
    --------
    >>> keep_pairs(np.array([[0.1, 0.2]]), scipy.sparse.csr_array([[False, True]]))
    array([[nan, 0.2]])
    """
    kept = np.full(values.shape, np.nan)
    places = pairs.nonzero()
    kept[places] = values[places]
    return kept
