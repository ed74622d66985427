"""From cells to pseudobulk samples: one for each donor and cell type, or whatever else cells are grouped by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse

from normalisr_dask.graph.inputs import as_matrix
from normalisr_dask.kernels.pseudobulk import log2_cpm
from normalisr_dask.steps.pseudobulk import sum_cells
from normalisr_dask.storage.counts import Counts, open_counts
from normalisr_dask.validation import check_count, did_you_mean, listing

#: Stands between the labels in the name of a sample.
BETWEEN = "|"
#: What the table of samples says of each itself.
OWN_COLUMNS = ("n_cells", "total_count")


def pseudobulk(counts, by: str | Sequence[str], *, obs: pd.DataFrame | None = None, min_cells: int = 1):
    """Sum counts over the cells of each sample, such as each donor and cell type; computes, one pass over the cells.

    Parameters
    ----------
    counts : path, Counts, AnnData, or array (genes, cells)
        A count store, AnnData in memory, or an array of NumPy, SciPy sparse, Dask or Zarr with ``obs``.
    by : str or list of str
        Columns of the table of cells; cells that agree in all make a sample, named after its labels with | between
        them. Cells without a label are left out.
    obs : DataFrame, optional
        Table of the cells, for arrays; elsewhere it replaces the one inside.
    min_cells : int
        Cells that a sample needs; smaller ones are left out.

    Returns
    -------
    AnnData
        Samples × genes. X is log2((sum + ½)/(total + 1) · 10⁶), float64; ``layers["counts"]`` the sums, int64, and
        ``layers["mean"]`` the means over cells, both sparse. ``obs`` has the columns of ``by``, ``n_cells``,
        ``total_count``, and every other column in which the cells of a sample agree, such as the donor's age.

    Raises
    ------
    FileNotFoundError
        If there is no store at the path.
    ValueError
        If a column is missing, named twice or has a name that the table of samples needs.
        If two samples would have the same name, numbers of cells differ, or no sample has enough cells.
        If a value is no count.
    TypeError
        If the counts are none of the above.

    Notes
    -----
    Time O(stored entries). Memory: a block of counts a task, and the result: 8 bytes for each sample and gene in X.

    References
    ----------
    .. [1] Squair et al., Nature Communications 12:5692 (2021), doi:10.1038/s41467-021-25960-2.
    """
    check_count(min_cells, "min_cells", minimum=1)
    if isinstance(counts, str | Path):
        counts = open_counts(counts)
    matrix, own_cells, genes = _opened(counts)
    cells = own_cells if obs is None else obs
    if cells is None or len(cells) != matrix.shape[1]:
        found = "none" if cells is None else f"{len(cells):,} rows"
        msg = f"expected obs, a table with a row for each of {matrix.shape[1]:,} cells, found {found}"
        raise ValueError(msg)
    columns = [by] if isinstance(by, str) else list(by)
    groups, samples = _samples(cells, columns, min_cells)
    sums = sum_cells(matrix, groups, len(samples)).compute()
    samples["total_count"] = np.asarray(sums.sum(axis=1), dtype=np.int64)
    means = scipy.sparse.diags_array(1.0 / samples["n_cells"].to_numpy()) @ sums
    return anndata.AnnData(
        X=log2_cpm(sums),
        obs=samples,
        var=genes.copy(),
        layers={"counts": sums, "mean": scipy.sparse.csr_array(means)},
    )


def _opened(counts: Any) -> tuple[da.Array, pd.DataFrame | None, pd.DataFrame]:
    """Return counts (genes, cells), the table of cells, if there is one, and that of genes."""
    if isinstance(counts, Counts):
        return counts.matrix, counts.obs, counts.var
    if isinstance(counts, anndata.AnnData):
        if counts.isbacked or counts.X is None:
            found = f"one that lies in {counts.filename}" if counts.isbacked else "one without X"
            msg = f"expected AnnData in memory with counts as X, found {found}; ingest makes a store of any h5ad file"
            raise TypeError(msg)
        return as_matrix(counts.X.T, "counts"), counts.obs, counts.var
    matrix = as_matrix(counts, "counts")
    return matrix, None, pd.DataFrame(index=[f"gene{number + 1}" for number in range(matrix.shape[0])])


def _samples(cells: pd.DataFrame, columns: list[str], min_cells: int) -> tuple[Any, pd.DataFrame]:
    """Return the number of the sample of every cell, -1 for none, and the table of samples."""
    _check_columns(cells, columns)
    keys = cells[columns]
    known = ~keys.isna().any(axis=1).to_numpy()
    numbers, labels = pd.MultiIndex.from_frame(keys[known].astype(str)).factorize(sort=True)
    sizes = np.bincount(numbers, minlength=len(labels))
    kept = np.flatnonzero(sizes >= min_cells)
    if not kept.size:
        msg = (
            f"no sample by {listing(columns)} has {min_cells} cells; "
            f"the largest of {len(labels)} has {sizes.max(initial=0)}; ask for fewer cells or group by less"
        )
        raise ValueError(msg)
    new_number = np.full(len(labels) + 1, -1, dtype=np.int64)
    new_number[kept] = np.arange(kept.size)
    groups = np.full(len(cells), -1, dtype=np.int64)
    groups[known] = new_number[numbers]
    return groups, _sample_table(cells, columns, groups, kept.size)


def _check_columns(cells: pd.DataFrame, columns: list[str]) -> None:
    """Refuse columns that cells cannot be grouped by."""
    if not columns:
        msg = f"expected one column or more to group cells by, found none; there is {listing(list(cells.columns))}"
        raise ValueError(msg)
    missing = [name for name in columns if name not in cells]
    if missing:
        msg = (
            f"there is no column {listing(missing)} in the table of cells; there is {listing(list(cells.columns))}"
            f"{did_you_mean(missing[0], cells.columns)}"
        )
        raise ValueError(msg)
    for names, where in ((columns, "by"), (list(cells.columns), "the table of cells")):
        repeated = {name: None for name in names if names.count(name) > 1}
        if repeated:
            msg = f"{where} names the column {listing(repeated)} more than once; leave out or rename the others"
            raise ValueError(msg)
    taken = [name for name in columns if name in OWN_COLUMNS]
    if taken:
        msg = f"the table of samples has a column {listing(taken)} of its own; rename that of the cells to group by it"
        raise ValueError(msg)


def _check_names(keys: pd.DataFrame, groups: np.ndarray, names: pd.Index) -> None:
    """Refuse labels that differ but are written alike, as 1 and "1" are, alone or joined."""
    n_labels = keys.groupby(groups).nunique().max(axis=1).to_numpy()
    alike = names[names.duplicated() | (n_labels > 1)]
    if alike.size:
        msg = (
            f"two samples by {listing(list(keys.columns))} would have the name {alike[0]!r}: their labels are written "
            f"alike, as the number 1 and the text '1' are, or a{BETWEEN}b with c and a with b{BETWEEN}c; rename labels"
        )
        raise ValueError(msg)


def _sample_table(cells: pd.DataFrame, columns: list[str], groups: np.ndarray, n_samples: int) -> pd.DataFrame:
    """Return what the cells of each sample agree in, and how many they are."""
    used = cells[groups >= 0]
    codes = groups[groups >= 0]
    first = used.iloc[np.unique(codes, return_index=True)[1]]
    n_values = used.groupby(codes).nunique(dropna=False)
    agreeing = [name for name in cells.columns if name not in columns and (n_values[name] == 1).all()]
    names = pd.Index([BETWEEN.join(map(str, row)) for row in first[columns].itertuples(index=False)])
    _check_names(used[columns], codes, names)
    table = first[[*columns, *agreeing]].set_axis(names)
    table["n_cells"] = np.bincount(codes, minlength=n_samples)
    for name in table:
        if isinstance(table[name].dtype, pd.CategoricalDtype):
            table[name] = table[name].cat.remove_unused_categories()
    return table
