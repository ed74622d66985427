"""Histograms of P-values in files, each whole or not there: what an interrupted calibration goes on with."""

from pathlib import Path

import numpy as np

from normalisr_dask.kernels.calibration import Histogram
from normalisr_dask.storage.locations import whole_file


def save_histogram(path: Path, tests: Histogram) -> None:
    """Write a histogram as an array of int64, (2, occupied steps): steps and counts."""
    with whole_file(path) as draft, draft.open("wb") as file:
        np.save(file, np.stack(tests), allow_pickle=False)


def saved_histogram(path: Path) -> Histogram:
    """Return what :func:`save_histogram` has written."""
    with path.open("rb") as file:
        steps, counts = np.load(file, allow_pickle=False)
    return Histogram(steps, counts)
