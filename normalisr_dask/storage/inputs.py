"""Which format an input is in, seen from its content and name."""

from pathlib import Path

from normalisr_dask.storage.count_source import CountSource
from normalisr_dask.storage.matrix_market import MatrixMarketSource


def open_source(path: Path, *, genes: Path | None, cells: Path | None, transpose: bool) -> CountSource:
    """Open an input."""
    return MatrixMarketSource(path, genes=genes, cells=cells, transpose=transpose)
