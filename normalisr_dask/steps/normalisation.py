"""Covariates, cell weights, and mean and variance normalisation of expression, as lazy Dask arrays: the dense route."""

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from normalisr_dask.graph.inputs import as_matrix, as_rows, as_vector
from normalisr_dask.graph.layout import call_once, map_genes, map_matrix, sum_over_cells, sum_over_genes
from normalisr_dask.graph.vectors import in_cell_chunks, in_memory, in_one_chunk, source_of
from normalisr_dask.kernels import checks
from normalisr_dask.kernels import normalisation as kernels
from normalisr_dask.kernels.linear_algebra import coefficients, cross_product
from normalisr_dask.results import Normalised, NormalisedWithExtra
from normalisr_dask.steps.expression import NormalisedForm, gram, log_cpm_form, with_form
from normalisr_dask.validation import check_choice, check_count, check_positive


def normcov(dc, c: bool = True) -> da.Array:  # noqa: FBT001, FBT002  Normalisr's own signature
    """Standardise continuous covariates and append the constant one; lazy.

    A row with any value outside {0, 1} is continuous: its mean is subtracted and it is divided by its population
    standard deviation. Rows of 0 and 1 stay as they are.

    Parameters
    ----------
    dc : array (covariates, cells)
        Covariates; none at all is (0, cells).
    c : bool
        Whether to append a row of ones.

    Returns
    -------
    float64 (covariates + 1 if c else covariates, cells)
        Normalised covariates.

    Raises
    ------
    ValueError
        If dc does not have two dimensions.
        On compute: if a covariate is constant or not finite; names its row.

    Warns
    -----
    RuntimeWarning
        On compute: if a covariate is nearly constant (standard deviation below 1e-50, or below 1e-6 of the mean).

    Examples
    --------
    >>> import numpy as np
    >>> normcov(np.array([[1.0, 2.0, 3.0], [0, 1, 1]])).compute().round(3)
    array([[-1.225, 0.   , 1.225],
           [ 0.   , 1.   , 1.   ],
           [ 1.   , 1.   , 1.   ]])
    """
    rows = as_matrix(dc, "dc")
    n_rows, n_cells = rows.shape
    ones = da.ones((1, n_cells), chunks=(1, rows.chunks[1]))
    if n_rows == 0:
        return ones if c else rows.astype(np.float64)
    rows = rows.rechunk({0: -1}).astype(np.float64)
    mean = sum_over_cells(kernels.row_sums, rows, width=1)[:, 0] / n_cells
    squares = sum_over_cells(kernels.squares_about, rows, width=1, by_gene={"mean": mean})
    first = rows[:, 0]
    kinds = call_once(checks.covariate_kinds, row_kinds(rows), first, mean, squares, shape=(n_rows, 3), n_cells=n_cells)
    scaled = map_matrix(kernels.standardise, rows, by_gene={"kinds": kinds})
    return da.concatenate([scaled, ones]).rechunk({0: -1}) if c else scaled


def row_kinds(rows: da.Array) -> da.Array:
    """Return of each row how many values are neither 0 nor 1, not 1, not finite, and not as the first, (rows, 4)."""
    return sum_over_cells(checks.row_kinds, rows, width=4, by_gene={"first": rows[:, 0]})


def compute_var(dt, dc, stepmax: int = 1, eps: float = 1e-6) -> da.Array:
    r"""Compute every cell's weight for variance normalisation; lazy for ``stepmax=1``, else computes between rounds.

    Expression is regressed on the covariates, residuals are standardised per gene, and half the log of their mean
    square per cell, :math:`y_c = ½ \log \frac1G Σ_g z_{gc}^2`, is regressed on the covariates in turn. With the fitted
    scale :math:`s_c = e^{ŷ_c}` the weight is :math:`w_c = s_c^{-1}/\min s^{-1}`. Further rounds start from dt/s, dc/s.

    Parameters
    ----------
    dt : array (genes, cells)
        Log-CPM.
    dc : array (covariates, cells)
        Covariates, as from :func:`normcov`.
    stepmax : int
        Largest number of rounds; the scale that changed least in its round is taken.
    eps : float
        Largest relative change at which rounds stop.

    Returns
    -------
    float64 (cells,)
        Weights, 1 or more.

    Raises
    ------
    ValueError
        If ``stepmax`` or ``eps`` is not positive, or numbers of cells differ.
        On compute: if the covariates determine all genes in a cell.

    Notes
    -----
    Cost: three passes over dt a round, O(genes · cells · covariates). Memory: one block a task; vectors of length
    cells are brought back between rounds.

    References
    ----------
    .. [1] L. Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.
    """
    check_count(stepmax, "stepmax", minimum=1)
    check_positive(eps, "eps")
    expression = as_matrix(dt, "dt")
    covariates = as_rows(dc, "dc", expression).astype(np.float64)
    values = np.ones(expression.shape[1])
    smallest_change = np.inf
    best = scale = in_memory(values, expression.chunks[1])
    for _ in range(stepmax):
        new_scale = _fit_round(expression, covariates, scale)
        if stepmax == 1:
            best = new_scale
            break
        before, (values,) = values, dask.compute(new_scale)
        change = np.abs((values - before) / before).max()
        scale = in_memory(values, expression.chunks[1])
        if change < smallest_change:
            smallest_change, best = change, scale
        if smallest_change <= eps:
            break
    return call_once(kernels.weights_from_scale, best.rechunk(-1), shape=best.shape)


def cell_weights(expression: da.Array, covariates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute what :func:`compute_var` gives in one round, and fit all cells here: no worker holds their vectors."""
    n_genes, n_cells = expression.shape
    ones = np.ones(n_cells)
    rows, scale = as_rows(covariates, "covariates", expression), in_memory(ones, expression.chunks[1])
    (squares,) = dask.compute(_cell_squares(expression, rows, scale))
    with threadpool_limits(1):  # as in workers, since the last bits follow the number of threads
        return kernels.weights_from_scale(kernels.fit_cell_scale(squares, covariates, ones, n_genes=n_genes))


def _fit_round(expression: da.Array, covariates: da.Array, scale: da.Array) -> da.Array:
    n_genes, n_cells = expression.shape
    squares = _cell_squares(expression, covariates, scale)
    whole = (in_cell_chunks(rows, (n_cells,)) for rows in (squares, covariates, scale))
    return call_once(kernels.fit_cell_scale, *whole, shape=(n_cells,), n_genes=n_genes)


def _cell_squares(expression: da.Array, covariates: da.Array, scale: da.Array) -> da.Array:
    form = log_cpm_form(expression)
    return _dense_squares(expression, covariates, scale) if form is None else form.cell_squares(covariates, scale)


def _dense_squares(expression: da.Array, covariates: da.Array, scale: da.Array) -> da.Array:
    """Return every cell's sum of squared standardised residuals (1, cells); the dense route, three passes."""
    n_covariates, n_cells = covariates.shape
    scaled = covariates / in_cell_chunks(scale, covariates.chunks[1])
    by_cell = {"covariates": covariates, "cell_scale": scale}
    products = sum_over_cells(kernels.covariate_products, expression, width=n_covariates, by_cell=by_cell)
    fitted = map_genes(coefficients, products, shared=(gram(scaled),), shape=(n_covariates,))
    moments = sum_over_cells(
        kernels.residual_moments, expression, width=3, by_cell=by_cell, by_gene={"coefficients": fitted}
    )
    residual = map_genes(kernels.mean_and_deviation, moments, shape=(2,), n_cells=n_cells)
    return sum_over_genes(
        kernels.cell_squares,
        expression,
        width=1,
        by_cell=by_cell,
        by_gene={"coefficients": fitted, "residual": residual},
    )


def normvar(
    dt,
    dc,
    w,
    wt,
    dextra=None,
    cat: int = 1,
    nth: int = 1,
    bs: int = 500,
    keepvar: bool = True,  # noqa: FBT001, FBT002  Normalisr's own signature
    normmean: bool = False,  # noqa: FBT001, FBT002
) -> Normalised | NormalisedWithExtra:
    r"""Normalise mean and variance of expression; lazy.

    With :math:`u_{gc} = w_c^{t_g}` every gene is regressed on the covariates under its own weights, and becomes

    .. math:: y_{gc} = k_g u_{gc} (x_{gc} − β_g·C_c), \qquad
              k_g = \left(\mathrm{sd}(u_g x_g) / \mathrm{rms}(u_g (x_g − β_g C))\right)^{t_g}

    (k = 1 without ``keepvar``). Covariates are multiplied by w as ``cat`` says.

    Parameters
    ----------
    dt : array (genes, cells)
        Log-CPM.
    dc : array (covariates, cells)
        Covariates, as from :func:`normcov`; at least one.
    w : array (cells,)
        Cell weights, as from :func:`compute_var`; positive.
    wt : array (genes,)
        Scaling factors, as from :func:`scaling_factor`; 0 or more.
    dextra : array (extra, cells), optional
        Further rows to multiply by w.
    cat : {0, 1, 2}
        Which covariates to multiply by w: 0 continuous ones, 1 also the constant one, 2 all.
    nth : int
        Accepted for Normalisr's sake; Dask's scheduler decides on threads.
    bs : int
        Accepted for Normalisr's sake; blocks are those of ``dt``.
    keepvar : bool
        Whether to give every gene back the variance it had before covariates were removed.
    normmean : bool
        Whether to remove the normalised covariates from the normalised expression, too.

    Returns
    -------
    Normalised or NormalisedWithExtra
        (dtn, dcn) or, with dextra, (dtn, dcn, dextran); float64, shapes of dt, dc and dextra.

    Raises
    ------
    ValueError
        If there is no covariate, ``cat`` is unknown, or numbers of cells or genes differ.
        If a weight is not positive, or a scaling factor negative; on compute where these are lazy.

    Notes
    -----
    Cost: two passes over dt before the result's own (three with ``normmean``), O(genes · cells · covariates²).
    Memory: one block a task and genes × covariates².

    References
    ----------
    .. [1] L. Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.
    """
    del nth, bs
    check_choice(cat, (0, 1, 2), "cat")
    expression = as_matrix(dt, "dt")
    covariates = as_rows(dc, "dc", expression).astype(np.float64)
    if covariates.shape[0] == 0:
        msg = "expected at least one covariate in dc, found none; normcov appends the constant one"
        raise ValueError(msg)
    n_genes, n_cells = expression.shape
    weights = in_cell_chunks(
        _checked(as_vector(w, "w", n_cells, "cells"), checks.positive_weights), expression.chunks[1]
    )
    scaling = _checked(as_vector(wt, "wt", n_genes, "genes"), checks.non_negative_scaling)
    form = log_cpm_form(expression)
    if form is None:
        normalised = _normalise(expression, covariates, weights, scaling, keepvar=keepvar)
    else:
        normalised = with_form(NormalisedForm.of(form, covariates, weights, scaling, keepvar=keepvar))
    scaled_covariates = normalised_covariates(covariates, weights, cat=cat)
    if normmean:
        by_cell = {"covariates": scaled_covariates}
        products = sum_over_cells(
            cross_product, normalised, width=covariates.shape[0], by_cell={"others": scaled_covariates}
        )
        fitted = map_genes(coefficients, products, shared=(gram(scaled_covariates),), shape=(covariates.shape[0],))
        normalised = map_matrix(
            kernels.remove_covariates, normalised, by_cell=by_cell, by_gene={"coefficients": fitted}
        )
    if dextra is None:
        return Normalised(normalised, scaled_covariates)
    extra = as_rows(dextra, "dextra", expression)
    scaled_extra = extra * in_cell_chunks(weights, extra.chunks[1])
    return NormalisedWithExtra(normalised, scaled_covariates, scaled_extra)


def _checked(vector: da.Array, check: Callable[[Any], Any]) -> da.Array:
    """Return a vector in one chunk after a check; at once where it lies in memory, which leaves it there."""
    source = source_of(vector)
    if isinstance(source, np.ndarray):
        return in_one_chunk(check(source))
    return call_once(check, vector.rechunk(-1), shape=vector.shape)


def normalised_covariates(covariates: da.Array, weights: da.Array, *, cat: int) -> da.Array:
    """Return the covariates multiplied by the cell weights as ``cat`` says; lazy."""
    by_gene = {"kinds": row_kinds(covariates)}
    return map_matrix(kernels.scale_rows, covariates, by_cell={"weights": weights}, by_gene=by_gene, cat=cat)


def _normalise(
    expression: da.Array, covariates: da.Array, weights: da.Array, scaling: da.Array, *, keepvar: bool
) -> da.Array:
    n_covariates, n_cells = covariates.shape
    by_cell = {"covariates": covariates, "log_weights": da.log(weights)}
    by_gene = {"gene_scaling": scaling}
    width = n_covariates * (n_covariates + 1) // 2 + n_covariates + 1
    products = sum_over_cells(kernels.weighted_products, expression, width=width, by_cell=by_cell, by_gene=by_gene)
    by_gene["coefficients"] = map_genes(
        kernels.weighted_coefficients, products, shape=(n_covariates,), n_covariates=n_covariates
    )
    if keepvar:
        squares = sum_over_cells(
            kernels.weighted_squares,
            expression,
            width=3,
            by_cell=by_cell,
            by_gene=by_gene | {"mean": products[:, -1] / n_cells},
        )
        factor = map_genes(kernels.variance_factor, squares, scaling.rechunk((squares.chunks[0],)))
    else:
        factor = da.ones(expression.shape[0], chunks=(expression.chunks[0],))
    return map_matrix(kernels.normalised, expression, by_cell=by_cell, by_gene=by_gene | {"factor": factor})
