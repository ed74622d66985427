"""The low-MOI screen of Papalexi et al. (2021): the tests are those of normalisr 1.0.0, guide by guide."""

from pathlib import Path

import dask
import numpy as np
import oracles
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from comparing import assert_close, assert_same_p_values

import normalisr_dask as nd

NON_TARGETING = "non-targeting"


@pytest.mark.slow
@pytest.mark.parametrize("single", [0, 1, 4])
def test_every_guide_against_every_gene(real_data: Path, single: int) -> None:
    folder = real_data / "papalexi_lowmoi"
    counts = scipy.sparse.csc_array(scipy.io.mmread(folder / "genes.mtx.gz"))
    cells = pd.read_csv(folder / "cells.tsv.gz", sep="\t", index_col=0)
    targets = pd.read_csv(folder / "grna_targets.tsv", sep="\t", index_col=0)["grna_target"]
    guides = targets.index[(targets != NON_TARGETING) & targets.index.isin(cells["top_grna"])]
    groupings = (cells["top_grna"].to_numpy() == guides.to_numpy()[:, None]).astype(np.int8)
    # Normalised by the size of the whole library, of which the genes here are a few.
    library = np.log(cells["response_n_umis"].to_numpy())
    replicates = pd.get_dummies(cells["bio_rep"]).to_numpy(dtype=np.float64).T[1:]
    given = np.vstack([library, library**2, cells["p_mito"], replicates])

    log_cpm = nd.lcpm(counts, normalize=False).lcpm - library
    covariates = nd.normcov(given)
    weights = nd.compute_var(log_cpm, covariates)
    expression, normalised_covariates = nd.normvar(log_cpm, covariates, weights, nd.scaling_factor(counts))
    found = dask.compute(nd.de(groupings, expression, normalised_covariates, single=single, lowmem=False))[0]

    dense = counts.toarray().astype(np.int64)
    their_log_cpm = oracles.lcpm(dense, normalize=False)[0] - library
    their_covariates = oracles.normcov(given)
    their_weights = oracles.compute_var(their_log_cpm, their_covariates)
    theirs = oracles.normvar(their_log_cpm, their_covariates, their_weights, oracles.scaling_factor(dense))
    pvalue, *others = oracles.de(groupings.astype(np.float64), *theirs, single=single, lowmem=False)
    for name, expected in zip(("gamma", "alpha", "varg", "vart"), others, strict=True):
        assert_close(getattr(found, name), expected, 1e-8)
    assert_same_p_values(found.pvalue, pvalue)

    genes = (folder / "gene_names.txt").read_text().split()
    for target in ("STAT1", "JAK2"):
        own = found.gamma[np.flatnonzero(targets[guides] == target), genes.index(target)]
        assert np.median(own) < -0.1
