"""Powers of many numbers in a loop that the compiler runs several lanes at a time.

``np.exp`` inside a Numba loop is a call of the C library for every number, which takes ten times as long.
"""

import numpy as np
from numba import njit

#: e^x = 2^k e^r with k = x / log 2 rounded, so that |r| ≤ log 2 / 2; log 2 in two parts, the first with trailing zeros.
_PER_LOG_2 = 1.0 / np.log(2.0)
_LOG_2_HIGH, _LOG_2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
#: Adding and subtracting 1.5 · 2⁵² rounds to a whole number.
_ROUNDER = 6755399441055744.0
_MANTISSA_BITS = 52
#: 1/n! from n = 12 down: of the next term |r|¹³ / 13! is below the rounding of 1.
_TERMS = tuple(1.0 / float(np.prod(np.arange(1.0, n + 1))) for n in range(12, 1, -1))
_T12, _T11, _T10, _T9, _T8, _T7, _T6, _T5, _T4, _T3, _T2 = _TERMS
#: Beyond this the result would not be a normal number.
LARGEST_EXPONENT = 700.0


@njit(nogil=True, cache=True, fastmath={"contract"})
def powers(factors, exponent, result):  # type: ignore[no-untyped-def]
    """Write e^(exponent · factors) to ``result``, one-dimensional float64, within 2 units of the last place.

    |exponent · factors| is at most :data:`LARGEST_EXPONENT`; what is beyond comes out as if it were that.
    Where the two arrays share memory, a number is computed at a time.
    """
    bits = result.view(np.int64)
    for position in range(factors.size):
        power = min(max(exponent * factors[position], -LARGEST_EXPONENT), LARGEST_EXPONENT)
        whole = (power * _PER_LOG_2 + _ROUNDER) - _ROUNDER
        rest = (power - whole * _LOG_2_HIGH) - whole * _LOG_2_LOW
        value = _T12 * rest + _T11
        value = value * rest + _T10
        value = value * rest + _T9
        value = value * rest + _T8
        value = value * rest + _T7
        value = value * rest + _T6
        value = value * rest + _T5
        value = value * rest + _T4
        value = value * rest + _T3
        value = value * rest + _T2
        value = value * rest + 1.0
        result[position] = value * rest + 1.0
        bits[position] += np.int64(whole) << _MANTISSA_BITS
