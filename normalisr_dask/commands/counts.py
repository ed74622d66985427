"""Commands on counts: quality control, subsets of matrices, log-CPM."""

import logging

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.commands.files import Axis, Files, Matrix
from normalisr_dask.steps.expression import LogCpmForm, with_form
from normalisr_dask.steps.log_cpm import lcpm as lcpm_step
from normalisr_dask.steps.log_cpm import scaling_factor
from normalisr_dask.steps.quality_control import qc_reads as qc_reads_step
from normalisr_dask.validation import listing

logger = logging.getLogger(__name__)

Names = tuple[str, str]
Positions = NDArray[np.int64]


def qc_reads(
    reads_in: str,
    genes_in: str,
    cells_in: str,
    genes_out: str,
    cells_out: str,
    *,
    bounds: tuple[float, float, float, float, float, float],
    sparse: bool = False,
) -> None:
    """Write the names of the genes and cells that pass quality control.

    Parameters
    ----------
    reads_in, genes_in, cells_in, genes_out, cells_out
        Files, as of the command line.
    bounds
        n_gene, nc_gene, ncp_gene, n_cell, nt_cell and ntp_cell of :func:`normalisr_dask.qc_reads`.
    sparse
        Whether ``reads_in`` is Matrix Market, whatever its name.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, names and counts do not fit, or nothing passes.
    """
    with Files(genes_out, cells_out) as files:
        counts = files.counts(reads_in, matrix_market=sparse)
        genes = files.names(genes_in, "genes", counts.shape[0], f"rows in {reads_in}")
        cells = files.names(cells_in, "cells", counts.shape[1], f"columns in {reads_in}")
        genes_kept, cells_kept = qc_reads_step(counts.matrix, *bounds)
        files.write({genes_out: [genes[gene] for gene in genes_kept], cells_out: [cells[cell] for cell in cells_kept]})


def subset(
    matrix_in: str,
    matrix_out: str,
    *,
    rows: Names | None = None,
    columns: Names | None = None,
    nodummy: bool = False,
    sparse: bool = False,
) -> None:
    """Write the chosen rows and columns of a matrix, in the order of the names.

    Parameters
    ----------
    matrix_in, matrix_out
        Files, as of the command line.
    rows, columns
        Files of all names, and of the names to keep.
    nodummy
        Whether to leave out rows (if columns are chosen) or columns (if rows are) that then have one value.
    sparse
        Whether ``matrix_in`` is Matrix Market, whatever its name.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, names do not fit, or nothing is left.
    """
    if rows is None and columns is None:
        msg = "nothing says which rows (-r) or columns (-c) to keep"
        raise ValueError(msg)
    if nodummy and rows is not None and columns is not None:
        msg = "--nodummy is for subsets of rows (-r) or of columns (-c), not of both"
        raise ValueError(msg)
    with Files(matrix_out) as files:
        if sparse:
            counts = files.counts(matrix_in, matrix_market=True)
            matrix = Matrix(counts.matrix, counts)
        else:
            matrix = files.matrix(matrix_in, finite=False)
        n_rows, n_columns = matrix.values.shape
        of = f"in {matrix_in}"
        kept_rows = None if rows is None else _positions(files, rows, "genes", n_rows, f"rows {of}")
        kept_columns = None if columns is None else _positions(files, columns, "cells", n_columns, f"columns {of}")
        chosen = _chosen(matrix, kept_rows, kept_columns)
        if nodummy:
            axis = 1 if rows is None else 0
            values = chosen.dense()
            varies = np.flatnonzero(np.not_equal(*dask.compute(values.min(axis=axis), values.max(axis=axis))))
            if not varies.size:
                msg = f"{matrix_out} would be empty: every row or column has one value; leave out --nodummy"
                raise ValueError(msg)
            chosen = _chosen(chosen, varies, None) if axis == 1 else _chosen(chosen, None, varies)
        files.write({matrix_out: chosen})


def lcpm(
    reads_in: str,
    lcpm_out: str,
    scale_out: str,
    cov_out: str,
    *,
    cov_in: str | None = None,
    var_out: str | None = None,
    seed: int | None = None,
    sparse: bool = False,
) -> None:
    """Write log-CPM, the scaling of genes, covariates and, if asked for, posterior variance.

    Parameters
    ----------
    reads_in, lcpm_out, scale_out, cov_out, cov_in, var_out
        Files, as of the command line.
    seed
        As of :func:`normalisr_dask.lcpm`.
    sparse
        Whether ``reads_in`` is Matrix Market, whatever its name.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read or written, or numbers of cells differ.
    """
    with Files(lcpm_out, scale_out, cov_out, var_out) as files:
        counts = files.counts(reads_in, matrix_market=sparse)
        matrix = counts.matrix
        result = lcpm_step(matrix, seed=seed)
        covariates = result.cov
        if cov_in is not None:
            given = files.table(cov_in)
            check_same_cells(given.shape[1], cov_in, counts.shape[1], reads_in)
            covariates = da.concatenate([given, covariates])
        files.write(
            {
                lcpm_out: Matrix(result.lcpm, counts),
                scale_out: scaling_factor(matrix),
                cov_out: covariates,
                var_out: result.var,
            }
        )


def check_same_cells(n_cells: int, name: str, expected: int, other: str) -> None:
    """Refuse matrices of other numbers of cells.

    Raises
    ------
    ValueError
    """
    if n_cells != expected:
        msg = f"{name} has {n_cells:,} columns (cells), but {other} has {expected:,}"
        raise ValueError(msg)


def _positions(files: Files, names: Names, axis: Axis, size: int, of: str) -> Positions:
    """Return where the names to keep stand among all."""
    all_names, kept = files.names(names[0], axis, size, of), files.names(names[1], axis)
    for file, given in zip(names, (all_names, kept), strict=True):
        if len(set(given)) < len(given):
            twice = next(name for position, name in enumerate(given) if name in given[:position])
            msg = f"{file} has {len(given) - len(set(given)):,} names twice, the first {twice!r}"
            raise ValueError(msg)
    position_of = {name: position for position, name in enumerate(all_names)}
    unknown = [name for name in kept if name not in position_of]
    if unknown:
        msg = f"{names[1]} has names that are not in {names[0]}: {listing(unknown, shown=3)}"
        raise ValueError(msg)
    return np.array([position_of[name] for name in kept], dtype=np.int64)


def _chosen(matrix: Matrix, rows: Positions | None, columns: Positions | None) -> Matrix:
    """Return the chosen rows and columns; counts stay counts, and log-CPM stays made of counts, where they can."""
    if matrix.counts is not None and all(_ascend(chosen) for chosen in (rows, columns)):
        counts = matrix.counts.subset(genes=rows, cells=columns)
        if matrix.is_counts:
            return Matrix(counts.matrix, counts)
        if isinstance(matrix.form, LogCpmForm):
            offset = matrix.form.cell_offset
            offset = (offset if columns is None else offset[columns]).rechunk((counts.chunks,))
            return Matrix(with_form(LogCpmForm(counts.matrix, offset)), counts)
    values = matrix.dense()
    if rows is not None:
        values = values[rows]
    return Matrix(values if columns is None else values[:, columns])


def _ascend(positions: Positions | None) -> bool:
    return positions is None or bool((np.diff(positions) > 0).all())
