"""The command of the Gene Ontology: the covariate of the term that stands out in a network."""

from pathlib import Path

import dask.array as da
import numpy as np

from normalisr_dask.commands.counts import check_same_cells
from normalisr_dask.commands.files import Files
from normalisr_dask.steps.gene_ontology import gotop, pccovt


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
