"""Tables of a run for people: differential expression and network edges as Parquet, written block by block."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from normalisr_dask.kernels.multiple_testing import significant_in_rows
from normalisr_dask.storage.result_store import ResultStore

DE_TABLE, EDGE_TABLE = "de.parquet", "coex_edges.parquet"
#: float64 values of one array that are held at a time.
BLOCK_VALUES = 4 << 20


def write_de_table(results: ResultStore, qcut: float) -> NDArray[np.int64]:
    """Write ``de.parquet`` from the stored stage: one row a grouping and gene.

    Parameters
    ----------
    results
        With the stage ``de``.
    qcut
        Largest Q-value of a hit.

    Returns
    -------
    int64 (groupings,)
        Number of hits of every grouping.

    Notes
    -----
    Columns: grouping, gene (dictionary-encoded), n_cells, gamma, se, pvalue, log10_pvalue, qvalue. Memory: a few
    million rows.
    """
    genes, groupings = results.read("de", "gene"), results.read("de", "grouping")
    n_cells = results.read("de", "n_cells")
    names = ("gamma", "se", "pvalue", "log10_pvalue", "qvalue")
    arrays = {name: zarr.open_array(results.path / "de" / name, mode="r") for name in names}
    hits = np.zeros(groupings.size, dtype=np.int64)

    def blocks() -> Iterator[pa.RecordBatch]:
        height = max(1, BLOCK_VALUES // max(1, genes.size))
        for start in range(0, groupings.size, height):
            stop = min(start + height, groupings.size)
            columns = {name: np.asarray(array[start:stop]) for name, array in arrays.items()}
            hits[start:stop] = np.count_nonzero(columns["qvalue"] <= qcut, axis=1)
            rows, positions = np.divmod(np.arange((stop - start) * genes.size), genes.size)
            yield pa.record_batch(
                {
                    "grouping": _names_at(groupings, rows + start),
                    "gene": _names_at(genes, positions),
                    "n_cells": pa.array(n_cells[rows + start]),
                    **{name: pa.array(values.ravel()) for name, values in columns.items()},
                }
            )

    _write(results.output / DE_TABLE, blocks())
    return hits


def write_edges(results: ResultStore, qcut: float) -> int:
    """Write ``coex_edges.parquet`` from the stored stage: pairs with Q ≤ ``qcut`` among all pairs of the first gene.

    Parameters
    ----------
    results
        With the stage ``coex``.
    qcut
        Largest Benjamini-Hochberg Q-value of an edge, within the row of the first gene and without the diagonal.

    Returns
    -------
    int
        Number of edges.

    Notes
    -----
    Columns: gene, gene_2 (dictionary-encoded), r, pvalue, qvalue. A pair stands twice where it is significant for
    both genes, as Normalisr's binnet has it. Memory: a block of rows of genes × genes.
    """
    genes, variance = results.read("coex", "gene"), results.read("coex", "var")
    p_values, dots = (zarr.open_array(results.path / "coex" / name, mode="r") for name in ("pvalue", "dot"))
    deviation = np.sqrt(variance)
    n_edges = 0

    def blocks() -> Iterator[pa.RecordBatch]:
        nonlocal n_edges
        height = max(1, BLOCK_VALUES // max(1, genes.size))
        for start in range(0, genes.size, height):
            stop = min(start + height, genes.size)
            block = np.asarray(p_values[start:stop])
            rows, columns, q_values = significant_in_rows(block, first_row=start, qcut=qcut)
            n_edges += rows.size
            scale = deviation[rows + start] * deviation[columns]
            dot = np.asarray(dots[start:stop])[rows, columns]
            yield pa.record_batch(
                {
                    "gene": _names_at(genes, rows + start),
                    "gene_2": _names_at(genes, columns),
                    "r": pa.array(dot / scale),
                    "pvalue": pa.array(block[rows, columns]),
                    "qvalue": pa.array(q_values),
                }
            )

    _write(results.output / EDGE_TABLE, blocks())
    return n_edges


def _names_at(names: NDArray[np.object_], positions: NDArray[np.int64]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(positions, type=pa.int32()), pa.array(names.tolist(), pa.string()))


def _write(path: Path, blocks: Iterator[pa.RecordBatch]) -> None:
    """Write a table beside its place and rename it there."""
    draft = path.with_name(f"{path.name}.partial")
    first = next(blocks)
    with pq.ParquetWriter(draft, first.schema, compression="zstd") as writer:
        writer.write_batch(first)
        for block in blocks:
            writer.write_batch(block)
    draft.replace(path)
