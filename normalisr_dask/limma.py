"""limma's voomaLmFit and the functions that use its fit, under their published names.

``import normalisr_dask.limma as limma`` takes the place of ``import pylimma as limma`` for these.
"""

from normalisr_dask.results import EList, LinearFit
from normalisr_dask.steps.block_correlation import duplicate_correlation
from normalisr_dask.steps.contrasts import contrasts_fit, make_contrasts
from normalisr_dask.steps.decisions import decide_tests
from normalisr_dask.steps.empirical_bayes import e_bayes, treat
from normalisr_dask.steps.linear_models import lm_fit
from normalisr_dask.steps.mean_variance import choose_lowess_span
from normalisr_dask.steps.sample_weights import array_weights
from normalisr_dask.steps.top_tables import top_table
from normalisr_dask.steps.vooma import vooma, vooma_lm_fit

__all__ = [
    "EList",
    "LinearFit",
    "array_weights",
    "choose_lowess_span",
    "contrasts_fit",
    "decide_tests",
    "duplicate_correlation",
    "e_bayes",
    "lm_fit",
    "make_contrasts",
    "top_table",
    "treat",
    "vooma",
    "vooma_lm_fit",
]
