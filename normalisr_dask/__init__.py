"""Normalisr and voomaLmFit for single-cell counts that do not fit in memory, on Dask and Zarr.

Public names are imported when they are first used, so that ``normalisr-dask --help`` need not load Dask and Numba.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from normalisr_dask.pseudobulk import pseudobulk
    from normalisr_dask.results import EList, LinearFit
    from normalisr_dask.scverse import get, pl, pp, tl
    from normalisr_dask.steps.block_correlation import duplicate_correlation
    from normalisr_dask.steps.calibration import inflation, qq
    from normalisr_dask.steps.coexpression import coex
    from normalisr_dask.steps.contrasts import contrasts_fit, make_contrasts
    from normalisr_dask.steps.decisions import decide_tests
    from normalisr_dask.steps.differential import de
    from normalisr_dask.steps.empirical_bayes import e_bayes, treat
    from normalisr_dask.steps.gene_ontology import go_levels, goe, gotop, pccovt
    from normalisr_dask.steps.guides import assign_guides
    from normalisr_dask.steps.linear_models import lm_fit
    from normalisr_dask.steps.log_cpm import lcpm, scaling_factor
    from normalisr_dask.steps.mean_variance import choose_lowess_span
    from normalisr_dask.steps.network import binnet, degree, network
    from normalisr_dask.steps.normalisation import compute_var, normcov, normvar
    from normalisr_dask.steps.quality_control import qc_outlier, qc_reads
    from normalisr_dask.steps.sample_weights import array_weights
    from normalisr_dask.steps.top_tables import top_table
    from normalisr_dask.steps.vooma import vooma, vooma_lm_fit
    from normalisr_dask.storage.counts import open_counts
    from normalisr_dask.storage.ingest import ingest

__all__ = [
    "EList",
    "LinearFit",
    "array_weights",
    "assign_guides",
    "binnet",
    "choose_lowess_span",
    "coex",
    "compute_var",
    "contrasts_fit",
    "de",
    "decide_tests",
    "degree",
    "duplicate_correlation",
    "e_bayes",
    "get",
    "go_levels",
    "goe",
    "gotop",
    "inflation",
    "ingest",
    "lcpm",
    "lm_fit",
    "make_contrasts",
    "network",
    "normcov",
    "normvar",
    "open_counts",
    "pccovt",
    "pl",
    "pp",
    "pseudobulk",
    "qc_outlier",
    "qc_reads",
    "qq",
    "scaling_factor",
    "tl",
    "top_table",
    "treat",
    "vooma",
    "vooma_lm_fit",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pseudobulk": ["pseudobulk"],
        "results": ["EList", "LinearFit"],
        "scverse": ["get", "pl", "pp", "tl"],
        "steps.block_correlation": ["duplicate_correlation"],
        "steps.calibration": ["inflation", "qq"],
        "steps.coexpression": ["coex"],
        "steps.contrasts": ["contrasts_fit", "make_contrasts"],
        "steps.decisions": ["decide_tests"],
        "steps.differential": ["de"],
        "steps.empirical_bayes": ["e_bayes", "treat"],
        "steps.gene_ontology": ["go_levels", "goe", "gotop", "pccovt"],
        "steps.guides": ["assign_guides"],
        "steps.linear_models": ["lm_fit"],
        "steps.log_cpm": ["lcpm", "scaling_factor"],
        "steps.mean_variance": ["choose_lowess_span"],
        "steps.network": ["binnet", "degree", "network"],
        "steps.normalisation": ["compute_var", "normcov", "normvar"],
        "steps.quality_control": ["qc_outlier", "qc_reads"],
        "steps.sample_weights": ["array_weights"],
        "steps.top_tables": ["top_table"],
        "steps.vooma": ["vooma", "vooma_lm_fit"],
        "storage.counts": ["open_counts"],
        "storage.ingest": ["ingest"],
    },
)
