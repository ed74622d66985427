"""Correction of P-values for multiple testing."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def benjamini_hochberg(p_values: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Benjamini-Hochberg Q-values (false discovery rates) along one axis.

    The Q-value of the i-th smallest of n P-values is the minimum of n P_j / j over j ≥ i, at most 1 [1]_. NaN stays NaN
    and does not count towards n: this leaves out the diagonal of a co-expression matrix.

    Parameters
    ----------
    p_values
        P-values in [0, 1] or NaN, any shape.
    axis
        Axis along which the tests form one family; the families do not influence one another.

    Returns
    -------
    float64 array of the shape of `p_values`.

    Raises
    ------
    ValueError
        If a P-value is below 0 or above 1.

    Notes
    -----
    One sort along the axis; memory of some five times that of `p_values`.

    References
    ----------
    .. [1] Benjamini, Y. & Hochberg, Y. (1995). Controlling the false discovery rate: a practical and powerful approach
       to multiple testing. Journal of the Royal Statistical Society B 57, 289-300.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, np.nan, 0.03])
    array([0.03, 0.04,  nan, 0.04])
    """
    families = np.moveaxis(np.asarray(p_values, dtype=np.float64), axis, -1)
    outside = (families < 0) | (families > 1)
    if outside.any():
        msg = f"P-values must be in [0, 1], but {families[outside][0]:g} is among them"
        raise ValueError(msg)
    order = np.argsort(families, axis=-1)  # NaN last
    ascending = np.take_along_axis(families, order, axis=-1)
    n_tests = np.count_nonzero(~np.isnan(families), axis=-1, keepdims=True)
    ranks = np.arange(1, families.shape[-1] + 1)
    ascending *= n_tests / ranks
    minima = np.fmin.accumulate(ascending[..., ::-1], axis=-1)[..., ::-1]  # fmin passes over NaN at the end
    q_values = np.empty_like(families)
    np.put_along_axis(q_values, order, np.minimum(minima, 1.0), axis=-1)
    return np.moveaxis(q_values, -1, axis)


def q_values_of_ranks(
    ascending: NDArray[np.float64], *, n_before: int, n_tests: int, ceiling: float
) -> NDArray[np.float64]:
    """Benjamini-Hochberg Q-values of a run of consecutive ranks of a large family.

    Parameters
    ----------
    ascending
        The P-values of the run, sorted, float64 (run,).
    n_before, n_tests
        Number of smaller P-values of the family, and of all.
    ceiling
        Smallest Q-value of the P-values above the run; 1 where there are none.

    Returns
    -------
    float64 (run,).

    Notes
    -----
    Memory: the result.

    Examples
    --------
    >>> upper = q_values_of_ranks(np.array([0.03, 0.04]), n_before=1, n_tests=3, ceiling=1.0)
    >>> q_values_of_ranks(np.array([0.01]), n_before=0, n_tests=3, ceiling=upper[0]), upper
    (array([0.03]), array([0.04, 0.04]))
    """
    q_values = np.arange(n_before + 1, n_before + ascending.size + 1, dtype=np.float64)  # in place: runs are long
    np.divide(n_tests, q_values, out=q_values)
    q_values *= ascending
    np.minimum.accumulate(q_values[::-1], out=q_values[::-1])
    return np.minimum(q_values, ceiling, out=q_values)
