"""Gene sets from the co-expression network: the process that stands out among its hubs, as one covariate more."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.calls import Kernel
from normalisr_dask.graph.inputs import as_rows, as_vector
from normalisr_dask.graph.layout import call_once, map_genes, map_matrix, sum_over_cells, sum_over_genes
from normalisr_dask.kernels import principal_component as kernels
from normalisr_dask.kernels.normalisation import row_sums, squares_about
from normalisr_dask.ontology import EVIDENCE, NoEnrichmentError, goe
from normalisr_dask.results import GeneSetLevel, TopTerm
from normalisr_dask.steps.expression import DenseForm, NormalisedForm, expression_of, gram
from normalisr_dask.steps.network import degree, network
from normalisr_dask.validation import check_count, listing

__all__ = ["NoPrincipalGenesError", "go_levels", "goe", "gotop", "pccovt"]


class NoPrincipalGenesError(RuntimeError):
    """The network does not set some genes apart from the others."""


def gotop(
    net,
    namet: Sequence[str],
    go_file: str | Path,
    goa_file: str | Path,
    n: int = 100,
    *,
    nmin: int = 5,
    conversion: Mapping[str, str] | str | Path | tuple[str, str, str] | None = None,
    evidence_set: Collection[str] | None = EVIDENCE,
) -> TopTerm:
    """Find the Gene Ontology term that stands out among the genes with most edges; computes the degrees.

    These principal genes are those with at least as many edges as the gene of rank ``n`` + 1, so more than ``n``. They
    are compared with all genes of the network.

    Parameters
    ----------
    net : array (genes, genes) or (genes,)
        Network of booleans, as from :func:`normalisr_dask.binnet`; or the number of edges of every gene, as from
        :func:`normalisr_dask.degree` and :func:`normalisr_dask.network`, for which no network need be made.
    namet : sequence of str
        Names of the genes.
    go_file, goa_file
        Terms and annotations, as of :func:`normalisr_dask.goe`.
    n : int
        Number of principal genes, about; from 1 to the number of genes, exclusive.
    nmin, conversion, evidence_set
        As of :func:`normalisr_dask.goe`.

    Returns
    -------
    TopTerm
        Principal genes, table of all terms, identifier of the top term, and the genes that belong to it. Unpacks in
        this order.

    Raises
    ------
    TypeError
        If ``net`` holds other than booleans and whole numbers.
    ValueError
        If shapes do not fit, or ``n`` is out of range; and as :func:`normalisr_dask.goe` does.
    RuntimeError
        If no more than ``n`` genes have edges, or all have as many.

    Notes
    -----
    Of a lazy network a block of rows is in memory at a time, and only the numbers of edges are brought back. How to
    tell gene names from identifiers is said at :func:`normalisr_dask.goe`.
    """
    names = [str(name) for name in namet]
    check_count(n, "n", minimum=1)
    if n >= len(names):
        msg = f"n must be below the number of genes, {len(names):,}, not {n:,}"
        raise ValueError(msg)
    degrees = _degrees(net, len(names)).compute()
    principals = [names[gene] for gene in _principal_genes(degrees, n)]
    enrichment = goe(
        principals, go_file, goa_file, bg=names, nmin=nmin, conversion=conversion, evidence_set=evidence_set
    )
    return TopTerm(principals, enrichment.goe, enrichment.gotop, enrichment.genes or [])


def _degrees(net, n_genes: int) -> da.Array:
    """Return the number of edges of every gene (genes,), lazy."""
    kind = np.dtype(getattr(net, "dtype", object)).kind
    if kind == "f" and isinstance(net, np.ndarray) and np.isin(net, (0, 1)).all():  # as np.loadtxt reads a network
        net, kind = net.astype(bool), "b"
    if kind not in "bui":
        msg = (
            "expected net as an array of booleans, as from binnet, or of numbers of edges, found "
            f"{getattr(net, 'dtype', type(net).__name__)}"
        )
        raise TypeError(msg)
    if net.ndim == 1:
        return as_vector(net, "net", n_genes, "genes")
    if net.shape != (n_genes, n_genes):
        msg = f"expected net with a row and a column for each of {n_genes:,} genes of namet, found shape {net.shape}"
        raise ValueError(msg)
    return degree(net)


def _principal_genes(degrees: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    threshold = np.sort(degrees)[::-1][n]
    if threshold == 0:
        n_connected = np.count_nonzero(degrees)
        msg = (
            f"expected more than {n:,} genes with edges, found {n_connected:,}; take a smaller n, or a larger qcut for "
            "the network"
        )
        raise NoPrincipalGenesError(msg)
    principals = np.flatnonzero(degrees >= threshold)
    if principals.size == degrees.size:
        msg = f"expected some genes with more edges than others, but all have {threshold:,} or more; take a smaller n"
        raise NoPrincipalGenesError(msg)
    return principals


def pccovt(
    dt,
    dc,
    namet: Sequence[str],
    genes: Sequence[str],
    condcov: bool = True,  # noqa: FBT001, FBT002  Normalisr's own signature
) -> da.Array:
    r"""Append the first principal component of some genes to the covariates; lazy.

    The genes are freed of the covariates and an intercept (``condcov``) or of their mean alone, and divided by their
    population standard deviation: :math:`z_{gc}`. With the top eigenvector :math:`v` of :math:`Σ_c z_{gc} z_{hc}` the
    new row is :math:`Σ_g v_g z_{gc}`. The sign of a principal component is arbitrary; here :math:`Σ_g v_g > 0`.

    Parameters
    ----------
    dt : array (genes, cells)
        Normalised expression.
    dc : array (covariates, cells)
        Normalised covariates; none at all is (0, cells).
    namet : sequence of str
        Names of the genes of ``dt``; of equal names the last counts.
    genes : sequence of str
        Names of those to take, such as the genes of :func:`normalisr_dask.gotop`; some hundred.
    condcov : bool
        Whether to free the genes of the covariates first.

    Returns
    -------
    float64 (covariates + 1, cells)
        Covariates, and the principal component.

    Raises
    ------
    ValueError
        If ``genes`` is empty or names unknown genes, or shapes do not fit.
        On compute: if none of the genes varies after covariates, or a value is not finite.

    Notes
    -----
    A gene without variance after covariates has no part in the component. Cost: three passes over the chosen genes, one
    more for dense expression. Memory: chosen genes², and the chosen genes of one block of cells as float64. From counts
    no dense expression of other genes is made, and of the chosen ones that of a few cells at a time.

    Examples
    --------
    >>> import numpy as np
    >>> expression = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 2.0, 4.0], [5.0, 1.0, 1.0, 5.0]])
    >>> pccovt(expression, np.ones((1, 4)), ["a", "b", "c"], ["a", "b"]).compute().round(3)
    array([[ 1.   ,  1.   ,  1.   ,  1.   ],
           [-1.949, -0.316,  0.316,  1.949]])
    """
    expression = expression_of(dt, "dt")
    n_genes = expression.shape[0]
    if n_genes != len(namet):
        msg = f"expected a name in namet for each of {n_genes:,} genes of dt, found {len(namet):,}"
        raise ValueError(msg)
    covariates = as_rows(dc, "dc", expression).astype(np.float64)
    chosen = expression.chosen(_positions(namet, genes))
    basis = _orthonormal(covariates) if condcov and covariates.shape[0] else _ones(covariates)
    return da.concatenate([covariates, _first_component(chosen, basis)]).rechunk({0: -1})


def _positions(namet: Sequence[str], genes: Sequence[str]) -> NDArray[np.int64]:
    """Return the ascending positions of genes, by which the sums do not depend on the order of the list."""
    places = {str(name): place for place, name in enumerate(namet)}
    wanted = [str(name) for name in genes]
    unknown = [name for name in dict.fromkeys(wanted) if name not in places]
    if unknown:
        msg = f"expected genes named in namet, found {len(unknown):,} others: {listing(unknown)}"
        raise ValueError(msg)
    if not wanted:
        msg = "expected genes to take the principal component of, found none"
        raise ValueError(msg)
    return np.sort(np.array([places[name] for name in wanted], dtype=np.int64))


def _orthonormal(covariates: da.Array) -> da.Array:
    """Return an orthonormal basis (covariates + 1, cells) of the covariates and the constant one."""
    n_cells = covariates.shape[1]
    mean = sum_over_cells(row_sums, covariates, width=1)[:, 0] / n_cells
    squares = sum_over_cells(squares_about, covariates, width=1, by_gene={"mean": mean})
    standardised = map_matrix(
        kernels.standardise, covariates, by_gene={"mean": mean, "squares": squares}, n_cells=n_cells
    )
    rows = da.concatenate([standardised, _ones(covariates)]).rechunk({0: -1})
    weights = call_once(kernels.whitening, gram(rows), shape=(rows.shape[0],) * 2)
    return map_matrix(kernels.mixed, rows, shared={"weights": weights})


def _ones(like: da.Array) -> da.Array:
    return da.ones((1, like.shape[1]), chunks=(1, like.chunks[1]))


def _first_component(expression: NormalisedForm | DenseForm, basis: da.Array) -> da.Array:
    """Return the scores of all cells (1, cells) after removal of a basis (q, cells), which spans the constant one."""
    n_genes, n_cells = expression.shape
    own = expression.residuals(basis, gram(basis))
    by_gene = {
        "coefficients": own.fit.rechunk(-1),
        "inverse_deviation": map_genes(kernels.inverse_deviation, own.squares, n_cells=n_cells).rechunk(-1),
    }
    kernels_of: tuple[Kernel, Kernel] = kernels.dense_products, kernels.dense_scores
    if isinstance(expression, NormalisedForm):
        kernels_of = kernels.count_products, kernels.count_scores
        matrix, by_cell = expression.log_cpm.counts, {**expression.by_cell, "test_covariates": basis}
        by_gene |= expression.by_gene
    else:
        matrix, by_cell = expression.array, {"covariates": basis}
    products_of, scores_of = kernels_of
    products = sum_over_cells(products_of, matrix, width=n_genes, by_cell=by_cell, by_gene=by_gene)
    loadings = call_once(kernels.top_loadings, products, shape=(n_genes,))
    return sum_over_genes(scores_of, matrix, width=1, by_cell=by_cell, by_gene=by_gene | {"loadings": loadings})


def go_levels(
    dt,
    dc,
    namet: Sequence[str],
    go_file: str | Path,
    goa_file: str | Path,
    qcut: float,
    lvmax: int = 5,
    n: int = 100,
    *,
    nmin: int = 5,
    conversion: Mapping[str, str] | str | Path | tuple[str, str, str] | None = None,
    evidence_set: Collection[str] | None = EVIDENCE,
) -> Iterator[GeneSetLevel]:
    """Remove the gene sets that dominate co-expression, one after the other; computes the degrees of every level.

    Level 0 is co-expression as it is. The principal component (:func:`normalisr_dask.pccovt`) of the term that stands
    out in its network (:func:`normalisr_dask.gotop`) is one covariate more at level 1; and so on, as in Normalisr's own
    example of co-expression, where these are housekeeping programmes.

    Parameters
    ----------
    dt, dc
        Normalised expression and covariates, as of :func:`normalisr_dask.coex`.
    namet : sequence of str
        Names of the genes.
    go_file, goa_file
        Terms and annotations, as of :func:`normalisr_dask.goe`.
    qcut : float
        Largest Q-value of an edge.
    lvmax : int
        How many gene sets to remove.
    n, nmin, conversion, evidence_set
        As of :func:`normalisr_dask.gotop`.

    Yields
    ------
    GeneSetLevel
        Of levels 0 to ``lvmax``, or to the first one whose network has no term that stands out.

    Raises
    ------
    ValueError, TypeError
        As the functions above, when the first level is asked for.

    Notes
    -----
    A level is computed when it is asked for: all gene pairs for the degrees, and the principal component, which come
    back as vectors. For runs that may be interrupted, ``normalisr-dask run --go`` stores every level.
    """
    check_count(lvmax, "lvmax")
    expression = expression_of(dt, "dt")
    covariates = as_rows(dc, "dc", expression).astype(np.float64)
    for level in range(lvmax + 1):
        found = network(dt, covariates, qcut)
        degrees = found.degree.compute()
        try:
            top = gotop(
                degrees, namet, go_file, goa_file, n, nmin=nmin, conversion=conversion, evidence_set=evidence_set
            )
        except (NoEnrichmentError, NoPrincipalGenesError):
            yield GeneSetLevel(level, covariates, found, degrees, None)
            return
        yield GeneSetLevel(level, covariates, found, degrees, top)
        component = pccovt(dt, covariates, namet, top.genes)[-1:].compute()
        further = da.from_array(component, chunks=(1, covariates.chunks[1]))
        covariates = da.concatenate([covariates, further]).rechunk({0: -1})
