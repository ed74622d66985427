"""What ``ingest`` does, and what is told of a store."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import zarr

from normalisr_dask.cli.display import print_facts, show_bytes
from normalisr_dask.cli.event_log import event_log
from normalisr_dask.cli.messages import PROGRAM
from normalisr_dask.cli.options import LogOptions
from normalisr_dask.storage.count_source import ProgressCallback, ProgressEvent
from normalisr_dask.storage.count_store import METADATA_KEY, CountStore
from normalisr_dask.storage.ingest import ingest as ingest_counts
from normalisr_dask.storage.locations import as_path, zarr_store
from normalisr_dask.validation import listing
from normalisr_dask.wording import amount


def ingest(
    inputs: list[str],
    store: str,
    genes: list[str] | None,
    cells: list[str] | None,
    obs: str | None,
    join: Any,
    log: LogOptions,
    *,
    transpose: bool,
    overwrite: bool,
) -> None:
    """Convert count matrices to a count store, and tell what is in it."""
    with show_entries("ingest", log, store) as show:
        written = ingest_counts(
            inputs,
            store,
            genes=genes,
            cells=cells,
            obs=obs,
            transpose=transpose,
            join=join and join.value,
            overwrite=overwrite,
            progress=show,
        )
    print_store(written)


@contextmanager
def show_entries(command: str, log: LogOptions, output: str) -> Iterator[ProgressCallback]:
    """Show and log how far a command has read counts while the block runs."""
    with event_log(log.log_json, command, output) as events, show_bytes(events) as display:

        def show(event: ProgressEvent) -> None:
            display.advance(event.stage, event.bytes_done, event.bytes_total, f"{event.n_entries:,} entries")

        yield show


def print_store(store: CountStore) -> None:
    """Print what a count store holds, and how to go on with it.

    Parameters
    ----------
    store
        Whose cell table and provenance are read, too.
    """
    obs = store.obs()
    size = store.n_cells * store.n_genes
    columns = {str(name): obs[name] for name in obs.columns}
    facts = {
        "cells": f"{store.n_cells:,}",
        "genes": f"{store.n_genes:,}",
        "entries": f"{store.n_entries:,} ({store.n_entries / max(size, 1):.2%} of the matrix)",
        "counts": f"{store.total_count:,} in all, at most {store.largest_count:,} in one entry ({store.dtype})",
        "cell table": "columns below" if columns else "names only",
    }
    provenance = zarr.open_group(zarr_store(as_path(store.path)), mode="r").attrs.get(METADATA_KEY, {})
    if isinstance(provenance, dict):
        facts |= _provenance(provenance.get("provenance", {}))
    print_facts(f"Count store {store.path}", facts)
    if columns:
        print_facts("Cell table", {name: _column(column) for name, column in columns.items()})
    grouped = next((name for name, column in columns.items() if _is_of_groups(column)), None)
    tested = "--groupings FILE" if grouped is None else f"--groupby {shlex.quote(grouped)}"
    print(f"To test it: {PROGRAM} run {shlex.quote(store.path)} -o results {tested}")


def _is_of_groups(column: pd.Series) -> bool:
    """Whether a column suggests itself to group cells by: labels, not numbers, some cells of each, none missing."""
    return column.dtype.kind not in "iufc" and 1 < column.nunique() <= len(column) / 2 and not column.hasnans


def _column(column: pd.Series) -> str:
    """Describe a column of the cell table."""
    missing = f", missing in {column.isna().sum():,}" if column.hasnans else ""
    if column.dtype.kind in "iuf":
        return f"{column.min():g} to {column.max():g}{missing}"
    labels = column.dropna().unique()
    return f"{len(labels):,} labels: {listing(labels, shown=3)}{missing}"


def _provenance(provenance: dict[str, Any]) -> dict[str, str]:
    """Describe where a store came from."""
    if not provenance:
        return {}
    inputs = ", ".join(f"{item['path']} ({amount(item['bytes'])})" for item in provenance["inputs"])
    return {"made from": inputs, "made": f"{provenance['created']} by version {provenance['normalisr_dask']}"}
