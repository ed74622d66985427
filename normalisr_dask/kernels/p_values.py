"""P-values of linear association tests from R² and degrees of freedom, also as log10, which never underflows.

The two-sided P-value of Student's t with ν degrees of freedom, t² = ν R² / (1 − R²), is a regularised incomplete beta
function,

    P = I_{1−R²}(ν/2, 1/2).

What makes it vary over hundreds of orders of magnitude is one power; the rest is smooth:

    P = (1 − R²)^((ν−1)/2) · W,    y = √(1−R²) / (√(1−R²) + σ √R²),    W = y V(y),    0 ≤ y ≤ 1.

W falls from 1 at R² = 0 (y = 1) to 0 at R² = 1 (y = 0); for ν → ∞ it is exp(x²) erfc(x) at x = √(νR²/2). In the
variable y, with σ = max(1, √(ν/2)/3), one short Chebyshev series serves the whole range, as for exp(x²) erfc(x) [1]_.
The derivative of P by R² is elementary, which turns into a linear differential equation for V,

    ((1 − y)² + σ² y²) (V + y V′) + (ν − 1) (1 − y) V = constant,    V(1) = 1.

At y = 0 all its solutions but one are singular, and a Chebyshev series cannot be: so no second condition is needed, and
collocation [2]_ gives the coefficients from one 32 × 32 linear system for each ν, in microseconds and without any
special function. Each P-value then costs one series, one log1p and one exp.

Accuracy, against multiprecision arithmetic: W within 2e-12 relative for ν ≥ 1 (2e-15 for ν ≥ 20, 1e-10 for any ν > 0).
R² itself limits P more: its rounding, a relative 1.1e-16, moves P by a relative 1.1e-16 · t²/2. That is 8e-14 at
P = 1e-300 and many degrees of freedom, but all digits are lost where 1 − R² is 1e-16.

References
----------
.. [1] Shepherd, M. M. & Laframboise, J. G. (1981). Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞.
   Mathematics of Computation 36, 249-253. https://doi.org/10.1090/S0025-5718-1981-0595058-X
.. [2] Boyd, J. P. (2001). Chebyshev and Fourier Spectral Methods, 2nd edition. Dover.
"""

import math
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

N_COEFFICIENTS = 32
_BLOCK = 256  # elements between the two loops of the kernel: their intermediate results stay in the fastest cache
_ROUNDING = 1e-9  # R² above 1 by less is a perfect correlation computed with rounding errors

# Collocation points (roots of the Chebyshev polynomial T_32, mapped to [0, 1]), all T_n(2y − 1) there, and dT_n/dy.
_ANGLES = (np.arange(N_COEFFICIENTS) + 0.5) * np.pi / N_COEFFICIENTS
_POINTS = ((np.cos(_ANGLES) + 1) / 2)[:, np.newaxis]
_ORDERS = np.arange(N_COEFFICIENTS)
_CHEBYSHEV = np.cos(np.outer(_ANGLES, _ORDERS))
_DERIVATIVES = 2 * _ORDERS * np.sin(np.outer(_ANGLES, _ORDERS)) / np.sin(_ANGLES)[:, np.newaxis]


def p_value(r_squared: ArrayLike, degrees_of_freedom: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Two-sided P-values of linear association tests.

    Parameters
    ----------
    r_squared
        Squared (partial) correlations in [0, 1], any shape. Up to 1e-9 above 1 counts as 1.
    degrees_of_freedom
        Residual degrees of freedom ν > 0: a number, or an array that broadcasts to the shape of `r_squared`.
    out
        C-contiguous float64 array of the shape of `r_squared` for the result; may be `r_squared` itself.

    Returns
    -------
    float64 array of the shape of `r_squared`: 1 where R² = 0; 0 where R² = 1 or P underflows (below 1e-308 or so); NaN
    where R² is NaN or out of range.

    Raises
    ------
    ValueError
        If degrees of freedom are not finite and positive.
    ValueError
        If `degrees_of_freedom` does not broadcast to the shape of `r_squared`.
    ValueError
        If `out` is not a C-contiguous float64 array of the shape of `r_squared`.

    Notes
    -----
    Time: about 12 ns an element while ν stays the same (a number, or one a row), 45 ns where neighbours differ in ν;
    20 µs for each ν not seen before (the tables of the last 16,384 are kept, 300 bytes each). Memory: the result; a
    copy of an `r_squared` that is not C-contiguous float64; one integer an element if ν is an array.

    Examples
    --------
    >>> p_value([0.0, 0.01, 1.0], 1000).round(6)
    array([1.      , 0.001527, 0.      ])
    """
    distinct, which = _distinct(degrees_of_freedom)
    return _evaluate(r_squared, distinct, which, out, log10=False)


def log10_p_value(r_squared: ArrayLike, degrees_of_freedom: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
    """Log10 of two-sided P-values of linear association tests, −inf only where R² = 1.

    Parameters, errors and cost are those of `p_value` (and one more logarithm an element).

    Returns
    -------
    float64 array of the shape of `r_squared`, at most 0. Near P = 1 the error is absolute, about 1e-15.

    Examples
    --------
    >>> log10_p_value([0.0, 0.5, 1.0], 1e6).round(4)
    array([      0.    , -150517.9454,         -inf])
    """
    distinct, which = _distinct(degrees_of_freedom)
    return _evaluate(r_squared, distinct, which, out, log10=True)


def pairwise_p_value(
    r_squared: ArrayLike,
    row_degrees_of_freedom: ArrayLike,
    column_degrees_of_freedom: ArrayLike,
    *,
    out: FloatArray | None = None,
) -> FloatArray:
    """Two-sided P-values of a tile of pairs, each with the smaller of its row's and its column's degrees of freedom.

    As `p_value(r_squared, np.minimum.outer(row_degrees_of_freedom, column_degrees_of_freedom))`, but without sorting as
    many numbers as there are pairs.

    Parameters
    ----------
    r_squared
        Squared (partial) correlations, (rows, columns).
    row_degrees_of_freedom, column_degrees_of_freedom
        Residual degrees of freedom ν > 0, each a number or one for each row, (rows,), or column, (columns,).
    out
        As for `p_value`.

    Returns
    -------
    float64 array, (rows, columns).
    """
    distinct, which = _distinct_pairs(row_degrees_of_freedom, column_degrees_of_freedom)
    return _evaluate(r_squared, distinct, which, out, log10=False)


def pairwise_log10_p_value(
    r_squared: ArrayLike,
    row_degrees_of_freedom: ArrayLike,
    column_degrees_of_freedom: ArrayLike,
    *,
    out: FloatArray | None = None,
) -> FloatArray:
    """Log10 of what `pairwise_p_value` returns, from the same parameters, without underflow."""
    distinct, which = _distinct_pairs(row_degrees_of_freedom, column_degrees_of_freedom)
    return _evaluate(r_squared, distinct, which, out, log10=True)


def _distinct(degrees_of_freedom: ArrayLike) -> tuple[FloatArray, IndexArray]:
    """Return the distinct degrees of freedom, sorted, and which of them each given one is."""
    given = np.asarray(degrees_of_freedom, dtype=np.float64)
    distinct, which = np.unique(given, return_inverse=True)
    invalid = ~(np.isfinite(distinct) & (distinct > 0))
    if invalid.any():
        msg = (
            f"degrees of freedom must be finite and positive, but {distinct[invalid][0]:g} is among them; "
            "a test needs more cells than covariates"
        )
        raise ValueError(msg)
    return distinct, which.reshape(given.shape)


def _distinct_pairs(rows: ArrayLike, columns: ArrayLike) -> tuple[FloatArray, IndexArray]:
    """Return the distinct degrees of freedom of rows and columns, and which of them, the smaller, each pair takes."""
    row_array, column_array = np.atleast_1d(rows), np.atleast_1d(columns)
    distinct, which = _distinct(np.concatenate([row_array, column_array]))
    if distinct.size == 1:
        return distinct, np.broadcast_to(which[:1], (row_array.size, column_array.size))
    return distinct, np.minimum.outer(which[: row_array.size], which[row_array.size :])


def _evaluate(
    r_squared: ArrayLike, distinct: FloatArray, which: IndexArray, out: FloatArray | None, *, log10: bool
) -> FloatArray:
    """Check shapes, gather the table of each distinct ν, and run the kernel."""
    squares = np.asarray(r_squared, dtype=np.float64, order="C")
    if out is None:
        out = np.empty(squares.shape)
    elif out.shape != squares.shape or out.dtype != np.float64 or not out.flags.c_contiguous:
        layout = "C-contiguous" if out.flags.c_contiguous else "not C-contiguous"
        msg = (
            f"out must be a C-contiguous float64 array of shape {squares.shape}, "
            f"but is a {layout} {out.dtype} array of shape {out.shape}"
        )
        raise ValueError(msg)
    try:
        indices = np.broadcast_to(which, squares.shape)
    except ValueError:
        msg = f"degrees of freedom of shape {which.shape} do not broadcast to R² of shape {squares.shape}"
        raise ValueError(msg) from None
    indices = np.zeros(1, dtype=np.intp) if distinct.size == 1 else indices.reshape(-1)
    if squares.size:
        scales = np.array([_scale(nu) for nu in distinct.tolist()])
        coefficients = np.stack([_coefficients(nu) for nu in distinct.tolist()])
        _fill(squares.reshape(-1), indices, (distinct - 1) / 2, scales, coefficients, log10, out.reshape(-1))
    return out


def _scale(degrees_of_freedom: float) -> float:
    """Return σ of the module's equations: any will do; few coefficients suffice with this one."""
    return max(1.0, math.sqrt(degrees_of_freedom / 2) / 3)


@lru_cache(maxsize=16_384)
def _coefficients(degrees_of_freedom: float) -> FloatArray:
    """Solve the module's differential equation for the Chebyshev coefficients of V(y) in 2y − 1."""
    y = _POINTS
    factor = (1 - y) ** 2 + _scale(degrees_of_freedom) ** 2 * y**2
    operator = (factor + (degrees_of_freedom - 1) * (1 - y)) * _CHEBYSHEV + factor * y * _DERIVATIVES
    solution = np.linalg.solve(operator, np.ones(N_COEFFICIENTS))
    coefficients: FloatArray = solution / solution.sum()  # V(1) = 1, where every Chebyshev polynomial is 1
    coefficients.flags.writeable = False
    return coefficients


# "contract" allows fused multiply-add and nothing that would break NaN or infinity.
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _smooth_factor(r_squared: FloatArray, scale: float, coefficients: FloatArray, out: FloatArray) -> None:
    """Write W of tests that share ν; the compiler unrolls Clenshaw's recurrence and vectorises over the tests."""
    for i in range(r_squared.size):
        root = math.sqrt(1 - r_squared[i])
        y = root / (root + scale * math.sqrt(r_squared[i]))
        twice = 4 * y - 2
        current = 0.0
        previous = 0.0
        for order in range(N_COEFFICIENTS - 1, 0, -1):
            current, previous = twice * current - previous + coefficients[order], current
        out[i] = (0.5 * twice * current - previous + coefficients[0]) * y


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _fill(
    r_squared: FloatArray,
    which: IndexArray,
    exponents: FloatArray,
    scales: FloatArray,
    coefficients: FloatArray,
    log10: bool,  # noqa: FBT001 - numba passes arguments by position
    out: FloatArray,
) -> None:
    """Write P, or log10 P, of flat arrays; `which` holds one index into the tables for all tests, or one for each."""
    smooth = np.empty(_BLOCK)
    start = 0
    while start < r_squared.size:
        # The longest run of tests that share ν, up to a block.
        index = which[0] if which.size == 1 else which[start]
        stop = min(start + _BLOCK, r_squared.size)
        if which.size > 1:
            run = start + 1
            while run < stop and which[run] == index:
                run += 1
            stop = run
        _smooth_factor(r_squared[start:stop], scales[index], coefficients[index], smooth)
        for i in range(start, stop):
            square = r_squared[i]
            if 0 < square < 1:
                log_power = exponents[index] * math.log1p(-square)
                if log10:
                    out[i] = min(0.0, (log_power + math.log(smooth[i - start])) / math.log(10.0))
                else:
                    out[i] = min(1.0, math.exp(log_power) * smooth[i - start])
            elif square == 0:
                out[i] = 0.0 if log10 else 1.0
            elif 1 <= square <= 1 + _ROUNDING:
                out[i] = -math.inf if log10 else 0.0
            else:
                out[i] = math.nan
        start = stop
