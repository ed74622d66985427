"""Bayesian log-CPM of counts and the gene scaling of variance normalisation, as lazy Dask arrays."""

import dask.array as da
import numpy as np

from normalisr_dask.graph.inputs import as_matrix, is_sparse
from normalisr_dask.graph.layout import map_columns, map_genes, map_matrix, sum_over_cells, sum_over_genes
from normalisr_dask.graph.vectors import positions
from normalisr_dask.kernels import counts as counts_kernels
from normalisr_dask.kernels import log_cpm as kernels
from normalisr_dask.kernels.scaling import scale_between
from normalisr_dask.results import LogCpm
from normalisr_dask.steps.expression import LogCpmForm, with_form
from normalisr_dask.validation import check_choice, check_not_negative, check_positive

VARIABLES = ("logtpropmean", "logtmeanprop", "nt0mean", "lognt0mean", "log1-nt0mean")


def lcpm(
    reads,
    normalize: bool = True,  # noqa: FBT001, FBT002  Normalisr's own signature
    nth: int = 0,
    ntot: int | None = None,
    varscale: float = 0,
    seed: int | None = None,
    lowmem: bool = True,  # noqa: FBT001, FBT002
    nocov: bool = False,  # noqa: FBT001, FBT002
) -> LogCpm:
    r"""Compute Bayesian log-CPM from UMI counts; lazy.

    The proportion behind a count k out of T has a Beta posterior whose logarithm has mean
    :math:`f(k) = ψ(k+1) − ψ(T+2)` and variance :math:`v(k) = ψ_1(k+1) − ψ_1(T+2)`. Expression is x = f(k), or with
    ``varscale`` s > 0 a draw x = f + z sqrt(s v), z standard normal; normalised per cell to
    :math:`x − \log Σ_{genes} e^x + \log 10^6`.

    Parameters
    ----------
    reads : array (genes, cells) of whole numbers
        UMI counts: NumPy, SciPy sparse, Dask (dense or sparse chunks) or Zarr.
    normalize : bool
        Whether to normalise every cell to log counts per million.
    nth : int
        Accepted for Normalisr's sake; Dask's scheduler decides on threads.
    ntot : int, optional
        Total T in place of the sum of all counts.
    varscale : float
        Scale s of the posterior variance in resampling; 0 takes the posterior mean.
    seed : int, optional
        Seed of the resampling. The same seed gives the same numbers for every chunking, scheduler and number of
        workers (not those of NumPy's global generator).
    lowmem : bool
        Accepted for Normalisr's sake; mean and var are lazy and cost nothing until asked for.
    nocov : bool
        Whether to leave out the covariates (cov is None).

    Returns
    -------
    LogCpm
        lcpm, mean, var: float64 (genes, cells), natural log; cov: float64 (3, cells).

    Raises
    ------
    TypeError
        If reads are not an array.
    ValueError
        If reads do not have two dimensions, or ``varscale`` or ``ntot`` is negative.
        On compute: if a count is negative or fractional, a cell has no counts (cov names it), or a count is larger
        than ``ntot`` where its variance is asked for.

    Notes
    -----
    Cost: two passes over the counts (one for the per-cell sums), each O(non-zeros) but for the dense result.
    Memory: one dense block a task.

    References
    ----------
    .. [1] L. Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.

    Examples
    --------
    >>> import numpy as np
    >>> result = lcpm(np.array([[0, 3], [1, 2], [9, 5]]))
    >>> result.lcpm.compute().round(3)
    array([[10.788, 12.626],
           [11.788, 12.293],
           [13.617, 13.076]])
    """
    del nth, lowmem
    counts = as_matrix(reads, "reads")
    check_not_negative(varscale, "varscale")
    if ntot is not None:
        check_positive(ntot, "ntot")
    key = _random_key(seed)
    n_genes, n_cells = counts.shape
    by_cell = {"cell_index": positions(counts.chunks[1])}
    by_gene = {"gene_index": positions(counts.chunks[0])}
    summary = sum_over_genes(kernels.cell_summary, counts, width=3, by_cell=by_cell, by_gene=by_gene)
    total = summary[0].sum() if ntot is None else da.asarray(np.float64(ntot))
    # The offset of posterior means is that of T = 0.
    reference = total if varscale > 0 or not normalize else da.asarray(np.float64(0))
    drawing = {"varscale": float(varscale), "seed": key}
    if not normalize:
        offset = da.zeros(n_cells, chunks=(counts.chunks[1],))
    elif varscale > 0:
        draws = sum_over_genes(
            kernels.sum_of_draws,
            counts,
            width=1,
            by_cell=by_cell,
            by_gene=by_gene,
            shared={"total": total},
            **drawing,
        )
        offset = da.log(draws[0]) - kernels.LOG_MILLION
    else:
        offset = da.log(summary[2]) - kernels.LOG_MILLION
    if is_sparse(counts) and normalize and varscale == 0:
        expression = mean = with_form(LogCpmForm(counts, offset))
    else:
        expression = map_matrix(
            kernels.log_cpm,
            counts,
            by_cell={"cell_offset": offset, **by_cell},
            by_gene=by_gene,
            shared={"total": reference},
            **drawing,
        )
        mean = map_matrix(kernels.mean_log_cpm, counts, by_cell={"cell_offset": offset}, shared={"total": reference})
    variance = map_matrix(kernels.variance_log_cpm, counts, shared={"total": total})
    covariates = None if nocov else _covariates(summary[:2], n_genes)
    return LogCpm(expression, mean, variance, covariates)


def _covariates(cell_sums: da.Array, n_genes: int) -> da.Array:
    by_cell = {"cell_index": positions(cell_sums.chunks[1])}
    return map_columns(kernels.summary_covariates, cell_sums, height=3, by_cell=by_cell, n_genes=n_genes)


def _random_key(seed: int | None) -> int:
    """Return a 64-bit key; a fresh one without a seed."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


def scaling_factor(dt, varname: str = "nt0mean", v0: float | str = 0, v1: float | str = "max") -> da.Array:
    r"""Compute every gene's scaling of variance normalisation from its counts; lazy.

    .. math:: t_g = (d_g − v_0) / (v_1 − v_0)

    Parameters
    ----------
    dt : array (genes, cells) of whole numbers
        UMI counts, of any kind that :func:`lcpm` takes.
    varname : {"nt0mean", "lognt0mean", "log1-nt0mean", "logtpropmean", "logtmeanprop"}
        Which d to take per gene:

        - ``nt0mean``: share of cells without the gene;
        - ``lognt0mean``: its log;
        - ``log1-nt0mean``: log of the share of cells with the gene;
        - ``logtpropmean``: log of the gene's share of all counts;
        - ``logtmeanprop``: log of the gene's mean share of a cell's counts.
    v0, v1 : float, "min" or "max"
        Values of d that become 0 and 1.

    Returns
    -------
    float64 (genes,)
        Scaling factor.

    Raises
    ------
    ValueError
        If ``varname``, ``v0`` or ``v1`` is none of the above.
        On compute: if v0 equals v1, or a gene has no finite d (as the log of 0).

    Notes
    -----
    Cost: one pass over the counts (two for ``logtmeanprop``), O(non-zeros).

    Examples
    --------
    >>> import numpy as np
    >>> scaling_factor(np.array([[0, 3, 0], [1, 0, 1], [9, 5, 2]])).compute()
    array([1. , 0.5, 0. ])
    """
    counts = as_matrix(dt, "dt")
    check_choice(varname, VARIABLES, "varname")
    bounds = tuple(_bound(value, name) for value, name in ((v0, "v0"), (v1, "v1")))
    by_cell = {}
    if varname == "logtmeanprop":
        by_cell["cell_totals"] = sum_over_genes(counts_kernels.cell_sums, counts, width=2)[0]
    sums = sum_over_cells(counts_kernels.gene_sums, counts, width=3, by_cell=by_cell)
    return map_genes(scale_between, sums.rechunk(-1), varname=varname, bounds=bounds, n_cells=counts.shape[1])


def _bound(value: float | str, name: str) -> float | str:
    if isinstance(value, str):
        check_choice(value, ("min", "max"), name)
        return value
    return float(value)
