"""Tables of a run for people: differential expression and network edges as Parquet, written block by block."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from normalisr_dask.kernels.network import Edges, stored_candidates, stored_edges_in_pieces
from normalisr_dask.schema import kind_of, stage_of_level
from normalisr_dask.storage.locations import as_path, open_array, whole_file
from normalisr_dask.storage.result_store import ResultStore

DE_TABLE, EDGE_TABLE = "de.parquet", "coex_edges.parquet"
#: float64 values of one array that are held at a time.
BLOCK_VALUES = 1 << 20
#: Edges before genes have their names: positions.
EDGE_SCHEMA = pa.schema(
    [
        ("gene", pa.int32()),
        ("gene_2", pa.int32()),
        ("r", pa.float64()),
        ("pvalue", pa.float64()),
        ("qvalue", pa.float64()),
    ]
)


def write_de_table(
    output: Path,
    groupings: NDArray[np.object_],
    genes: NDArray[np.object_],
    stored: Mapping[str, zarr.Array],
    qcut: float,
    *,
    targets: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """Write ``de.parquet`` from the filled stage: one row for each grouping and gene that were tested.

    Parameters
    ----------
    output
        The output folder.
    groupings, genes
        Names.
    stored
        Arrays of the stage ``de``.
    qcut
        Largest Q-value of a hit, within its grouping.
    targets
        Target of every grouping, where known.

    Returns
    -------
    int64 (groupings,)
        Number of hits of every grouping.

    Notes
    -----
    Columns: grouping, target (where known), gene (all dictionary-encoded), n_cells, gamma, se, pvalue, log10_pvalue,
    qvalue (within the grouping), qvalue_all (over all rows). Memory: three blocks of a million rows.
    """
    n_cells = np.asarray(stored["n_cells"][:])
    target_names, target_of = np.unique(np.array(targets or (), dtype=object), return_inverse=True)
    arrays = {name: stored[name] for name in ("gamma", "se", "pvalue", "log10_pvalue", "qvalue", "qvalue_all")}
    hits = np.zeros(groupings.size, dtype=np.int64)

    def blocks() -> Iterator[pa.RecordBatch]:
        height = max(1, BLOCK_VALUES // max(1, genes.size))
        for start in range(0, groupings.size, height):
            stop = min(start + height, groupings.size)
            columns = {name: np.asarray(array[start:stop]) for name, array in arrays.items()}
            hits[start:stop] = np.count_nonzero(columns["qvalue"] <= qcut, axis=1)
            is_test = ~np.isnan(columns["pvalue"])
            rows, positions = np.nonzero(is_test)
            rows += start
            target = {} if targets is None else {"target": _names_at(target_names, target_of[rows])}
            yield pa.record_batch(
                {
                    "grouping": _names_at(groupings, rows),
                    **target,
                    "gene": _names_at(genes, positions),
                    "n_cells": pa.array(n_cells[rows]),
                    **{name: pa.array(values[is_test]) for name, values in columns.items()},
                }
            )

    _write(output / DE_TABLE, blocks())
    return hits


def save_stored_edges(number: int, start: int, stop: int, *, path: str, stage: str, qcut: float, folder: str) -> int:
    """Write the edges of rows ``start`` to ``stop`` of the stored gene pairs to a file of their own; a task calls it.

    Parameters
    ----------
    number
        Of the panel of rows.
    start, stop
        First row and the one after the last.
    path, stage
        The result store, which a task opens itself, and the stage of the gene pairs in it.
    qcut
        Largest Benjamini-Hochberg Q-value of an edge, within the row of the first gene and without the diagonal.
    folder
        As for :func:`save_edges`.

    Returns
    -------
    int
        Number of edges.

    Notes
    -----
    Reads chunk by chunk and keeps pairs with P ≤ ``qcut`` alone. Memory: two chunks, and up to 24 bytes a pair.
    """
    p_values, dots, variances = (open_array(as_path(path) / stage / name) for name in ("pvalue", "dot", "var"))
    n_genes, width = p_values.shape[0], p_values.chunks[1]
    tiles = []
    for first in range(0, n_genes, width):
        tile = (slice(start, stop), slice(first, min(first + width, n_genes)))
        values = (np.asarray(array[tile]) for array in (p_values, dots))
        tiles.append(stored_candidates(*values, first_row=start, first_column=first, qcut=qcut))
    pieces = stored_edges_in_pieces(tiles, np.asarray(variances[...]), first_row=start, qcut=qcut)
    return save_edges(number, pieces, folder=folder)


def edge_batch(
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    r: NDArray[np.float64],
    p_value: NDArray[np.float64],
    q_value: NDArray[np.float64],
) -> pa.RecordBatch:
    """Return edges as a batch: gene, gene_2 (int32 positions), r, pvalue, qvalue."""
    return pa.record_batch(
        [
            pa.array(values, field.type)
            for values, field in zip((row, column, r, p_value, q_value), EDGE_SCHEMA, strict=True)
        ],
        schema=EDGE_SCHEMA,
    )


def save_edges(row: int, pieces: Iterator[Edges], *, folder: str) -> int:
    """Write the edges of a panel to a file of their own, and return their number; a task calls it.

    Parameters
    ----------
    row
        Number of the panel.
    pieces
        Its edges.
    folder
        Where the files of all panels are.
    """
    n_edges = 0
    with (
        whole_file(as_path(folder) / _panel(row), several_writers=True) as draft,
        pa.OSFile(str(draft), "wb") as file,
        pa.ipc.new_file(file, EDGE_SCHEMA) as writer,
    ):
        for edges in pieces:
            writer.write_batch(edge_batch(edges.row, edges.column, edges.r, edges.p_value, edges.q_value))
            n_edges += edges.row.size
    return n_edges


def panels_without_edges(folder: Path, n_panels: int) -> list[int]:
    """Return which panels of 0 to ``n_panels`` :func:`save_edges` has not written."""
    written = {path.name for path in folder.iterdir()}
    return [row for row in range(n_panels) if _panel(row) not in written]


def saved_edges(folder: Path, n_panels: int) -> Iterator[pa.RecordBatch]:
    """Yield the edges that :func:`save_edges` has written of panels 0 to ``n_panels``."""
    for row in range(n_panels):
        with (folder / _panel(row)).open("rb") as file, pa.ipc.open_file(file) as reader:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))


def _panel(row: int) -> str:
    return f"{row}.arrow"


def edge_table(level: int) -> str:
    """Return the name of the table of edges of a level."""
    return f"coex_{stage_of_level('edges', level)}.parquet"


def enrichment_table(level: int) -> str:
    """Return the name of the table of enriched terms of a level."""
    return f"{stage_of_level('go', level)}.parquet"


def remove_table(results: ResultStore, stage: str) -> None:
    """Remove the table of a stage of a level, if it has one and it is there."""
    name = f"coex_{stage}" if kind_of(stage) == "edges" else stage
    (results.output / f"{name}.parquet").unlink(missing_ok=True)


def write_enrichment(results: ResultStore, level: int, table: pd.DataFrame) -> None:
    """Write ``go_lv0.parquet`` or that of another level: one row a term, as :func:`normalisr_dask.goe` has it."""
    batches = pa.Table.from_pandas(table, preserve_index=False).to_batches()
    _write(results.output / enrichment_table(level), iter(batches))


def write_edges(
    results: ResultStore, genes: NDArray[np.object_], batches: Iterable[pa.RecordBatch], *, level: int = 0
) -> NDArray[np.int64]:
    """Write ``coex_edges.parquet`` from batches of :func:`edge_batch`, in their order.

    Parameters
    ----------
    results
        Of the run.
    level
        Number of gene sets removed before.
    genes
        Names of the genes.
    batches
        At least one.

    Returns
    -------
    int64 (genes,)
        Number of edges of every gene.

    Notes
    -----
    Columns: gene, gene_2 (dictionary-encoded), r, pvalue, qvalue. A pair stands twice where it is significant for
    both genes, as Normalisr's binnet has it. Memory: a batch.
    """
    degree = np.zeros(genes.size, dtype=np.int64)

    def named() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            degree[:] += np.bincount(batch["gene"].to_numpy(), minlength=genes.size)
            names = {name: _names_at(genes, batch[name].to_numpy()) for name in ("gene", "gene_2")}
            yield pa.record_batch(names | {name: batch[name] for name in ("r", "pvalue", "qvalue")})

    _write(results.output / edge_table(level), named())
    return degree


def _names_at(names: NDArray[np.object_], positions: NDArray[np.int64]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(positions, type=pa.int32()), pa.array(names.tolist(), pa.string()))


def _write(path: Path, blocks: Iterator[pa.RecordBatch]) -> None:
    """Write a table, whole or not at all."""
    ahead = _one_ahead(blocks)
    first = next(ahead)
    repeating = [field.name for field in first.schema if not pa.types.is_floating(field.type)]
    options: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": repeating,
    }  # looking for equal floats takes long
    with whole_file(path) as draft, pq.ParquetWriter(draft, first.schema, **options) as writer:
        writer.write_batch(first)
        for block in ahead:
            writer.write_batch(block)


def _one_ahead(blocks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Make the next block while one is written."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = pool.submit(next, blocks, None)
            yield block
