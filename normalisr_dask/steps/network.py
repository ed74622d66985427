"""Networks of co-expressed genes: significant pairs of a matrix of P-values, or straight from expression."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse

from normalisr_dask.graph.inputs import as_matrix
from normalisr_dask.graph.tile_plan import TilePlan
from normalisr_dask.graph.vectors import positions
from normalisr_dask.kernels import network as kernels
from normalisr_dask.results import Network
from normalisr_dask.steps.coexpression import correlations

#: P-values of genes × genes that a task looks at.
BLOCK_VALUES = 2 << 20


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
    panels = edge_panels(dt, dc, qcut, bs, dimreduce=dimreduce, dtype=dtype, plan=plan)
    sides = [len(panel) for panel in panels]
    counts = [
        panel.map_blocks(partial(_degree, first=first, side=side), dtype=np.int64, meta=np.empty(0, dtype=np.int64))
        for panel, first, side in zip(panels, np.cumsum((0, *sides)).tolist(), sides, strict=False)
    ]
    return Network(
        tuple(panel.to_delayed(optimize_graph=False)[0] for panel in panels),
        da.concatenate(counts) if counts else da.zeros(0, dtype=np.int64),
    )


def edge_panels(
    dt,
    dc,
    qcut: float,
    bs: int = 0,
    *,
    dimreduce=0,
    dtype=np.float64,
    plan: TilePlan | None = None,
    collect: Callable[[int, Iterator[kernels.Edges]], Any] = kernels.joined,
) -> list[da.Array]:
    """Return one task for every row of tiles, as an array of one block: what ``collect`` makes of its edges; lazy.

    Parameters
    ----------
    dt, dc, qcut, bs, dimreduce, dtype, plan
        As for :func:`network`.
    collect
        ``collect(number of the row of tiles, edges in pieces)``, called in the task. The rows of the edges are
        positions of genes.
    """
    check_qcut(qcut)
    found = correlations(dt, dc, bs, dimreduce=dimreduce, dtype=dtype, plan=plan)
    sides = found.tiles.sides
    candidates = found.tiles.map(
        kernels.tile_candidates, found.by_gene, meta=scipy.sparse.csr_array((0, 0), dtype=np.float64), qcut=qcut
    )
    degrees = found.degrees.rechunk(-1)
    panels = []
    for row, tiles in enumerate(candidates.rows):
        above = candidates.above(row)
        panels.append(
            da.blockwise(
                partial(_edges, row=row, first=sum(sides[:row]), qcut=qcut, collect=collect),
                ("panel",),
                tiles,
                ("panel", "columns"),
                degrees,
                ("genes",),
                *(() if above is None else (above, ("above", "panel"))),
                align_arrays=False,
                dtype=np.int64,
                meta=np.empty(0, dtype=np.int64),
                token="edges",
            )
        )
    return panels


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


def _edges(
    tiles: list[Any],
    degrees: list[Any],
    above: list[Any] | None = None,
    *,
    row: int,
    first: int,
    qcut: float,
    collect: Callable[[int, Iterator[kernels.Edges]], Any],
) -> Any:
    """Collect the edges of a row of tiles of candidates; those below the diagonal are given as their mirror images."""
    mirrored = [kernels.transpose(tile) for tile in above or ()]
    panel = scipy.sparse.hstack([*mirrored, *tiles], format="csr")
    return collect(row, kernels.edges_in_pieces(panel, first_row=first, degrees=degrees[0], qcut=qcut))


def _degree(edges: kernels.Edges, *, first: int, side: int) -> Any:
    return np.bincount(edges.row - first, minlength=side)
