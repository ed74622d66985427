"""Commands that normalise: covariates, weights of cells, their outliers, mean and variance of expression."""

import dask.array as da
import numpy as np

from normalisr_dask.commands.counts import check_same_cells
from normalisr_dask.commands.files import Files, Matrix
from normalisr_dask.steps.normalisation import compute_var
from normalisr_dask.steps.normalisation import normcov as normcov_step
from normalisr_dask.steps.normalisation import normvar as normvar_step
from normalisr_dask.steps.quality_control import qc_outlier as qc_outlier_step


def normcov(cov_in: str, cov_out: str, *, intercept: bool = True) -> None:
    """Write standardised covariates.

    Parameters
    ----------
    cov_in, cov_out
        Files, as of the command line.
    intercept
        Whether to append the constant one.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, or a covariate is constant.
    """
    with Files(cov_out) as files:
        files.write({cov_out: normcov_step(files.table(cov_in), intercept)})


def fitvar(lcpm_in: str, cov_in: str, weights_out: str) -> None:
    """Write the weights of cells.

    Parameters
    ----------
    lcpm_in, cov_in, weights_out
        Files, as of the command line.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, or numbers of cells differ.
    """
    with Files(weights_out) as files:
        expression, covariates = files.matrix(lcpm_in).dense(), files.table(cov_in)
        check_same_cells(covariates.shape[1], cov_in, expression.shape[1], lcpm_in)
        files.write({weights_out: compute_var(expression, covariates)})


def qc_outlier(weights_in: str, cells_in: str, cells_out: str, *, pcut: float, outrate: float) -> None:
    """Write the names of the cells whose variance is no outlier.

    Parameters
    ----------
    weights_in, cells_in, cells_out
        Files, as of the command line.
    pcut, outrate
        As of :func:`normalisr_dask.qc_outlier`.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, names and weights do not fit, or too many cells are outliers.
    """
    with Files(cells_out) as files:
        weights = files.vector(weights_in)
        cells = files.names(cells_in, "cells", weights.size, f"weights in {weights_in}")
        kept = np.flatnonzero(qc_outlier_step(weights, pcut=pcut, outrate=outrate))
        files.write({cells_out: [cells[cell] for cell in kept]})


def normvar(lcpm_in: str, weights_in: str, cov_in: str, scale_in: str, exp_out: str, cov_out: str) -> None:
    """Write expression and covariates of normalised variance.

    Parameters
    ----------
    lcpm_in, weights_in, cov_in, scale_in, exp_out, cov_out
        Files, as of the command line.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, or numbers of genes or cells differ.
    """
    with Files(exp_out, cov_out) as files:
        log_cpm = files.matrix(lcpm_in)
        n_genes, n_cells = log_cpm.values.shape
        covariates = files.table(cov_in)
        check_same_cells(covariates.shape[1], cov_in, n_cells, lcpm_in)
        weights = files.vector(weights_in, n_cells, f"cells of {lcpm_in}")
        scaling = files.vector(scale_in, n_genes, f"genes of {lcpm_in}")
        in_blocks = da.from_array(weights, chunks=(log_cpm.values.chunks[1],))
        normalised = normvar_step(log_cpm.dense(), covariates, in_blocks, scaling)
        files.write({exp_out: Matrix(normalised.dtn, log_cpm.counts), cov_out: normalised.dcn})
