"""Fits as the functions take them: as a mapping, or kept in AnnData."""

from collections.abc import Mapping
from typing import Any

import anndata
import numpy as np

from normalisr_dask.results import LinearFit
from normalisr_dask.steps.linear_models import storable

LISTS_OF_NAMES = ("coef_names", "contrast_names", "genes")


def open_fit(data: Any, key: str) -> LinearFit:
    """Return a copy of a fit, whose arrays are those of the caller and not to be changed.

    Raises
    ------
    ValueError
        If AnnData has none under the key.
    TypeError
        If it is no fit.
    """
    if isinstance(data, anndata.AnnData):
        if key not in data.uns:
            msg = f"there is no fit in uns[{key!r}] of the AnnData object; run vooma_lm_fit or lm_fit first"
            raise ValueError(msg)
        data = data.uns[key]
    if not isinstance(data, Mapping):
        msg = f"expected a fit, as vooma_lm_fit returns, or AnnData with one, found {type(data).__name__}"
        raise TypeError(msg)
    fit = LinearFit(data)
    for name in LISTS_OF_NAMES:  # lists come back from h5ad as arrays
        if isinstance(fit.get(name), np.ndarray):
            fit[name] = [str(value) for value in fit[name]]
    return fit


def keep_fit(fit: LinearFit, data: Any, key: str) -> LinearFit | None:
    """Return the fit, or write it back into AnnData and return None."""
    if not isinstance(data, anndata.AnnData):
        return fit
    data.uns[key] = storable(fit)
    return None


def need(fit: LinearFit, names: tuple[str, ...], what: str) -> None:
    """Refuse a fit that lacks something.

    Raises
    ------
    ValueError
        If it does; says what.
    """
    missing = [name for name in names if fit.get(name) is None]
    if missing:
        msg = f"{what} needs a fit with {', '.join(missing)}; give what lm_fit or vooma_lm_fit returned"
        raise ValueError(msg)
