"""What the lines of association.py are made of."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its docstrings hold invalid escape sequences
    import normalisr.normalisr as published  # noqa: F401  the lines use it

N_CORES = 2
OURS = "normalisr-dask"
#: Relative difference of log P, and of other results to their largest value, that counts as none.
P_TOLERANCE, TOLERANCE = 1e-6, 1e-8
#: normalisr's P-values below the first are not exact, nor is the logarithm of those above the second.
EXACT_P = (1e-290, 0.998)

Arrays = dict[str, np.ndarray]
Program = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    data
        Key of DATA.
    against
        The other program, as it is called in the output.
    programs
        What this package and the other do, by name.
    compare
        Largest difference over its tolerance, from the data, the other's results and ours.
    goal
        Least ratio of times, the other's over ours; without another program 1.
    blas_threads
        BLAS threads of the other program.
    megabytes
        Largest peak memory of this package, if one is asked for.
    """

    data: str
    against: str
    programs: dict[str, Program]
    compare: Callable[[Arrays, Arrays, Arrays], float]
    goal: float
    blas_threads: int = 1
    megabytes: float | None = None


def log_p_difference(theirs: np.ndarray, ours: np.ndarray, nearly_one: float = EXACT_P[1]) -> float:
    """Return the largest relative difference of logarithms where theirs are exact, of P-values elsewhere."""
    exact = (theirs >= EXACT_P[0]) & (theirs <= nearly_one)
    logarithms = np.log(theirs[exact])
    relative = np.abs((np.log(np.maximum(ours[exact], np.finfo(float).tiny)) - logarithms) / logarithms)
    return float(max(relative.max(initial=0), np.abs(ours - theirs)[~exact].max(initial=0)))
