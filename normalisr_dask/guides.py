"""From a file of guide UMI counts to a file of groupings."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import dask
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.steps.guides import assign_guides
from normalisr_dask.storage.count_source import ProgressCallback
from normalisr_dask.storage.count_store import is_store
from normalisr_dask.storage.counts import Counts, open_counts
from normalisr_dask.storage.grouping_files import grouping_files, write_groupings
from normalisr_dask.storage.ingest import ingest

FEATURE_TYPE = "CRISPR Guide Capture"


@dataclass(frozen=True)
class GuideOutcome:
    """What an assignment of guides came to.

    Attributes
    ----------
    files
        The file of groupings, and those of its names where it is Matrix Market.
    guides
        Names of the guides.
    guides_per_cell
        Guides that passed in every cell, int64 (cells,).
    cells_per_guide
        Cells in every guide's grouping, int64 (guides,).
    n_assigned
        Cells in some grouping.
    """

    files: tuple[Path, ...]
    guides: tuple[str, ...]
    guides_per_cell: NDArray[np.int64]
    cells_per_guide: NDArray[np.int64]
    n_assigned: int

    def cells_with(self, n_guides: int) -> int:
        """Return the number of cells in which so many guides passed."""
        return int(np.count_nonzero(self.guides_per_cell == n_guides))


def write_guide_groupings(
    counts: str | Path,
    output: str | Path,
    *,
    guide_names: str | Path | None = None,
    cell_names: str | Path | None = None,
    transpose: bool = False,
    threshold: int = 5,
    min_fraction: float | None = None,
    moi: Literal["low", "high"] = "low",
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> GuideOutcome:
    """Assign guides to cells, and write the groupings; computes with Dask's default scheduler.

    Parameters
    ----------
    counts
        UMI counts of guides in any format that ``ingest`` takes, or a count store. Where the features have types, those
        of type "CRISPR Guide Capture" are the guides.
    output
        File to write: ``.mtx``, ``.mtx.gz`` or ``.parquet``.
    guide_names, cell_names, transpose
        As ``genes``, ``cells`` and ``transpose`` of :func:`normalisr_dask.ingest`.
    threshold, min_fraction, moi
        As of :func:`normalisr_dask.assign_guides`.
    overwrite
        Whether to replace files that are already there.
    progress
        As of :func:`normalisr_dask.ingest`.

    Returns
    -------
    GuideOutcome

    Raises
    ------
    FileNotFoundError
        If the input, or a file of names, is missing.
    FileExistsError
        If a file is already there.
    ValueError
        If the input is damaged or does not fit its names, an option is out of range, or the output's suffix is unknown.

    Notes
    -----
    The input is read once, streaming, into a temporary count store beside the output. Memory: a few blocks of counts,
    and the groupings.
    """
    files = grouping_files(Path(output))
    existing = [file for file in files if file.exists()]
    if existing and not overwrite:
        msg = f"{existing[0]} is already there; give another name, or overwrite it (--overwrite)"
        raise FileExistsError(msg)
    if existing and existing[0].is_dir():
        msg = f"{existing[0]} is a folder, where a file is to be written; give another name"
        raise FileExistsError(msg)
    if not files[0].absolute().parent.is_dir():
        msg = f"there is no folder {files[0].absolute().parent} to write {files[0].name} into"
        raise FileNotFoundError(msg)
    if is_store(counts):
        return _assign(open_counts(counts), files[0], threshold, min_fraction, moi)
    with tempfile.TemporaryDirectory(prefix=".guides-", dir=files[0].absolute().parent) as folder:
        store = Path(folder) / "counts.zarr"
        ingest(counts, store, genes=guide_names, cells=cell_names, transpose=transpose, progress=progress)
        return _assign(open_counts(store), files[0], threshold, min_fraction, moi)


def _assign(
    counts: Counts, output: Path, threshold: int, min_fraction: float | None, moi: Literal["low", "high"]
) -> GuideOutcome:
    """Assign guides of opened counts and write them."""
    if "feature_types" in counts.var:
        is_guide = (counts.var["feature_types"] == FEATURE_TYPE).to_numpy()
        if is_guide.any():
            counts = counts.subset(genes=np.flatnonzero(is_guide))
    assigned = assign_guides(counts.matrix, threshold=threshold, min_fraction=min_fraction, moi=moi)
    groupings, n_guides = dask.compute(*assigned)
    files = write_groupings(output, groupings, counts.genes, counts.cells)
    return GuideOutcome(
        files,
        tuple(map(str, counts.genes)),
        n_guides,
        np.bincount(groupings.indices, minlength=groupings.shape[0]),
        int(np.count_nonzero(np.diff(groupings.indptr))),
    )
