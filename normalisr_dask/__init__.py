"""Normalisr and voomaLmFit for single-cell counts that do not fit in memory, on Dask and Zarr."""

from normalisr_dask.steps.coexpression import coex
from normalisr_dask.steps.differential import de
from normalisr_dask.steps.log_cpm import lcpm, scaling_factor
from normalisr_dask.steps.normalisation import compute_var, normcov, normvar
from normalisr_dask.steps.quality_control import qc_outlier, qc_reads
from normalisr_dask.storage.counts import open_counts
from normalisr_dask.storage.ingest import ingest

__all__ = [
    "coex",
    "compute_var",
    "de",
    "ingest",
    "lcpm",
    "normcov",
    "normvar",
    "open_counts",
    "qc_outlier",
    "qc_reads",
    "scaling_factor",
]
