"""What ``vooma`` leaves in its output folder: the fit, and the table of tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem, write_elem

from normalisr_dask.storage.damage import check_chunks
from normalisr_dask.storage.locations import ALL_CHUNKS

FIT, TOP_TABLE, TOP_TABLE_TEXT = "fit.zarr", "top_table.parquet", "top_table.tsv"
#: Under which the manifest records it.
STAGE = "vooma"
#: Entries of a fit that are names.
NAMES = ("genes", "samples", "coef_names", "contrast_names")
#: Said explicitly, since anndata warns that its defaults will change.
ZARR_SETTINGS: dict[str, Any] = {"zarr_write_format": 3, "auto_shard_zarr_v3": False}
#: As anndata creates its arrays itself.
EVERYWHERE_ALL_CHUNKS = {f"array.{option}": value for option, value in ALL_CHUNKS.items()}


def write_linear_fit(output: Path, fit: Mapping[str, Any], table: pd.DataFrame) -> None:
    """Write a fit and its tests into a folder.

    Parameters
    ----------
    output
        The folder.
    fit
        Arrays, texts and numbers by name; ``anndata.io.read_elem`` reads the written group as a dict.
    table
        Tests of all contrasts below one another.
    """
    table.to_parquet(output / TOP_TABLE, index=False)
    table.to_csv(output / TOP_TABLE_TEXT, sep="\t", index=False)
    names = {name: np.asarray(fit[name], dtype=str) for name in NAMES if name in fit}
    write_zarr_element(output / FIT, {**fit, **names})


def read_linear_fit(output: Path) -> dict[str, Any]:
    """Return the fit that :func:`write_linear_fit` has written.

    Raises
    ------
    ValueError
        If chunks of it are missing.
    """
    group = zarr.open_group(output / FIT, mode="r")
    for name, member in group.members(max_depth=None):
        if isinstance(member, zarr.Array):
            check_chunks(member, output / FIT, name, f"remove {output} and run vooma again")
    fit: dict[str, Any] = read_elem(group)
    return fit


def write_zarr_element(path: Path, element: Any) -> None:
    """Write AnnData or a dict as a Zarr store."""
    with anndata.settings.override(**ZARR_SETTINGS), zarr.config.set(EVERYWHERE_ALL_CHUNKS):
        write_elem(zarr.open_group(path, mode="w", zarr_format=3), "/", element)
