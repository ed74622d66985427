"""From entries in the order of the input to rows of cells: as they come, or sorted through files on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from normalisr_dask.kernels.entries import LARGEST_COUNT, OUT_OF_ORDER, TOO_LARGE, compress_cells, sort_by_cell
from normalisr_dask.storage.count_source import Entries

GROUP_ENTRIES = 1 << 20  # sorted in memory at a time: 12 bytes each, three times over
MOST_GROUPS = 512
RECORD_TYPE = np.dtype(np.uint32)
RECORD_FIELDS = 3


class OutOfOrderError(Exception):
    """Entries were taken to come cell by cell, but a cell came back."""


class CellRows(NamedTuple):
    """Rows of a CSR matrix for the next cells.

    Attributes
    ----------
    entries_per_cell
        int64, one for each of these cells.
    indices, counts
        Genes ascending within a cell, int32; counts above 0, uint32.
    n_duplicates
        Entries that were added to another of the same cell and gene.
    """

    entries_per_cell: np.ndarray
    indices: np.ndarray
    counts: np.ndarray
    n_duplicates: int


class RowBuilder:
    """Turns entries that come cell by cell into rows, with the genes renumbered.

    Parameters
    ----------
    path
        The input, for messages.
    gene_map
        New number of each gene, int32; -1 drops it.
    n_new_genes
        Number of genes after renumbering.
    """

    def __init__(self, path: Path, gene_map: np.ndarray, n_new_genes: int) -> None:
        self._path = path
        self._gene_map = gene_map
        self._gene_totals = np.full(n_new_genes, -1, dtype=np.int64)
        self.next_cell = 0

    def rows(self, cells: np.ndarray, genes: np.ndarray, counts: np.ndarray, stop: int) -> CellRows:
        """Give the rows of the cells from `next_cell` to `stop`, of which these are all entries.

        Raises
        ------
        OutOfOrderError
            If the entries do not come cell by cell.
        ValueError
            If the counts of one cell and gene add up to more than 32 bits.
        """
        n_entries = cells.shape[0]
        entries_per_cell = np.empty(stop - self.next_cell, dtype=np.int64)
        indices, data = np.empty(n_entries, dtype=np.int32), np.empty(n_entries, dtype=np.uint32)
        n_kept, n_duplicates, code, place = compress_cells(
            cells, genes, counts, self._gene_map, self.next_cell, self._gene_totals, entries_per_cell, indices, data
        )
        if code == OUT_OF_ORDER:
            raise OutOfOrderError
        if code == TOO_LARGE:
            msg = f"{self._path}: duplicate entries of cell {cells[place] + 1} add up to more than {LARGEST_COUNT}"
            raise ValueError(msg)
        self.next_cell = stop
        return CellRows(entries_per_cell, indices[:n_kept], data[:n_kept], n_duplicates)


def rows_as_they_come(blocks: Iterator[Entries], builder: RowBuilder, n_cells: int) -> Iterator[CellRows]:
    """Rows from entries that come cell by cell; the last cell of a block waits for the next block.

    Raises
    ------
    OutOfOrderError
        If they do not come cell by cell.
    """
    carried: tuple[np.ndarray, ...] = tuple(np.empty(0, dtype=dtype) for dtype in (np.int32, np.int32, np.uint32))
    for block in blocks:
        if block.cells.shape[0] == 0:
            continue
        last_cell = block.cells[-1]
        if last_cell < builder.next_cell:
            raise OutOfOrderError
        n_whole = int(np.searchsorted(block.cells, last_cell))  # of an unsorted block anything, and it is refused
        fields = block[:3]
        if carried[0].shape[0] and carried[0][0] == last_cell:
            carried = tuple(np.concatenate(pair) for pair in zip(carried, fields, strict=True))
            if not (block.cells == last_cell).all():
                raise OutOfOrderError
            continue
        whole = [np.concatenate((old, new[:n_whole])) for old, new in zip(carried, fields, strict=True)]
        carried = tuple(new[n_whole:].copy() for new in fields)
        if (carried[0] != last_cell).any():
            raise OutOfOrderError
        yield builder.rows(whole[0], whole[1], whole[2], int(last_cell))
    yield builder.rows(carried[0], carried[1], carried[2], n_cells)


def rows_after_sorting(
    blocks: Iterator[Entries],
    builder: RowBuilder,
    n_cells: int,
    n_entries: int,
    folder: Path,
    report: Callable[[int, int, int], None],
    *,
    group_entries: int = GROUP_ENTRIES,
) -> Iterator[CellRows]:
    """Rows from entries in any order, by way of files on disk.

    Parameters
    ----------
    blocks
        The entries.
    builder
        Makes the rows.
    n_cells, n_entries
        Number of cells; number of entries, or an estimate.
    folder
        Where the entries are set aside, 12 bytes each; made here, and removed at the end.
    report
        Called with bytes sorted, bytes in all, and entries sorted.
    group_entries
        How many entries are sorted in memory at a time.

    Notes
    -----
    A bucket sort: entries go to one file for each run of neighbouring cells, and each file is sorted in memory. A file
    that got more than its share, because cells differ, is split again in the same way. Memory does not depend on
    the number of entries.
    """
    folder.mkdir()
    groups = _scatter((block[:3] for block in blocks), range(n_cells), n_entries, folder, group_entries)
    n_bytes = sum(path.stat().st_size for path, _ in groups if path.exists())
    done = 0
    while groups:
        path, cells = groups.pop(0)
        n_group = path.stat().st_size // (RECORD_FIELDS * RECORD_TYPE.itemsize) if path.exists() else 0
        if n_group > 2 * group_entries and len(cells) > 1:
            subfolder = path.with_suffix(".split")
            subfolder.mkdir()
            groups[:0] = _scatter(_read_records(path, group_entries), cells, n_group, subfolder, group_entries)
            path.unlink()
            continue
        yield _sorted_rows(path, n_group, cells, builder)
        path.unlink(missing_ok=True)
        done += n_group
        report(done * RECORD_FIELDS * RECORD_TYPE.itemsize, n_bytes, done)


def _sorted_rows(path: Path, n_entries: int, cells: range, builder: RowBuilder) -> CellRows:
    """Rows of a group of cells, from its file."""
    if n_entries == 0:
        nothing = np.empty(0, dtype=np.int32)
        return builder.rows(nothing, nothing, nothing.view(RECORD_TYPE), cells.stop)
    records = np.empty((RECORD_FIELDS, n_entries), dtype=RECORD_TYPE)
    for fields in _read_records(path, n_entries):
        sort_by_cell(*fields, cells.start, 1, len(cells), records)
    return builder.rows(records[0].view(np.int32), records[1].view(np.int32), records[2], cells.stop)


def _scatter(
    blocks: Iterator[tuple[np.ndarray, ...]], cells: range, n_entries: int, folder: Path, group_entries: int
) -> list[tuple[Path, range]]:
    """Append entries to the files of their groups of cells; a group without entries has no file."""
    n_groups = min(max(-(-n_entries // group_entries), 1), MOST_GROUPS, max(len(cells), 1))
    cells_per_group = max(-(-len(cells) // n_groups), 1)
    n_groups = max(-(-len(cells) // cells_per_group), 1)
    groups = [
        (folder / f"{group}.entries", cells[group * cells_per_group : (group + 1) * cells_per_group])
        for group in range(n_groups)
    ]
    for fields in blocks:
        records = np.empty((RECORD_FIELDS, fields[0].shape[0]), dtype=RECORD_TYPE)
        offsets = sort_by_cell(*fields, cells.start, cells_per_group, n_groups, records)
        for group in np.flatnonzero(np.diff(offsets)):
            with groups[group][0].open("ab") as file:
                # one record after another, so that a file can be read from any point
                file.write(records[:, offsets[group] : offsets[group + 1]].T.tobytes())
    return groups


def _read_records(path: Path, n_records: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Read entries that were set aside, some at a time, as cells, genes and counts."""
    with path.open("rb") as file:
        while text := file.read(n_records * RECORD_FIELDS * RECORD_TYPE.itemsize):
            records = np.frombuffer(text, dtype=RECORD_TYPE).reshape(-1, RECORD_FIELDS)
            cells, genes, counts = (np.ascontiguousarray(field) for field in records.T)
            yield cells.view(np.int32), genes.view(np.int32), counts
