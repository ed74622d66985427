"""The stages of a run that test gene pairs: co-expression of all, and the network of those that are significant."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da

from normalisr_dask.partitions import Standing, made_with, store, tell_nobody
from normalisr_dask.planning import RunPlan
from normalisr_dask.schema import stage_of_level
from normalisr_dask.steps.coexpression import coex
from normalisr_dask.steps.network import edge_panels
from normalisr_dask.storage.counts import Counts
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.storage.result_tables import (
    panels_without_edges,
    save_edges,
    save_stored_edges,
    saved_edges,
    write_edges,
)
from normalisr_dask.stored_expression import expression_of_level


def store_gene_pairs(
    results: ResultStore, counts: Counts, plan: RunPlan, *, level: int = 0, standing: Standing = tell_nobody
) -> int:
    """Fill the stage ``coex``: P-value and mean product of all gene pairs, tile by tile.

    Parameters
    ----------
    results
        Of a run whose stage ``normalisation`` is stored.
    counts
        Of the whole count store.
    plan
        Of the run.
    level
        Number of gene sets removed before; the stage is named after it, as is the table of edges.
    standing
        Is told the share of it that an interrupted run has left.

    Returns
    -------
    int
        Number of gene pairs.
    """
    stage = stage_of_level("coex", level)
    expression, covariates = expression_of_level(results, counts, level)
    tiles = plan.tiles(*expression.shape)
    tested = coex(expression, covariates, plan=tiles)
    genes = results.read("normalisation", "gene")
    arrays = results.begin(
        stage,
        {"gene": genes, "gene_2": genes},
        {"gene": tiles.side, "gene_2": tiles.side},
        made_with=made_with(plan, gene_sets=_gene_sets(results, level)),
    )
    store(arrays, {name: getattr(tested, name) for name in arrays}, standing=standing)
    results.publish(stage)
    return genes.size * (genes.size - 1) // 2


def store_network(
    results: ResultStore,
    counts: Counts,
    plan: RunPlan,
    qcut: float,
    *,
    level: int = 0,
    standing: Standing = tell_nobody,
) -> int:
    """Write the table of edges and fill the stage ``edges``: from stored P-values if there are any, or without them.

    Parameters
    ----------
    results, counts, plan, level, standing
        As for :func:`store_gene_pairs`.
    qcut
        Largest Q-value of an edge.

    Returns
    -------
    int
        Number of edges.
    """
    genes = results.read("normalisation", "gene")
    stored = stage_of_level("coex", level)
    is_stored = results.has(stored)
    rows = plan.rows_of_edges(genes.size) if is_stored else plan.tiles(*_shape(results)).side
    asked = made_with(plan, qcut=qcut, stored=is_stored, rows=rows, gene_sets=_gene_sets(results, level))
    folder = results.work_folder(stage_of_level("edges", level), asked)
    if is_stored:
        tasks = _stored_panels(results, stored, genes.size, rows, qcut, folder)
    else:
        tasks = _panels(*expression_of_level(results, counts, level), plan, qcut, folder)
    missing = [tasks[number] for number in panels_without_edges(folder, len(tasks))]
    standing(1 - len(missing) / len(tasks))
    dask.compute(*missing)
    degree = write_edges(results, genes, saved_edges(folder, len(tasks)), level=level)
    results.write(stage_of_level("edges", level), {"gene": genes}, {"degree": degree})
    return int(degree.sum())


def _gene_sets(results: ResultStore, level: int) -> str:
    """Return a digest of the components of gene sets that are covariates of a level."""
    components = (results.read(stage_of_level("go", before), "component") for before in range(level))
    return hashlib.sha256(b"".join(component.tobytes() for component in components)).hexdigest()


def _shape(results: ResultStore) -> tuple[int, int]:
    """Return the numbers of genes and cells that are left."""
    n_genes, n_cells = (results.stored("normalisation", name).size for name in ("gene", "cell"))
    return n_genes, n_cells


def _stored_panels(results: ResultStore, stage: str, n_genes: int, height: int, qcut: float, folder: Path) -> list[Any]:
    """Return tasks that write the edges of stored P-values, each a file of some rows."""
    save_of_run = partial(save_stored_edges, path=str(results.path), stage=stage, qcut=qcut, folder=str(folder))
    save = dask.delayed(save_of_run, pure=True)
    starts = range(0, n_genes, height)
    return [save(number, start, min(start + height, n_genes)) for number, start in enumerate(starts)]


def _panels(expression: da.Array, covariates: da.Array, plan: RunPlan, qcut: float, folder: Path) -> list[Any]:
    """Return tasks that write the edges of rows of tiles, made of expression; no worker holds them."""
    tiles = plan.tiles(*expression.shape)
    save = partial(save_edges, folder=str(folder))
    return edge_panels(expression, covariates, qcut, plan=tiles, collect=save)
