"""Networks of gene pairs: which of a gene's P-values are significant, by Benjamini-Hochberg within its row.

A pair with P > q cannot have Q ≤ q, so only pairs with P ≤ q, the candidates, are sorted. The diagonal is no test.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from normalisr_dask.kernels.coexpression import tile_p_value
from normalisr_dask.kernels.p_values import p_value

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
#: In place of the P-value of a gene with itself.
NO_TEST = 2.0
#: Candidates whose Q-values are found at a time, of whole rows: their temporaries take some 100 bytes each.
PIECE_VALUES = 1 << 18


class Edges(NamedTuple):
    """Significant pairs of a block of rows, ordered by row and column.

    Attributes
    ----------
    row, column : int64 (pairs,)
        Row within the block, and column of the matrix.
    r : float64 (pairs,)
        Correlation.
    p_value, q_value : float64 (pairs,)
        P-value, and Q-value within the row.
    """

    row: Positions
    column: Positions
    r: Floats
    p_value: Floats
    q_value: Floats


def network_rows(p_values: Floats, rows: Positions, *, qcut: float) -> NDArray[np.uint8]:
    """Return which pairs of a block of rows have Q ≤ ``qcut``, eight to a byte, (rows, ⌈genes / 8⌉).

    Parameters
    ----------
    p_values
        Rows of a symmetric matrix (rows, genes); the diagonal is left out.
    rows
        Positions of the rows in the matrix: where its diagonal is (rows,).
    qcut
        Largest Q-value.

    Raises
    ------
    ValueError
        If a P-value is NaN, below 0 or above 1.
    """
    check_p_values(p_values)
    n_rows, n_genes = p_values.shape
    others = np.ones(n_genes, dtype=bool)
    packed = np.empty((n_rows, -(-n_genes // 8)), dtype=np.uint8)
    for row, (diagonal, values) in enumerate(zip(rows, p_values, strict=True)):
        others[diagonal] = False
        candidates = np.sort(values[(values <= qcut) & others])
        n_significant = _n_significant(candidates, n_genes - 1, qcut)
        threshold = candidates[n_significant - 1] if n_significant else -1.0
        packed[row] = np.packbits((values <= threshold) & others)
        others[diagonal] = True
    return packed


def unpack_rows(packed: NDArray[np.uint8], n_edges: Positions, *, n_genes: int, qcut: float) -> NDArray[np.bool_]:
    """Return the rows of :func:`network_rows` as bool (rows, genes).

    Parameters
    ----------
    packed
        Rows, eight pairs to a byte.
    n_edges
        Number of edges of the whole network (1, 1).
    n_genes, qcut
        Number of genes and largest Q-value.

    Raises
    ------
    RuntimeError
        If the whole network has no edge.
    """
    if n_edges.size and n_edges.sum() == 0:
        msg = f"expected some gene pairs with Q <= {qcut:g}, found none; take a larger qcut, or more cells"
        raise RuntimeError(msg)
    return np.unpackbits(packed, axis=1, count=n_genes).astype(bool)


def count_edges(packed: NDArray[np.uint8]) -> Positions:
    """Return the number of edges of rows of :func:`network_rows`, (1, 1)."""
    return np.asarray(np.bitwise_count(packed).sum(dtype=np.int64)).reshape(1, 1)


class StoredCandidates(NamedTuple):
    """Pairs of a tile, or of whole rows, with small P-values.

    Attributes
    ----------
    p_values, dots : CSR (rows, columns), float64
        P-value and mean product, at the same positions.
    """

    p_values: scipy.sparse.csr_array
    dots: scipy.sparse.csr_array


def stored_candidates(
    p_values: Floats, dots: Floats, *, first_row: int, first_column: int, qcut: float
) -> StoredCandidates:
    """Return the pairs of a tile of stored results with P ≤ ``qcut``, but for the diagonal.

    Parameters
    ----------
    p_values, dots
        A tile of each symmetric matrix, float64 (rows, columns).
    first_row, first_column
        Position of the tile in the matrix.
    qcut
        Largest P-value.

    Raises
    ------
    ValueError
        If a P-value is NaN, below 0 or above 1.
    """
    check_p_values(p_values)
    rows, columns = np.nonzero(p_values <= qcut)
    others = np.flatnonzero(rows + first_row != columns + first_column)
    rows, columns = rows[others], columns[others].astype(np.int32)
    offsets = np.searchsorted(rows, np.arange(len(p_values) + 1))
    return StoredCandidates(
        *(
            scipy.sparse.csr_array((values[rows, columns], columns, offsets), shape=values.shape)
            for values in (p_values, dots)
        )
    )


def stored_edges_in_pieces(
    tiles: list[StoredCandidates], variance: Floats, *, first_row: int, qcut: float
) -> Iterator[Edges]:
    """Yield the edges of whole rows, some rows at a time; rows are positions in the matrix.

    Parameters
    ----------
    tiles
        From :func:`stored_candidates`, all columns of the rows.
    variance
        Of all genes (genes,).
    first_row
        Position of the first row in the matrix.
    qcut
        Largest Q-value.
    """
    panel, dots = (scipy.sparse.hstack(parts, format="csr") for parts in zip(*tiles, strict=True))
    for start, stop in _pieces(panel.indptr):
        offsets = panel.indptr[start : stop + 1]
        span = slice(int(offsets[0]), int(offsets[-1]))
        p_values, columns = panel.data[span], panel.indices[span].astype(np.int64)
        rows = np.repeat(np.arange(first_row + start, first_row + stop), np.diff(offsets))
        q_values = _q_values(p_values, offsets - offsets[0], n_tests=panel.shape[1] - 1, qcut=qcut)
        chosen = np.flatnonzero(q_values <= qcut)
        rows, columns = rows[chosen], columns[chosen]
        r = dots.data[span][chosen] / np.sqrt(variance[rows] * variance[columns])
        yield Edges(rows, columns, r, p_values[chosen], q_values[chosen])


def check_p_values(p_values: Floats) -> None:
    """Refuse P-values that are none.

    Raises
    ------
    ValueError
        If a P-value is NaN, below 0 or above 1.
    """
    if p_values.size and not (p_values.min() >= 0 and p_values.max() <= 1):
        found = p_values[~((p_values >= 0) & (p_values <= 1))][0]
        msg = f"expected P-values in [0, 1], found {found:g}"
        raise ValueError(msg)


def tile_candidates(
    correlation: Floats,
    *,
    is_diagonal: bool,
    row_variance: Floats,
    column_variance: Floats,
    row_degrees: Floats,
    column_degrees: Floats,
    qcut: float,
) -> scipy.sparse.csr_array:
    """Return the correlations of a tile of gene pairs where P ≤ ``qcut``, CSR (rows, columns).

    Parameters
    ----------
    correlation, is_diagonal, row_variance, column_variance, row_degrees, column_degrees
        As for :func:`normalisr_dask.kernels.coexpression.tile_p_value`.
    qcut
        Largest P-value.
    """
    p_values = tile_p_value(
        correlation,
        is_diagonal=is_diagonal,
        row_variance=row_variance,
        column_variance=column_variance,
        row_degrees=row_degrees,
        column_degrees=column_degrees,
    )
    if is_diagonal:
        np.fill_diagonal(p_values, NO_TEST)
    rows, columns = np.nonzero(p_values <= qcut)
    offsets = np.searchsorted(rows, np.arange(len(p_values) + 1))
    return scipy.sparse.csr_array((correlation[rows, columns], columns, offsets), shape=p_values.shape)


def transpose(tile: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return the mirror image of a tile of candidates, CSR with sorted columns."""
    return tile.T.tocsr()


def edges_in_pieces(panel: scipy.sparse.csr_array, *, first_row: int, degrees: Floats, qcut: float) -> Iterator[Edges]:
    """Yield what :func:`edges_of_candidates` returns, some rows at a time; rows are positions in the matrix."""
    for start, stop in _pieces(panel.indptr):
        found = edges_of_candidates(panel[start:stop], first_row=first_row + start, degrees=degrees, qcut=qcut)
        yield found._replace(row=found.row + first_row + start)


def joined(row: int, pieces: Iterator[Edges]) -> Edges:
    """Return the pieces of a panel as one."""
    del row
    return Edges(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


def edges_of_candidates(panel: scipy.sparse.csr_array, *, first_row: int, degrees: Floats, qcut: float) -> Edges:
    """Return the edges of a panel of rows from the correlations of their candidates.

    Parameters
    ----------
    panel
        From :func:`tile_candidates`, all columns of the rows, CSR (rows, genes) with sorted columns.
    first_row
        Position of the first row in the matrix.
    degrees
        Degrees of freedom of all genes (genes,); a pair has the smaller of its two.
    qcut
        Largest Q-value.
    """
    n_rows, n_genes = panel.shape
    rows = np.repeat(np.arange(n_rows), np.diff(panel.indptr))
    columns = panel.indices.astype(np.int64)
    squares = np.minimum(panel.data**2, 1.0)
    is_uniform = degrees.size > 0 and bool(np.all(degrees == degrees[0]))
    p_values = p_value(squares, degrees[0] if is_uniform else np.minimum(degrees[rows + first_row], degrees[columns]))
    q_values = _q_values(p_values, panel.indptr, n_tests=n_genes - 1, qcut=qcut)
    chosen = np.flatnonzero(q_values <= qcut)
    return Edges(rows[chosen], columns[chosen], panel.data[chosen], p_values[chosen], q_values[chosen])


def _q_values(p_values: Floats, offsets: NDArray[Any], *, n_tests: int, qcut: float) -> Floats:
    """Return the Q-values of candidates of rows that lie one after the other; infinite for those that are no edges."""
    q_values = np.full(p_values.size, np.inf)
    for start, stop in _spans(offsets):
        order = np.argsort(p_values[start:stop])
        ascending = p_values[start:stop][order]
        number = _n_significant(ascending, n_tests, qcut)
        scaled = _scaled(ascending[:number], n_tests)
        q_values[start + order[:number]] = np.minimum.accumulate(scaled[::-1])[::-1]
    return q_values


def _pieces(offsets: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield runs of rows with some ``PIECE_VALUES`` candidates."""
    start, n_rows = 0, offsets.size - 1
    while start < n_rows:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + PIECE_VALUES, side="right")) - 1)
        yield start, stop
        start = stop


def _spans(offsets: NDArray[Any]) -> Iterator[tuple[int, int]]:
    return ((start, stop) for start, stop in pairwise(offsets.tolist()) if start < stop)


def _n_significant(ascending: Floats, n_tests: int, qcut: float) -> int:
    """Return how many of a family's smallest P-values have Q ≤ qcut; all others of the family have P > qcut."""
    significant = np.flatnonzero(_scaled(ascending, n_tests) <= qcut)
    return int(significant[-1]) + 1 if significant.size else 0


def _scaled(ascending: Floats, n_tests: int) -> Floats:
    return ascending * (n_tests / np.arange(1, ascending.size + 1))
