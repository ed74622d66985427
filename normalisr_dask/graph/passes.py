"""Passes over a matrix too large to keep: where blocks are cheap to make, every pass makes its own."""

from collections.abc import Callable

import dask.array as da

_MAKER = "normalisr_dask_maker"


def remakeable(make: Callable[[], da.Array]) -> da.Array:
    """Return ``make()``, remembering how it was made; ``make`` gives its tasks other names at every call."""
    array = make()
    setattr(array, _MAKER, make)
    return array


def anew(array: da.Array) -> da.Array:
    """Return the same matrix under other task names where :func:`remakeable` made it, else the array itself.

    Two passes over one array in one graph share its blocks: Dask keeps each from the first pass until the second has
    used it, which for passes that wait for each other is the whole matrix. A pass over blocks of its own reads what it
    needs once more and lets go of it. Arrays made by the caller are left as they are: persist or compute as you like.
    """
    make: Callable[[], da.Array] | None = getattr(array, _MAKER, None)
    return array if make is None else make()
