"""Normalisr's own import path: ``import normalisr_dask.normalisr as norm`` in place of ``normalisr.normalisr``.

The twelve functions of normalisr 1.0.0, with its arguments in its order and its defaults. What is given as NumPy or
SciPy sparse arrays is computed at once and comes back as NumPy arrays, so that scripts need no other change; with Dask
or Zarr arrays among the arguments they build lazy Dask arrays, as the functions of the same names in
``normalisr_dask`` always do.
"""

from normalisr_dask.eager import eager
from normalisr_dask.steps import (
    coexpression,
    differential,
    gene_ontology,
    log_cpm,
    network,
    normalisation,
    quality_control,
)

__all__ = [
    "binnet",
    "coex",
    "compute_var",
    "de",
    "gotop",
    "lcpm",
    "normcov",
    "normvar",
    "pccovt",
    "qc_outlier",
    "qc_reads",
    "scaling_factor",
]

qc_reads = eager(quality_control.qc_reads)
qc_outlier = eager(quality_control.qc_outlier)
lcpm = eager(log_cpm.lcpm)
scaling_factor = eager(log_cpm.scaling_factor)
normcov = eager(normalisation.normcov)
compute_var = eager(normalisation.compute_var)
normvar = eager(normalisation.normvar)
de = eager(differential.de)
coex = eager(coexpression.coex)
binnet = eager(network.binnet)
gotop = eager(gene_ontology.gotop)
pccovt = eager(gene_ontology.pccovt)
