"""Time of a P-value, beside scipy.special.betainc: python benchmarks/p_values.py [--json FILE].

Single-threaded. Before timing, some results are compared with betaincc: ten times slower than betainc, but it takes R²
instead of 1 − R², which would lose digits. A disagreement ends the run with exit code 1.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numba
import numpy as np
import scipy
from scipy.special import betainc, betaincc

from normalisr_dask.kernels.p_values import log10_p_value, p_value

N_TESTS = 500_000
N_COMPARED = 20_000
DEGREES_OF_FREEDOM = [1, 5, 30, 100, 1_000, 10_000, 1_000_000]
# Share of tests with an effect, and by how much it multiplies t².
EFFECTS = {"null": (0.0, 1.0), "5 % effects": (0.05, 50.0), "half strong effects": (0.5, 500.0)}
TOLERANCE = 1e-10
REPETITIONS = 5


def simulate_r_squared(degrees_of_freedom: int, effects: str) -> np.ndarray:
    """R² of tests, t² of which are chi-square(1) variables, some of them multiplied."""
    random = np.random.default_rng(0)
    share, factor = EFFECTS[effects]
    t_squared = random.chisquare(1, N_TESTS) * np.where(random.random(N_TESTS) < share, factor, 1.0)
    return t_squared / (degrees_of_freedom + t_squared)


def nanoseconds(function: Callable[[], object]) -> float:
    """Best time of several runs, per test."""
    times = []
    for _ in range(REPETITIONS):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return min(times) / N_TESTS * 1e9


def largest_relative_difference(squares: np.ndarray, degrees_of_freedom: int) -> float:
    """Compare with SciPy where P does not underflow."""
    some = squares[:N_COMPARED]
    expected = betaincc(0.5, degrees_of_freedom / 2, some)
    normal = expected > 1e-300
    return float(np.abs(p_value(some[normal], degrees_of_freedom) / expected[normal] - 1).max())


def measure(squares: np.ndarray, degrees_of_freedom: int) -> dict[str, float]:
    """Nanoseconds per test of each function."""
    out = np.empty_like(squares)
    neighbours = degrees_of_freedom + np.arange(N_TESTS) % 3
    return {
        "p_value_ns": nanoseconds(lambda: p_value(squares, degrees_of_freedom, out=out)),
        "log10_p_value_ns": nanoseconds(lambda: log10_p_value(squares, degrees_of_freedom, out=out)),
        "p_value_mixed_ns": nanoseconds(lambda: p_value(squares, neighbours, out=out)),
        "scipy_ns": nanoseconds(lambda: betainc(degrees_of_freedom / 2, 0.5, 1 - squares, out=out)),
    }


def main() -> int:
    """Print one line for each ν and distribution of R²."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    print("ns per test; 'mixed': three ν in turn, and the search for them")
    print(f"{'ν':>9} {'R²':<20} {'P':>7} {'log10 P':>8} {'P mixed':>8} {'SciPy':>7} {'difference':>11}")
    results = []
    for effects in EFFECTS:
        for degrees_of_freedom in DEGREES_OF_FREEDOM:
            squares = simulate_r_squared(degrees_of_freedom, effects)
            difference = largest_relative_difference(squares, degrees_of_freedom)
            if difference > TOLERANCE:
                print(f"P-values differ from SciPy's by {difference:.1e}, ν = {degrees_of_freedom}", file=sys.stderr)
                return 1
            times = measure(squares, degrees_of_freedom)
            print(
                f"{degrees_of_freedom:>9} {effects:<20} {times['p_value_ns']:>7.1f} {times['log10_p_value_ns']:>8.1f} "
                f"{times['p_value_mixed_ns']:>8.1f} {times['scipy_ns']:>7.1f} {difference:>11.1e}"
            )
            setting = {"degrees_of_freedom": degrees_of_freedom, "effects": effects}
            results.append(setting | {"largest_relative_difference": difference} | times)
    if arguments.json:
        versions = {"python": platform.python_version(), "numba": numba.__version__, "scipy": scipy.__version__}
        record = {"machine": platform.machine(), "versions": versions, "n_tests": N_TESTS, "results": results}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
