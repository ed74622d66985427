"""Networks of co-expressed genes: significant pairs of a matrix of P-values, or straight from expression."""

from functools import partial
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.sparse

from normalisr_dask.graph.inputs import as_matrix, positions
from normalisr_dask.graph.tile_plan import Tile, TilePlan
from normalisr_dask.kernels import network as kernels
from normalisr_dask.kernels.coexpression import tile_p_value
from normalisr_dask.results import Network
from normalisr_dask.steps.coexpression import correlations

#: P-values of genes × genes that a task looks at.
BLOCK_VALUES = 2 << 20
#: In place of the P-value of a gene with itself.
NO_TEST = 2.0


def binnet(net, qcut: float) -> da.Array:
    """Turn P-values of gene pairs into a network; lazy.

    Q-values are those of Benjamini and Hochberg within a row, without the diagonal: a gene that is co-expressed with
    many has its own threshold. So the network is not symmetric.

    Parameters
    ----------
    net : array (genes, genes)
        P-values, symmetric, as ``coex`` gives them.
    qcut : float
        Largest Q-value of an edge, between 0 and 1.

    Returns
    -------
    bool (genes, genes)
        Whether there is an edge; False on the diagonal.

    Raises
    ------
    ValueError
        If ``net`` is not square or has fewer than two genes, or ``qcut`` is not between 0 and 1.
        On compute: if a P-value is NaN, below 0 or above 1.
    RuntimeError
        On compute: if there is no edge at all.

    Notes
    -----
    Cost: one pass over the P-values, of which those up to ``qcut`` are sorted. Memory: a block of rows a task, and the
    network with eight pairs to a byte, since no row is handed out before it is known that there is an edge.

    References
    ----------
    .. [1] Benjamini, Y. & Hochberg, Y. (1995). Controlling the false discovery rate. Journal of the Royal Statistical
       Society B 57, 289-300.

    Examples
    --------
    >>> import numpy as np
    >>> p_values = np.array([[0, 0.01, 0.2, 0.9], [0.01, 0, 0.04, 0.5], [0.2, 0.04, 0, 0.03], [0.9, 0.5, 0.03, 0]])
    >>> binnet(p_values, 0.05).compute().astype(int)
    array([[0, 1, 0, 0],
           [1, 0, 0, 0],
           [0, 0, 0, 0],
           [0, 0, 0, 0]])
    """
    check_qcut(qcut)
    p_values = as_matrix(net, "net")
    n_genes = p_values.shape[0]
    if p_values.shape[1] != n_genes or n_genes < 2:
        msg = f"expected net with as many rows as columns, two or more, found {p_values.shape}"
        raise ValueError(msg)
    p_values = p_values.rechunk((max(1, BLOCK_VALUES // n_genes), -1))
    packed = da.blockwise(
        partial(kernels.network_rows, qcut=qcut),
        ("rows", "bytes"),
        p_values.astype(np.float64),
        ("rows", "columns"),
        positions(p_values.chunks[0]),
        ("rows",),
        new_axes={"bytes": -(-n_genes // 8)},
        concatenate=True,
        dtype=np.uint8,
        meta=np.empty((0, 0), dtype=np.uint8),
    )
    counts = packed.map_blocks(
        kernels.count_edges, chunks=((1,) * packed.numblocks[0], (1,)), dtype=np.int64, meta=np.empty((0, 0), np.int64)
    )
    return da.blockwise(
        partial(kernels.unpack_rows, n_genes=n_genes, qcut=qcut),
        ("rows", "columns"),
        packed,
        ("rows", "bytes"),
        counts.sum(keepdims=True),
        ("all", "of them"),
        new_axes={"columns": n_genes},
        concatenate=True,
        dtype=bool,
        meta=np.empty((0, 0), dtype=bool),
    )


def network(
    dt,
    dc,
    qcut: float,
    bs: int = 0,
    *,
    dimreduce=0,
    dtype=np.float64,
    plan: TilePlan | None = None,
) -> Network:
    """Make the network of ``binnet(coex(dt, dc).pvalue, qcut)`` as a list of edges, without any matrix; lazy.

    Parameters
    ----------
    dt, dc, bs, dimreduce, dtype, plan
        As for :func:`normalisr_dask.coex`.
    qcut : float
        Largest Q-value of an edge, between 0 and 1.

    Returns
    -------
    Network
        Edges of every panel of genes, and the degree of every gene.

    Raises
    ------
    ValueError
        As :func:`normalisr_dask.coex` and :func:`normalisr_dask.binnet` do. A network without edges is no error here.

    Notes
    -----
    Tiles of correlations are made as by :func:`normalisr_dask.coex`, but of every tile only the pairs with P ≤ qcut are
    kept, 12 bytes each: others cannot be edges. They wait until those of the whole row are there. So memory grows with
    the edges and not with genes², and the edges are those of ``binnet`` to the last bit.
    """
    check_qcut(qcut)
    found = correlations(dt, dc, bs, dimreduce=dimreduce, dtype=dtype, plan=plan)
    sides = found.tiles.sides
    degrees = found.degrees.rechunk(-1).to_delayed(optimize_graph=False).ravel()[0]
    find = dask.delayed(partial(_candidates, sides=sides, qcut=qcut), pure=True)
    pick = dask.delayed(_at, pure=True)
    join = dask.delayed(partial(_edges, sides=sides, qcut=qcut), pure=True)
    of_tile: dict[Tile, Any] = {}
    for group_sums, tiles in zip(found.tiles.sums, found.tiles.groups, strict=True):
        group = find(group_sums, tiles, degrees)
        of_tile |= {tile: pick(group, position) for position, tile in enumerate(tiles)}
    panels = [
        join([of_tile[Tile(min(i, j), max(i, j))] for j in range(len(sides))], i, degrees) for i in range(len(sides))
    ]
    count = dask.delayed(_degree, pure=True)
    parts = [
        da.from_delayed(count(panel, sum(sides[:i]), side), shape=(side,), dtype=np.int64, meta=np.empty(0, np.int64))
        for i, (panel, side) in enumerate(zip(panels, sides, strict=True))
    ]
    return Network(tuple(panels), da.concatenate(parts) if parts else da.zeros(0, dtype=np.int64))


def degree(net) -> da.Array:
    """Return the number of edges of every gene of a network, int64 (genes,); lazy.

    Parameters
    ----------
    net : array (genes, genes)
        Network, as from :func:`normalisr_dask.binnet`.

    Returns
    -------
    int64 (genes,)
        Sums of rows.
    """
    return as_matrix(net, "net").sum(axis=1, dtype=np.int64)


def check_qcut(qcut: float) -> None:
    """Refuse a largest Q-value that is not between 0 and 1.

    Raises
    ------
    ValueError
    """
    if not 0 < qcut < 1:
        msg = f"expected qcut between 0 and 1, found {qcut:g}"
        raise ValueError(msg)


def _candidates(
    sums: list[Any], tiles: list[Tile], degrees: Any, *, sides: tuple[int, ...], qcut: float
) -> list[scipy.sparse.csr_array]:
    """Return the candidates of every tile of a group."""
    edges = np.cumsum((0, *sides))
    of_row = [degrees[start:stop] for start, stop in pairwise(edges)]
    found = []
    for total, (i, j) in zip(sums, tiles, strict=True):
        p_values = tile_p_value(
            total,
            is_diagonal=False,
            row_variance=of_row[i],
            column_variance=of_row[j],
            row_degrees=of_row[i],
            column_degrees=of_row[j],
        )
        if i == j:
            np.fill_diagonal(p_values, NO_TEST)
        found.append(kernels.candidates(total, p_values, qcut=qcut))
    return found


def _edges(
    tiles: list[scipy.sparse.csr_array], row: int, degrees: Any, *, sides: tuple[int, ...], qcut: float
) -> kernels.Edges:
    """Return the edges of a row of tiles; those below the diagonal are given as their mirror images."""
    panel = scipy.sparse.hstack([tile.T if j < row else tile for j, tile in enumerate(tiles)], format="csr")
    panel.sort_indices()
    first = sum(sides[:row])
    found = kernels.edges_of_candidates(panel, first_row=first, degrees=degrees, qcut=qcut)
    return found._replace(row=found.row + first)


def _at(parts: list[Any], position: int) -> Any:
    return parts[position]


def _degree(edges: kernels.Edges, first: int, side: int) -> Any:
    return np.bincount(edges.row - first, minlength=side)
