"""What counts as equal."""

import dask
import numpy as np

#: log₁₀ of the smallest P-value that normalisr computes to full precision: below 1e-290 or so it underflows.
SMALLEST_LOG10_P = -290.0
#: Near P = 1 normalisr loses digits: it forms 1 − R² in floating point, which rounds R² to a multiple of 1.1e-16. Where
#: R² < 1e-9 or so (1 − P < 1e-4 to 2e-3 for 10 to 3,000 cells) its 1 − P, and so log P, is wrong by more than 1e-6
#: relative; P itself stays within 1e-6.
NEARLY_ONE = 0.998


def largest_error(found, expected) -> float:
    """Return the largest absolute difference over the largest absolute value expected."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    if expected.size == 0:
        return 0.0
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny))


def assert_close(found, expected, tolerance: float) -> None:
    """Assert equality within ``tolerance`` of the largest value; ``found`` may be lazy."""
    (found,) = dask.compute(found)
    error = largest_error(found, expected)
    assert error <= tolerance, f"differs by {error:.3g} of the largest value, allowed are {tolerance:g}"


def assert_same_p_values(found, expected, tolerance: float = 1e-6) -> None:
    """Assert that log₁₀ P agree within ``tolerance``, relative; absolute P near 1; and that both underflow or none."""
    (found,) = dask.compute(found)
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert ((found >= 0) & (found <= 1)).all()
    with np.errstate(divide="ignore"):
        found_log, expected_log = np.log10(found), np.log10(expected)
    vanishing = expected_log < SMALLEST_LOG10_P
    assert (found_log[vanishing] < SMALLEST_LOG10_P + 1).all()
    nearly_one = expected > NEARLY_ONE
    assert np.abs(found - expected)[nearly_one].max(initial=0) <= tolerance
    others = ~(vanishing | nearly_one)
    error = np.abs(found_log[others] - expected_log[others]) / np.abs(expected_log[others])
    assert error.max(initial=0) <= tolerance, f"log10 P differ by {error.max():.3g}, relative"
