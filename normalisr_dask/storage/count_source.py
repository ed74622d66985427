"""What every input of `ingest` looks like, whatever its format: names, and a stream of entries."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd


class Entries(NamedTuple):
    """Some entries of a matrix, in the order in which the input gives them.

    Attributes
    ----------
    cells, genes
        Indices from 0, int32, shape (n_entries,).
    counts
        uint32, shape (n_entries,); zeros and several entries of one cell and gene are allowed.
    bytes_done
        How far the input has been read, in bytes on disk.
    """

    cells: np.ndarray
    genes: np.ndarray
    counts: np.ndarray
    bytes_done: int


class CountSource(Protocol):
    """An opened input, with its names read and its form checked, but not its entries.

    Attributes
    ----------
    path
        The file or folder.
    obs, var
        Tables of cells and genes, indexed by their names; names need not be unique yet.
    n_bytes
        Size on disk, in bytes.
    n_entries
        Number of entries, or an estimate.
    by_cell
        Whether entries may come cell by cell; False if the layout rules it out.
    """

    path: Path
    obs: pd.DataFrame
    var: pd.DataFrame
    n_bytes: int
    n_entries: int
    by_cell: bool

    def entries(self) -> Generator[Entries, None, None]:
        """Read the entries from the beginning; can be called again, and closed before the end."""


class ProgressEvent(NamedTuple):
    """How far `ingest` is; reading begins anew where an input turns out not to go cell by cell.

    Attributes
    ----------
    stage
        ``"reading"`` the inputs, or ``"sorting"`` the entries of one that does not go cell by cell.
    bytes_done, bytes_total
        Bytes of this stage: of the (compressed) inputs, or of the entries set aside on disk.
    n_entries
        Entries of the inputs read, or sorted, so far.
    """

    stage: Literal["reading", "sorting"]
    bytes_done: int
    bytes_total: int
    n_entries: int


ProgressCallback = Callable[[ProgressEvent], None]


def ignore_progress(event: ProgressEvent) -> None:
    """Take an event and do nothing."""
