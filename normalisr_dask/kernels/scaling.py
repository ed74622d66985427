"""The gene scaling of variance normalisation from what is known of every gene's counts."""

import numpy as np
from numpy.typing import NDArray


def scale_between(
    gene_sums: NDArray[np.float64], *, varname: str, bounds: tuple[float | str, float | str], n_cells: int
) -> NDArray[np.float64]:
    """Return (d − v0)/(v1 − v0) of every gene (genes,).

    Parameters
    ----------
    gene_sums
        Total count, number of non-zero cells, and (for ``logtmeanprop`` alone) summed share of a cell's counts, of
        all genes (genes, 2 or 3).
    varname
        Which d; see :func:`normalisr_dask.scaling_factor`.
    bounds
        v0 and v1: numbers, "min" or "max".
    n_cells
        Number of cells.

    Raises
    ------
    ValueError
        If d is not finite for a gene, or v0 equals v1.
    """
    totals, n_nonzero = np.asarray(gene_sums[:, 0]), np.asarray(gene_sums[:, 1])
    if totals.size == 0:  # Dask asks what zero genes would give
        return totals
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {
            "nt0mean": lambda: 1 - n_nonzero / n_cells,
            "lognt0mean": lambda: np.log(1 - n_nonzero / n_cells),
            "log1-nt0mean": lambda: np.log(n_nonzero / n_cells),
            "logtpropmean": lambda: np.log(totals / totals.sum()),
            "logtmeanprop": lambda: np.log(gene_sums[:, 2] / n_cells),
        }[varname]()
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        msg = (
            f"expected a finite {varname} for every gene, found {values[first]} for gene {first} (counted from 0); "
            "remove genes without counts (or without zeros), or choose another varname"
        )
        raise ValueError(msg)
    low, high = (_bound(bound, values) for bound in bounds)
    if low == high:
        msg = f"expected v0 and v1 to differ, found {low} for both; all genes may have the same {varname}"
        raise ValueError(msg)
    return np.asarray((values - low) / (high - low))


def _bound(bound: float | str, values: NDArray[np.float64]) -> float:
    if bound == "min":
        return float(values.min())
    if bound == "max":
        return float(values.max())
    return float(bound)
