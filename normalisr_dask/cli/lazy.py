"""The one place that imports late."""

from importlib import import_module
from types import ModuleType


def work(name: str) -> ModuleType:
    """Import the module that does the work of a command, when it is called.

    Dask, Zarr, Numba and the rest take seconds to import. ``--help``, the overview and a mistyped option do not need
    them, nor do Dask's worker processes, each of which imports the program's main module first.

    Parameters
    ----------
    name
        Module within this package.

    Returns
    -------
    module
    """
    return import_module(f"normalisr_dask.cli.{name}")
