"""Normalisr and voomaLmFit for single-cell counts that do not fit in memory, on Dask and Zarr.

Public names are imported when they are first used, so that ``normalisr-dask --help`` need not load Dask and Numba.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from normalisr_dask.steps.calibration import inflation, qq
    from normalisr_dask.steps.coexpression import coex
    from normalisr_dask.steps.differential import de
    from normalisr_dask.steps.gene_ontology import goe, gotop, pccovt
    from normalisr_dask.steps.guides import assign_guides
    from normalisr_dask.steps.log_cpm import lcpm, scaling_factor
    from normalisr_dask.steps.network import binnet, degree, network
    from normalisr_dask.steps.normalisation import compute_var, normcov, normvar
    from normalisr_dask.steps.quality_control import qc_outlier, qc_reads
    from normalisr_dask.storage.counts import open_counts
    from normalisr_dask.storage.ingest import ingest

__all__ = [
    "assign_guides",
    "binnet",
    "coex",
    "compute_var",
    "de",
    "degree",
    "goe",
    "gotop",
    "inflation",
    "ingest",
    "lcpm",
    "network",
    "normcov",
    "normvar",
    "open_counts",
    "pccovt",
    "qc_outlier",
    "qc_reads",
    "qq",
    "scaling_factor",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "steps.calibration": ["inflation", "qq"],
        "steps.coexpression": ["coex"],
        "steps.differential": ["de"],
        "steps.gene_ontology": ["goe", "gotop", "pccovt"],
        "steps.guides": ["assign_guides"],
        "steps.log_cpm": ["lcpm", "scaling_factor"],
        "steps.network": ["binnet", "degree", "network"],
        "steps.normalisation": ["compute_var", "normcov", "normvar"],
        "steps.quality_control": ["qc_outlier", "qc_reads"],
        "storage.counts": ["open_counts"],
        "storage.ingest": ["ingest"],
    },
)
