"""What the report needs of the table of edges, in one pass over it a batch at a time."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BATCH_ROWS = 1 << 18


class EdgeExtract(NamedTuple):
    """Parts of the table of edges.

    Attributes
    ----------
    first, second
        Positions of the genes of the strongest edges, first < second, the strongest first.
    r, log10_q
        Their correlation and log10 Q, the smaller Q of the two rows that a pair may have.
    correlation
        R between the chosen genes (chosen, chosen); 1 on the diagonal, NaN where there is no edge.
    n_positive
        Number of rows of the table with R above 0.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    r: Floats
    q: Floats
    correlation: Floats
    n_positive: int


def extract_edges(table: Path, genes: NDArray[np.object_], chosen: NDArray[np.int64], n_strongest: int) -> EdgeExtract:
    """Read the table of edges once, and keep the strongest edges and those between chosen genes.

    Parameters
    ----------
    table
        ``coex_edges.parquet``.
    genes
        Names of all genes, in the order of the positions.
    chosen
        Positions of genes.
    n_strongest
        How many edges to keep.

    Notes
    -----
    Cost: one pass over the table. Memory: a batch.
    """
    position_of = {name: position for position, name in enumerate(genes)}
    rank = np.full(genes.size, -1)
    rank[chosen] = np.arange(chosen.size)
    correlation = np.full((chosen.size, chosen.size), np.nan)
    np.fill_diagonal(correlation, 1.0)
    strongest = np.empty((0, 4))
    n_positive = 0
    with table.open("rb") as file, pq.ParquetFile(file, read_dictionary=["gene", "gene_2"]) as edges:
        for batch in edges.iter_batches(BATCH_ROWS, columns=["gene", "gene_2", "r", "qvalue"]):
            first, second = (_positions(batch[name], position_of) for name in ("gene", "gene_2"))
            r, q = batch["r"].to_numpy(), batch["qvalue"].to_numpy()
            n_positive += int(np.count_nonzero(r > 0))
            both = (rank[first] >= 0) & (rank[second] >= 0)
            rows, columns = rank[first[both]], rank[second[both]]
            correlation[rows, columns] = correlation[columns, rows] = r[both]
            rows = np.column_stack([np.minimum(first, second), np.maximum(first, second), r, q])
            strongest = _strongest(np.vstack([strongest, rows]), n_strongest)
    return EdgeExtract(
        strongest[:, 0].astype(np.int64),
        strongest[:, 1].astype(np.int64),
        strongest[:, 2],
        strongest[:, 3],
        correlation,
        n_positive,
    )


def _positions(column: pa.DictionaryArray, position_of: dict[str, int]) -> NDArray[np.int64]:
    """Return the positions of the genes named in a column."""
    of_dictionary = np.array([position_of[name] for name in column.dictionary.to_pylist()], dtype=np.int64)
    return of_dictionary[column.indices.to_numpy()]


def _strongest(edges: Floats, number: int) -> Floats:
    """Return the edges (first, second, r, q) with the largest |r|, each pair once, the strongest first."""
    if len(edges) > 2 * number:  # a pair has at most two rows, with the same r
        least = np.partition(np.abs(edges[:, 2]), len(edges) - 2 * number)[len(edges) - 2 * number]
        edges = edges[np.abs(edges[:, 2]) >= least]
    edges = edges[np.lexsort((edges[:, 3], edges[:, 1], edges[:, 0], -np.abs(edges[:, 2])))]
    is_new = np.ones(len(edges), dtype=bool)
    is_new[1:] = (edges[1:, :2] != edges[:-1, :2]).any(axis=1)
    return edges[is_new][:number]
