"""Functions that answer in the kind they are asked in: NumPy arrays for arrays in memory, lazy ones for all others."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import dask
import dask.array as da
import numpy as np
import zarr

from normalisr_dask.results import LogCpm

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def eager(step: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have a step compute its result where all arrays that it is given are in memory.

    Scripts that were written for NumPy take results apart with masks, change them in place and save them, so they need
    arrays that are there. Whoever gives a Dask or Zarr array has more data than memory, and gets Dask arrays back.

    Parameters
    ----------
    step
        Takes arrays of any kind, and gives lazy ones.

    Returns
    -------
    callable
        With the same signature. For arrays in memory, whatever the result unpacks into is computed and may be written
        to; attributes that do not unpack stay lazy. With ``lowmem=True``, mean and var of log-CPM are None, as in
        Normalisr.
    """
    given_to = signature(step)

    @wraps(step)
    def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        result: Any = step(*arguments, **options)
        given = given_to.bind(*arguments, **options)
        if any(isinstance(value, da.Array | zarr.Array) for value in given.arguments.values()):
            return result
        given.apply_defaults()
        if isinstance(result, LogCpm) and given.arguments["lowmem"]:
            result = result._replace(mean=None, var=None)
        return _in_memory(result)

    return call


def _in_memory(result: Any) -> Any:
    """Compute a Dask array, or those that a result unpacks into."""
    if isinstance(result, da.Array):
        return _writeable(result.compute())
    names = _names_that_unpack(result)
    values = dask.compute(*(getattr(result, name) for name in names))
    computed = {name: _writeable(value) for name, value in zip(names, values, strict=True)}
    if is_dataclass(result) and not isinstance(result, type):
        return replace(result, **computed)
    return result._replace(**computed) if computed else result


def _names_that_unpack(result: Any) -> list[str]:
    """Return the names of the lazy arrays among what a result unpacks into."""
    names = [field.name for field in fields(result)] if is_dataclass(result) else getattr(result, "_fields", ())
    unpacked = [id(value) for value in result if isinstance(value, da.Array)]
    return [name for name in names if id(getattr(result, name)) in unpacked]


def _writeable(array: Any) -> Any:
    """Return an array that can be written to, and is no view of another."""
    return array.copy() if isinstance(array, np.ndarray) and not array.flags.owndata else array
