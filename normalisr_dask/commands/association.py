"""Commands that test: differential expression, co-expression, its network, and the covariate of its top GO term."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import dask.array as da
import numpy as np

from normalisr_dask.commands.counts import check_same_cells
from normalisr_dask.commands.files import Files
from normalisr_dask.steps.coexpression import coex as coex_step
from normalisr_dask.steps.differential import de as de_step
from normalisr_dask.steps.gene_ontology import gotop, pccovt
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
        files.write({net_out: binnet_step(files.rows(pv_in), qcut)})


def gocovt(
    exp_in: str,
    cov_in: str,
    net_in: str,
    genes_in: str,
    go_in: str,
    goa_in: str,
    cov_out: str,
    *,
    n: int = 100,
    n_least: int = 5,
    conversion: tuple[str, str, str] | Path | None = None,
    master_out: str | None = None,
    goe_out: str | None = None,
    go_out: str | None = None,
) -> None:
    """Write covariates with the principal component of the top GO term's genes as one more.

    Parameters
    ----------
    exp_in, cov_in, net_in, genes_in, go_in, goa_in, cov_out, master_out, goe_out, go_out
        Files, as of the command line.
    n
        Genes with most edges that are looked at, about.
    n_least
        Fewest of them in the term.
    conversion
        How gene names are translated to those of the annotation, as of :func:`normalisr_dask.goe`.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, numbers of genes or cells differ, or no term is enriched.
    RuntimeError
        If no genes stand out in the network.
    """
    with Files(cov_out, master_out, goe_out, go_out) as files:
        expression, covariates = files.matrix(exp_in).dense(), files.table(cov_in)
        check_same_cells(covariates.shape[1], cov_in, expression.shape[1], exp_in)
        genes = files.names(genes_in, "genes", expression.shape[0], f"rows in {exp_in}")
        net = files.rows(net_in)
        if net.shape != (len(genes), len(genes)):
            msg = f"{net_in} has shape {net.shape}, expected {len(genes):,} rows and columns, as {genes_in} has names"
            raise ValueError(msg)
        top = gotop(_edges(net), genes, go_in, goa_in, n=n, nmin=n_least, conversion=conversion)
        files.write(
            {
                cov_out: pccovt(expression, covariates, genes, top.genes),
                master_out: top.principals,
                goe_out: top.goe,
                go_out: top.gotop,
            }
        )


def _edges(net: da.Array) -> da.Array:
    """Return a network as truth values."""
    return net if net.dtype == np.bool_ else net != 0
