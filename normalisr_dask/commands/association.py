"""Commands that test: differential expression, co-expression and its network."""

from collections.abc import Mapping
from typing import Literal

from normalisr_dask.commands.counts import check_same_cells
from normalisr_dask.commands.files import Files
from normalisr_dask.steps.coexpression import coex as coex_step
from normalisr_dask.steps.differential import de as de_step
from normalisr_dask.steps.network import binnet as binnet_step

SINGLE: Mapping[str, Literal[0, 1, 4]] = {"ignore": 0, "single": 1, "covariate": 4}


def de(
    design_in: str,
    exp_in: str,
    cov_in: str,
    pv_out: str,
    lfc_out: str,
    *,
    method: str = "ignore",
    batch: int = 0,
    dimreduce: int = 0,
    clfc_out: str | None = None,
    vard_out: str | None = None,
    vart_out: str | None = None,
) -> None:
    """Write P-values and log fold changes of groupings × genes and, if asked for, effects of covariates and variances.

    Parameters
    ----------
    design_in, exp_in, cov_in, pv_out, lfc_out, clfc_out, vard_out, vart_out
        Files, as of the command line.
    method
        What to do about other groupings: a name of `SINGLE`.
    batch, dimreduce
        ``bs`` and ``dimreduce`` of :func:`normalisr_dask.de`.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, numbers of cells differ, or no degree of freedom is left.
    """
    with Files(pv_out, lfc_out, clfc_out, vard_out, vart_out) as files:
        design, expression = files.matrix(design_in).values, files.matrix(exp_in).dense()
        covariates = files.table(cov_in)
        check_same_cells(design.shape[1], design_in, expression.shape[1], exp_in)
        check_same_cells(covariates.shape[1], cov_in, expression.shape[1], exp_in)
        result = de_step(
            design,
            expression,
            covariates,
            bs=batch,
            single=SINGLE[method],
            lowmem=clfc_out is None,
            dimreduce=dimreduce,
        )
        effects = None
        if result.alpha is not None:
            n_tests = result.alpha.shape[0] * result.alpha.shape[1]
            effects = result.alpha.rechunk({1: -1, 2: -1}).reshape(n_tests, covariates.shape[0])
        files.write(
            {
                pv_out: result.pvalue,
                lfc_out: result.gamma,
                clfc_out: effects,
                vard_out: result.varg,
                vart_out: result.vart,
            }
        )


def coex(
    exp_in: str,
    cov_in: str,
    pv_out: str,
    *,
    batch: int = 0,
    dimreduce: int = 0,
    var_out: str | None = None,
    dot_out: str | None = None,
) -> None:
    """Write P-values of all gene pairs and, if asked for, variances and products.

    Parameters
    ----------
    exp_in, cov_in, pv_out, var_out, dot_out
        Files, as of the command line.
    batch, dimreduce
        ``bs`` and ``dimreduce`` of :func:`normalisr_dask.coex`.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, numbers of cells differ, or no degree of freedom is left.
    """
    with Files(pv_out, var_out, dot_out) as files:
        expression, covariates = files.matrix(exp_in).dense(), files.table(cov_in)
        check_same_cells(covariates.shape[1], cov_in, expression.shape[1], exp_in)
        result = coex_step(expression, covariates, bs=batch, dimreduce=dimreduce)
        files.write({pv_out: result.pvalue, dot_out: result.dot, var_out: result.var})


def binnet(pv_in: str, net_out: str, qcut: float) -> None:
    """Write the network of significant gene pairs, 0 and 1.

    Parameters
    ----------
    pv_in, net_out
        Files, as of the command line.
    qcut
        Largest Q-value of an edge.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, or the matrix is not square.
    RuntimeError
        If there is no edge.
    """
    with Files(net_out) as files:
        p_values = files.rows(pv_in)
        n_rows, n_columns = p_values.shape
        if n_rows != n_columns:
            msg = f"{pv_in} has {n_rows:,} rows and {n_columns:,} columns, expected as many: P-values of pairs of genes"
            raise ValueError(msg)
        files.write({net_out: binnet_step(p_values, qcut)})
