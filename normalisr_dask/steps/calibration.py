"""How calibrated P-values are: genomic inflation and quantiles against those expected without effects; lazy."""

from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import zarr

from normalisr_dask.graph.calls import SPLIT_EVERY
from normalisr_dask.kernels import calibration as kernels
from normalisr_dask.notebook import shows_its_fields
from normalisr_dask.validation import check_count


@shows_its_fields
class QuantileQuantile(NamedTuple):
    """Points of a QQ plot.

    Attributes
    ----------
    expected : float64 (points,)
        −log₁₀ P expected at some ranks if there are no effects; descending, NaN at the end where there are fewer tests.
    observed : float64 (points,)
        −log₁₀ P found at these ranks.
    """

    expected: da.Array
    observed: da.Array


def inflation(pvalue, *, log10: bool = False) -> da.Array:
    r"""Genomic inflation of P-values: how much larger test statistics are than without effects; lazy.

    λ is the median of the χ² statistics (one degree of freedom) that have these P-values, over its null median 0.455
    [1]_. 1 is calibrated, above 1 too small P-values, below 1 too large ones.

    Parameters
    ----------
    pvalue : array, any shape
        P-values in [0, 1]; NaN does not count. NumPy, Dask or Zarr.
    log10 : bool
        Whether these are log₁₀ P, as ``DifferentialExpression.log10_pvalue``, which do not underflow.

    Returns
    -------
    float64 Dask array without dimensions; NaN where there are no tests.

    Raises
    ------
    ValueError
        On compute: if a P-value is not in [0, 1].

    Notes
    -----
    One pass over the P-values, whose number may be any: they are counted in steps of 2⁻¹⁴ of −log₁₀ P, which leaves λ
    within a relative 1e-4. Memory: a block, and a few MB. The same bits for all chunks.

    References
    ----------
    .. [1] Devlin, B. & Roeder, K. (1999). Genomic control for association studies. Biometrics 55, 997-1004.

    Examples
    --------
    >>> import numpy as np
    >>> float(inflation((np.arange(1000) + 0.5) / 1000).compute().round(3))
    1.0
    """
    of_tests = dask.delayed(kernels.genomic_inflation, pure=True)(histogram(pvalue, log10=log10))
    return da.from_delayed(of_tests, shape=(), dtype=np.float64)


def qq(pvalue, *, n_points: int = 200, log10: bool = False) -> QuantileQuantile:
    """Quantiles of P-values against those expected without effects, for a QQ plot; lazy.

    Parameters
    ----------
    pvalue : array, any shape
        P-values in [0, 1]; NaN does not count. NumPy, Dask or Zarr.
    n_points : int
        Number of points, evenly spaced on the logarithmic axis; the smallest and the largest P-value are among them.
    log10 : bool
        Whether these are log₁₀ P, as ``DifferentialExpression.log10_pvalue``, which do not underflow.

    Returns
    -------
    QuantileQuantile

    Raises
    ------
    ValueError
        If ``n_points`` is below 2.
        On compute: if a P-value is not in [0, 1].

    Notes
    -----
    The i-th smallest of n P-values is expected at i / (n + 1). Observed −log₁₀ P are within a relative 3e-5. Cost and
    memory as of :func:`inflation`.

    Examples
    --------
    >>> import numpy as np
    >>> points = qq(np.array([0.5, 0.25, 0.001]), n_points=3)
    >>> points.expected.compute().round(2), points.observed.compute().round(2)
    (array([0.6 , 0.3 , 0.12]), array([3. , 0.6, 0.3]))
    """
    check_count(n_points, "n_points", minimum=2)
    points = dask.delayed(kernels.qq_points, pure=True)(histogram(pvalue, log10=log10), n_points=n_points)
    expected, observed = da.from_delayed(points, shape=(2, n_points), dtype=np.float64)
    return QuantileQuantile(expected, observed)


def histogram(pvalue, *, log10: bool) -> Any:
    """Return the :class:`~normalisr_dask.kernels.calibration.Histogram` of P-values as a delayed object."""
    values = da.from_zarr(pvalue) if isinstance(pvalue, zarr.Array) else da.asarray(pvalue)
    count, add = dask.delayed(kernels.histogram, pure=True), dask.delayed(kernels.add_histograms, pure=True)
    parts = [count(block, log10=log10) for block in values.to_delayed().ravel()]
    while len(parts) > 1:
        parts = [add(parts[start : start + SPLIT_EVERY]) for start in range(0, len(parts), SPLIT_EVERY)]
    return add(parts)
