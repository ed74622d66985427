"""What ``ingest`` and ``info`` do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zarr

from normalisr_dask.cli.display import print_facts, show_bytes
from normalisr_dask.cli.event_log import event_log
from normalisr_dask.cli.options import LogOptions
from normalisr_dask.schema import is_of_level, stage_of_level
from normalisr_dask.storage.count_source import ProgressCallback, ProgressEvent
from normalisr_dask.storage.count_store import METADATA_KEY, CountStore, open_count_store
from normalisr_dask.storage.ingest import ingest as ingest_counts
from normalisr_dask.storage.locations import as_path, has_file, zarr_store
from normalisr_dask.storage.manifest import MANIFEST, Manifest
from normalisr_dask.storage.url_errors import url_errors
from normalisr_dask.validation import listing
from normalisr_dask.wording import amount, duration


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
    with show_entries("ingest", log) as show:
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
    _print_store(written)


@contextmanager
def show_entries(command: str, log: LogOptions) -> Iterator[ProgressCallback]:
    """Show and log how far a command has read counts while the block runs."""
    with event_log(log.log_json, command) as events, show_bytes(events) as display:

        def show(event: ProgressEvent) -> None:
            display.advance(event.stage, event.bytes_done, event.bytes_total, f"{event.n_entries:,} entries")

        yield show


def info(path: str) -> None:
    """Tell what is at a path."""
    with url_errors(path):
        holds_run = has_file(as_path(path) / MANIFEST)
    if holds_run:
        _print_run(path, Manifest.read(path))
    else:
        _print_store(open_count_store(path))


def _print_store(store: CountStore) -> None:
    """Print what a count store holds."""
    obs = store.obs()
    size = store.n_cells * store.n_genes
    facts = {
        "cells": f"{store.n_cells:,}",
        "genes": f"{store.n_genes:,}",
        "entries": f"{store.n_entries:,} ({store.n_entries / max(size, 1):.2%} of the matrix)",
        "counts": f"{store.total_count:,} in all, at most {store.largest_count:,} in one entry ({store.dtype})",
        "cell table": ", ".join(_column(name, obs[name]) for name in obs.columns) or "names only",
    }
    provenance = zarr.open_group(zarr_store(as_path(store.path)), mode="r").attrs.get(METADATA_KEY, {})
    if isinstance(provenance, dict):
        facts |= _provenance(provenance.get("provenance", {}))
    print_facts(f"Count store {store.path}", facts)


def _column(name: str, column: Any) -> str:
    """Describe a column of the cell table."""
    if column.dtype.kind in "iuf":
        return f"{name} ({column.dtype})"
    labels = column.dropna().unique()
    return f"{name} ({len(labels):,} labels: {listing(labels, shown=3)})"


def _provenance(provenance: dict[str, Any]) -> dict[str, str]:
    """Describe where a store came from."""
    if not provenance:
        return {}
    inputs = ", ".join(f"{item['path']} ({amount(item['bytes'])})" for item in provenance["inputs"])
    return {"made from": inputs, "made": f"{provenance['created']} by version {provenance['normalisr_dask']}"}


def _print_run(path: str, manifest: Manifest) -> None:
    """Print which stages of a run are done, and what made them."""
    content = manifest.content
    settings = content["settings"]
    asked = {
        "qc": True,
        "normalisation": True,
        "de": settings["groupings"] is not None or settings["groupby"] is not None,
        "calibration": bool(settings.get("permutations")),
        "coex": settings["coex"] and settings["coex_store"] == "all",
        "edges": settings["coex"],
    }
    asked |= _stages_of_levels(settings, manifest)
    stages = {
        stage: _stage(manifest.stage(stage)) if manifest.is_done(stage) else "not done yet"
        for stage, is_asked in asked.items()
        if is_asked or manifest.is_done(stage)
    }
    print_facts(f"Run in {path}", stages)
    print_facts(
        "Settings of the last call",
        {name: str(value) for name, value in settings.items() if value not in (None, [], "")},
    )
    print_facts("Versions", content["versions"])


def _stages_of_levels(settings: dict[str, Any], manifest: Manifest) -> dict[str, bool]:
    """Return the stages of the levels of gene sets, and whether they are asked for."""
    asked = {}
    for level in range(settings.get("go_levels", 0) + 1 if settings.get("go") else 0):
        gene_set = stage_of_level("go", level)
        if level:
            asked[stage_of_level("coex", level)] = settings["coex_store"] == "all"
            asked[stage_of_level("edges", level)] = True
        asked[gene_set] = True
        if manifest.is_done(gene_set) and manifest.stage(gene_set)["term"] is None:
            break  # there is nothing more to remove
    return asked | {stage: False for stage in manifest.stages() if is_of_level(stage) and stage not in asked}


def _stage(details: dict[str, Any]) -> str:
    """Describe a stage that is done."""
    return f"{details['note']}; {duration(details['seconds'])}, up to {amount(details['peak_worker_bytes'])} a worker"
