"""The demonstration: a simulated screen with known truth, taken through ingest and the whole pipeline."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from distributed import Client

from normalisr_dask.pipeline import HIT_QVALUE, run
from normalisr_dask.progress import RunProgress, Silent
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.ingest import ingest
from normalisr_dask.storage.locations import is_local
from normalisr_dask.storage.result_tables import DE_TABLE, EDGE_TABLE
from normalisr_dask.summary import RunSummary
from normalisr_dask.testing import SimulatedScreen, simulate_screen, write_cell_ranger_folder

INPUT, COUNTS, RESULTS, CELL_TABLE, MARK = "input", "counts.zarr", "results", "cells.tsv", "demo.json"
NO_GUIDE = "none"


@dataclass(frozen=True)
class DemoSummary(RunSummary):
    """What the demonstration has found of what was planted.

    Attributes
    ----------
    effects_planted, effects_found
        Effects of guides on genes: all, and those with Q ≤ 0.05.
    effects_false
        Hits that were not planted.
    module_pairs_planted, module_pairs_found
        Gene → partner pairs within modules (a pair counts from either side): all, and those that are edges.
    module_pairs_false
        Edges between genes that share neither a module nor a guide.
    """

    effects_planted: int
    effects_found: int
    effects_false: int
    module_pairs_planted: int
    module_pairs_found: int
    module_pairs_false: int


def demo(
    output: str,
    client: Client,
    *,
    progress: RunProgress | None = None,
    seed: int = 0,
    n_genes: int = 2400,
    n_cells: int = 8000,
) -> DemoSummary:
    """Simulate a low-MOI CRISPR screen, write it as .mtx.gz, ingest it, run everything, and compare with the truth.

    Parameters
    ----------
    output
        Folder to write: the simulated files, the count store, and the results.
    client
        Of the cluster to compute on.
    progress
        Who is told how it goes.
    seed
        Of the simulation.
    n_genes, n_cells
        Size of the simulated screen.

    Returns
    -------
    DemoSummary

    Raises
    ------
    ValueError
        If the folder holds something else than this demonstration, or is at a URL.
    """
    progress = progress or Silent()
    start = time.perf_counter()
    if not is_local(output):
        msg = f"the demonstration writes to a folder of this machine, not to {output}; see ingest and run for URLs"
        raise ValueError(msg)
    folder = Path(output)
    _claim(folder, {"seed": seed, "n_genes": n_genes, "n_cells": n_cells})
    progress.stage_started("simulation", "Simulation", 1)
    screen = simulate_screen(n_genes, n_cells, seed=seed)
    simulated = time.perf_counter() - start
    progress.stage_finished("simulation", simulated, resumed=False, note=f"{n_genes:,} genes, {n_cells:,} cells")
    progress.stage_started("ingest", "Ingest", 1)
    resumed = (folder / COUNTS).exists()
    if not resumed:
        _write_inputs(folder, screen)
        ingest([folder / INPUT], folder / COUNTS, obs=folder / INPUT / CELL_TABLE)
    progress.stage_finished(
        "ingest", time.perf_counter() - start - simulated, resumed=resumed, note=f"{screen.counts.nnz:,} entries"
    )
    settings = RunSettings(
        store=str(folder / COUNTS),
        output=str(folder / RESULTS),
        groupby="guide",
        reference=NO_GUIDE,
        permutations=1,
        coex=True,
    )
    summary = run(settings, client, progress=progress)
    known: dict[str, Any] = {field.name: getattr(summary, field.name) for field in fields(summary)}
    return DemoSummary(**known | {"seconds": time.perf_counter() - start} | _compare(folder / RESULTS, screen))


def _claim(folder: Path, parameters: dict[str, int]) -> None:
    """Refuse a folder that holds anything but this demonstration, and mark it as ours."""
    mark = folder / MARK
    if mark.is_file():
        if json.loads(mark.read_text(encoding="utf-8")) != parameters:
            msg = f"{folder} holds a demonstration with other parameters; choose another folder, or remove this one"
            raise ValueError(msg)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder} exists and holds no demonstration; choose another folder"
        raise ValueError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(parameters), encoding="utf-8")


def _write_inputs(folder: Path, screen: SimulatedScreen) -> None:
    """Write what a sequencing run would give: a Cell Ranger folder, and a table of every cell's guide."""
    write_cell_ranger_folder(folder / INPUT, screen.counts, screen.gene_names, screen.cell_names)
    guide, cell = screen.groupings.tocoo().coords
    names = np.full(len(screen.cell_names), NO_GUIDE, dtype=object)
    names[cell] = np.array(screen.grouping_names, dtype=object)[guide]
    table = pd.Series(names, index=pd.Index(screen.cell_names, name="cell"), name="guide")
    table.to_csv(folder / INPUT / CELL_TABLE, sep="\t")


def _compare(results: Path, screen: SimulatedScreen) -> dict[str, int]:
    """Count what was found of the truth, and what was found beside it."""
    table = pq.read_table(results / DE_TABLE, columns=["grouping", "gene", "qvalue"])
    hits = _pairs(table.filter(pc.field("qvalue") <= HIT_QVALUE), "grouping", "gene")
    effects = set(screen.effects[["grouping", "gene"]].itertuples(index=False, name=None))
    edges = _pairs(pq.read_table(results / EDGE_TABLE, columns=["gene", "gene_2"]), "gene", "gene_2")
    planted = _both_ways(screen.module_pairs())
    # Genes that one guide changes vary together, too, as they should: neither found nor false.
    perturbed = _both_ways(screen.perturbed_pairs())
    return {
        "effects_planted": len(effects),
        "effects_found": len(hits & effects),
        "effects_false": len(hits - effects),
        "module_pairs_planted": len(planted),
        "module_pairs_found": len(edges & planted),
        "module_pairs_false": len(edges - planted - perturbed),
    }


def _pairs(table, *columns: str) -> set[tuple[str, ...]]:
    return set(zip(*(table[column].to_pylist() for column in columns), strict=True))


def _both_ways(pairs: pd.DataFrame) -> set[tuple[str, ...]]:
    rows: Iterable[tuple[str, str]] = pairs.itertuples(index=False, name=None)
    return {pair for first, second in rows for pair in ((first, second), (second, first))}
