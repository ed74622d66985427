"""What a run reads beside the counts: groupings and covariates, aligned to the cells of the store."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normalisr_dask.screen import Screen, check_screen_settings, design_screen
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.cell_columns import groupings_from_column, one_hot_covariates
from normalisr_dask.storage.count_store import CountStore, open_count_store
from normalisr_dask.storage.locations import metadata_file
from normalisr_dask.storage.manifest import fingerprint
from normalisr_dask.storage.tables import (
    NamedRows,
    align_to_cells,
    read_covariates,
    read_groupings,
)
from normalisr_dask.validation import check_choice, check_count, check_fraction, check_not_negative, check_probability


@dataclass(frozen=True)
class RunInputs:
    """Inputs of a run, all over the cells of the store.

    Attributes
    ----------
    store
        The counts.
    screen
        What is tested, or None.
    covariate_names, covariates
        Names (q,) and float64 values (q, cells); q may be 0.
    """

    store: CountStore
    screen: Screen | None
    covariate_names: tuple[str, ...]
    covariates: NDArray[np.float64]

    @property
    def groupings(self) -> NamedRows | None:
        """The groupings that are tested, or None."""
        return None if self.screen is None else self.screen.groupings


def read_inputs(settings: RunSettings) -> RunInputs:
    """Check the settings, read the tables they name, and align them to the cells of the store.

    Raises
    ------
    FileNotFoundError
        If the store or a table does not exist.
    ValueError
        If settings contradict each other or are out of range, or a table does not fit the store.
    """
    _check(settings)
    store = open_count_store(settings.store)
    cells = store.cells()
    names, values = _covariates(settings, store, cells)
    groupings = _groupings(settings, store, cells)
    screen = None if groupings is None else design_screen(settings, groupings, store.genes())
    return RunInputs(store, screen, names, values)


def _check(settings: RunSettings) -> None:
    if settings.groupings is not None and settings.groupby is not None:
        msg = "give groupings as a file (--groupings) or as a column of the cell table (--groupby), not both"
        raise ValueError(msg)
    if settings.groupby in settings.covariate_columns:
        msg = (
            f"column {settings.groupby!r} is to be tested (--groupby) and a covariate (--covariate-columns), which "
            "leaves nothing of it to test; leave it out of one of them"
        )
        raise ValueError(msg)
    if settings.reference is not None and settings.groupby is None:
        msg = "a reference level needs the column it belongs to (--groupby)"
        raise ValueError(msg)
    if settings.grouping_names is not None and settings.groupings is None:
        msg = "names of groupings need their file (--groupings)"
        raise ValueError(msg)
    if settings.grouping_cells is not None and settings.grouping_names is None:
        msg = "names of the cells of groupings (--grouping-cells) are for Matrix Market, with --grouping-names"
        raise ValueError(msg)
    check_screen_settings(settings)
    check_choice(settings.other_groupings, ("ignore", "exclude", "covariates"), "other_groupings")
    check_probability(settings.qcut, "qcut")
    if settings.go is not None and not settings.coex:
        msg = "gene sets (--go) are found in the network of co-expression, which needs --coex"
        raise ValueError(msg)
    if settings.go_names is not None and settings.go is None:
        msg = "annotation IDs of gene names (--go-names) need the annotations they belong to (--go)"
        raise ValueError(msg)
    check_count(settings.go_levels, "go_levels")
    check_fraction(settings.min_gene_cell_fraction, "min_gene_cell_fraction")
    check_fraction(settings.min_cell_gene_fraction, "min_cell_gene_fraction")
    for name in ("min_gene_reads", "min_gene_cells", "min_cell_reads", "min_cell_genes"):
        check_not_negative(getattr(settings, name), name)


def _groupings(settings: RunSettings, store: CountStore, cells: NDArray[np.object_]) -> NamedRows | None:
    if settings.groupings is not None:
        own_cells = cells if settings.grouping_cells is None else settings.grouping_cells
        groupings = read_groupings(settings.groupings, names=settings.grouping_names, cells=own_cells)
        return align_to_cells(groupings, cells, "groupings")
    if settings.groupby is not None:
        return groupings_from_column(_column(store, settings.groupby, "groupby"), settings.reference)
    return None


def _covariates(
    settings: RunSettings, store: CountStore, cells: NDArray[np.object_]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    frames = [_column(store, column, "covariate_columns").to_frame() for column in settings.covariate_columns]
    if settings.covariates is not None:
        frames.append(align_to_cells(read_covariates(settings.covariates), cells, "covariates"))
    if not frames:
        return (), np.empty((0, store.n_cells))
    table = pd.concat(frames, axis=1)
    repeated = table.columns[table.columns.duplicated()]
    if len(repeated):
        msg = f"covariate {str(repeated[0])!r} is named twice; leave it out of one of table and --covariate-columns"
        raise ValueError(msg)
    return one_hot_covariates(table)


def _column(store: CountStore, name: str, option: str) -> pd.Series:
    obs = store.obs()
    check_choice(name, [str(column) for column in obs.columns], option)
    return obs[name]


def check_enough_cells(covariates: NDArray[np.float64], names: list[str]) -> None:
    """Refuse covariates (q, cells), the constant one last, that leave no degree of freedom for a test.

    Raises
    ------
    ValueError
        With the numbers of cells and covariates, and the covariates' names.
    """
    n_cells = covariates.shape[1]
    rank = int(np.linalg.matrix_rank(covariates[:, : len(covariates) + 2]))  # more cells are enough for any rank
    if n_cells <= rank + 1:
        msg = (
            f"expected more cells after quality control than {rank + 1}, for covariates of rank {rank} "
            f"({', '.join(names)} and the constant) and a grouping or gene, found {n_cells:,}; "
            "lower the bounds of quality control, or give fewer covariates"
        )
        raise ValueError(msg)


def fingerprints(settings: RunSettings, store: CountStore) -> dict[str, Any]:
    """Return by what a later run knows its inputs again: the store, which is open, and the files."""
    files = {
        "groupings": settings.groupings,
        "grouping names": settings.grouping_names,
        "grouping cells": settings.grouping_cells,
        "targets": settings.targets,
        "controls": settings.control_file,
        "pairs": settings.pairs,
        "covariates": settings.covariates,
    }
    prints = {name: fingerprint(path) for name, path in files.items() if path is not None}
    matrix = {
        name: getattr(store, name) for name in ("n_cells", "n_genes", "n_entries", "total_count", "largest_count")
    }
    columns = [settings.groupby, *settings.covariate_columns] if settings.groupby else settings.covariate_columns
    if columns:  # of the store's own table of cells, which may be changed in place
        obs = store.obs()
        prints |= {f"column {name!r} of the cells": _fingerprint_of_column(obs[name]) for name in columns}
    return {"counts": matrix | fingerprint(metadata_file(settings.store)), **prints}


def check_counts_stayed(settings: RunSettings, fingerprints: Mapping[str, Any]) -> None:
    """Refuse results of counts that were replaced while these were made.

    Raises
    ------
    FileNotFoundError, ValueError
        If the store is not there any more, or another one.
    """
    found = fingerprint(metadata_file(settings.store))
    if any(fingerprints["counts"][name] != value for name, value in found.items()):
        msg = (
            f"{settings.store} was replaced while the run read it; choose another output folder for what it holds now, "
            "or put the counts back and run the same command again"
        )
        raise ValueError(msg)


def _fingerprint_of_column(column: pd.Series) -> dict[str, Any]:
    """Return number and SHA-256 of the values of a column of cells."""
    of_cells = pd.util.hash_pandas_object(column, index=False).to_numpy()
    return {"cells": of_cells.size, "sha256": hashlib.sha256(of_cells.tobytes()).hexdigest()}
