"""Differential expression: the linear association test of every gene with every grouping, as lazy Dask arrays."""

from collections.abc import Callable
from typing import Literal

import dask.array as da
import numpy as np

from normalisr_dask.graph.inputs import as_rows, in_long_blocks, sparse_if_few
from normalisr_dask.kernels.association import SPARSE_BELOW
from normalisr_dask.results import DifferentialExpression
from normalisr_dask.steps.association import AssociationInputs, Prepared, loss_of_rank, result_of, simple_moments
from normalisr_dask.steps.covariates import Basis, as_they_are, orthonormal_basis
from normalisr_dask.steps.exclusive import Controls, exclusive_moments
from normalisr_dask.steps.expression import Expression, expression_of
from normalisr_dask.steps.joint import component_moments, joint_moments
from normalisr_dask.validation import check_choice, check_count, check_not_negative, check_positive

GROUPINGS_PER_BLOCK = 500
TOLERANCE = 1e-8
METHODS = ("auto", "scipy", "scipys", "sklearn")


def de(
    dg,
    dt,
    dc,
    bs: int = 0,
    nth: int = 1,
    single: Literal[0, 1, 4] = 0,
    *,
    lowmem: bool = True,
    dimreduce=0,
    method: Literal["auto", "scipy", "sklearn"] = "auto",
    mpc: int = 0,
    qr: int = 0,
    tol: float = TOLERANCE,
) -> DifferentialExpression:
    r"""Test every gene for differential expression in every grouping; lazy.

    The model is y = γ x + α C + ε with expression y, grouping x, covariates C. With residuals x̃, ỹ on C of rank ρ,

    .. math:: γ = \frac{Σ x̃ỹ}{Σ x̃^2}, \quad R^2 = \frac{(Σ x̃ỹ)^2}{Σ x̃^2 Σ ỹ^2}, \quad
              P = I_{1−R^2}(ν/2, ½), \quad ν = n − 1 − ρ − \mathrm{dimreduce}.

    Parameters
    ----------
    dg : array (groupings, cells)
        Groupings, 0 and 1 or any numbers; NumPy, SciPy sparse, Dask (dense or sparse chunks) or Zarr.
    dt : array (genes, cells)
        Normalised expression.
    dc : array (covariates, cells)
        Normalised covariates; none at all is (0, cells).
    bs : int
        Groupings per block; 0 for a number that keeps tasks small.
    nth : int
        Accepted for Normalisr's sake; Dask's scheduler decides on threads.
    single : {0, 1, 4}
        How the test of a grouping treats the others:

        - 0 ignores them;
        - 1 leaves out all cells of other groupings, for groupings of 0 and 1 such as a screen at low MOI: the cells
          of the grouping alone are compared with the cells of none;
        - 4 takes them as covariates, such as in a screen at high MOI.
    lowmem : bool
        Whether to leave alpha out (None). It is lazy: asked for, it costs nothing until computed.
    dimreduce : int or array (genes,)
        Degrees of freedom that the expression has lost already.
    method, qr
        Accepted for Normalisr's sake: they choose how it approximates what is computed exactly here.
    mpc : int
        Only for ``single=4``: take the top ``mpc`` principal components of the other groupings and covariates as
        covariates, for each grouping its own; 0 for all of them. Costs an eigendecomposition a grouping.
    tol : float
        Only for ``single=4``: a grouping of which the covariates and others leave less than this share is not tested;
        with ``mpc``, eigenvalues below this share of the largest count as zero.

    Returns
    -------
    DifferentialExpression
        pvalue, gamma, alpha, varg, vart; also se, dof and log10_pvalue, which do not unpack.

    Raises
    ------
    TypeError
        If dg, dt or dc is no array of real numbers.
    ValueError
        If numbers of cells or genes differ, or a keyword has an unknown value.
        On compute: if no degree of freedom is left, a value is NaN or infinite or its square is, or a grouping for
        ``single=1`` has other values than 0 and 1.
    NotImplementedError
        If ``method`` is "scipys", as in Normalisr.

    Warns
    -----
    UntestableGroupingWarning
        On compute: if a grouping has one value in all cells of its test, or covariates (with ``single=4`` also other
        groupings) determine it. It then has P = 1, γ = 0 and varg = 0.

    Notes
    -----
    A gene without variance after covariates has P = 1 and γ = 0, and so it has for the other groupings if, with
    ``single=4``, some determine it. Units and offsets of covariates do not matter; one counts as determined by others
    if they leave less than 1e-8 of its sum of squares (about its mean, where a covariate is constant).

    With ``single=1``, n, ρ and all moments are those of the grouping's own test. One pass gives the moments of the
    cells of every grouping and of the cells of none, and a test adds two of them up. With ``single=4``, S = X̃X̃ᵀ of
    all groupings has one generalised inverse S⁻, and

    .. math:: γ = S^- X̃ỹ, \quad \mathrm{varx}_k = 1/(n S^-_{kk}), \quad
              \mathrm{vary}_k = \mathrm{RSS}/n + γ_k^2 \mathrm{varx}_k, \quad
              ν = n − ρ − \mathrm{rank} S − \mathrm{dimreduce}.

    Cost: two passes over dt, and for the products O(genes · non-zeros of dg), or O(genes · cells · groupings) for
    dense dg; ``single=1`` takes O(genes · cells · covariates), or O(non-zeros · covariates) from sparse counts;
    ``single=4`` another O(groupings³ + groupings² · genes). Memory: one block a task and genes × groupings of a block
    of groupings; with ``single=4`` three times groupings².

    References
    ----------
    .. [1] L. Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.

    Examples
    --------
    >>> import numpy as np
    >>> expression = np.array([[1.0, 1.2, 0.9, 3.0, 3.1, 2.8], [0.1, 0.3, 0.2, 0.2, 0.1, 0.3]])
    >>> result = de(np.array([[0, 0, 0, 1, 1, 1]]), expression, np.ones((1, 6)))
    >>> result.gamma.compute().round(3)
    array([[1.933, 0.   ]])
    >>> result.pvalue.compute().round(6)
    array([[1.01e-04, 1.00e+00]])
    """
    del nth, qr
    check_choice(single, (0, 1, 4), "single")
    check_choice(method, METHODS, "method")
    check_count(bs, "bs")
    check_not_negative(mpc, "mpc")
    check_positive(tol, "tol")
    if method == "scipys":
        msg = "method='scipys' is not implemented, as in Normalisr; leave it out: the exact method needs no choice"
        raise NotImplementedError(msg)
    expression = expression_of(in_long_blocks(dt, "dt"), "dt")
    prepared = prepare(expression, dc, as_they_are if single == 4 and mpc > 0 else orthonormal_basis)
    inputs = AssociationInputs(
        in_blocks(dg, prepared, bs or GROUPINGS_PER_BLOCK),
        prepared,
        loss_of_rank(dimreduce, prepared.expression.shape[0]),
    )
    with_alpha = not lowmem
    if single == 4 and mpc > 0 and inputs.groupings.shape[0] > 0:
        return result_of(component_moments(inputs, n_components=mpc, tolerance=tol, with_alpha=with_alpha))
    return association_tests(inputs, single=single, with_alpha=with_alpha, groupings_per_block=bs, tolerance=tol)


def prepare(expression: Expression, dc, basis_of: Callable[[da.Array], Basis] = orthonormal_basis) -> Prepared:
    """Return what all tests of some expression share; lazy."""
    basis = basis_of(as_rows(dc, "dc", expression).astype(np.float64))
    return Prepared(expression, basis, expression.residuals(basis.rows, basis.gram))


def in_blocks(dg, prepared: Prepared, groupings_per_block: int) -> da.Array:
    """Return groupings (groupings, cells) of any kind in blocks, with the chunks of cells of the expression."""
    return as_rows(sparse_if_few(dg, SPARSE_BELOW), "dg", prepared.expression).rechunk({0: groupings_per_block})


def association_tests(
    inputs: AssociationInputs,
    *,
    single: Literal[0, 1, 4],
    with_alpha: bool,
    groupings_per_block: int,
    tolerance: float = TOLERANCE,
    controls: Controls | None = None,
) -> DifferentialExpression:
    """Return the tests of groupings, which treat others as ``single`` says; lazy.

    Parameters
    ----------
    inputs
        Of the tests.
    single, with_alpha, groupings_per_block, tolerance
        As the arguments ``single``, ``lowmem`` (but True for effects of covariates), ``bs`` and ``tol`` of :func:`de`.
    controls
        With ``single=1``: what is known already of the cells of no grouping.
    """
    if single == 0 or inputs.groupings.shape[0] == 0:
        moments = simple_moments(inputs, with_alpha=with_alpha)
    elif single == 1:
        moments = exclusive_moments(
            inputs, groupings_per_block=groupings_per_block, with_alpha=with_alpha, controls=controls
        )
    else:
        moments = joint_moments(inputs, tolerance=tolerance, with_alpha=with_alpha)
    return result_of(moments)
