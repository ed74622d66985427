"""The stages of a run that test gene pairs: co-expression of all, and the network of those that are significant."""

from collections.abc import Iterator
from functools import partial

import dask
import dask.array as da
import pyarrow as pa

from normalisr_dask.planning import RunPlan
from normalisr_dask.steps.coexpression import coex
from normalisr_dask.steps.network import edge_panels
from normalisr_dask.storage.counts import Counts
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.storage.result_tables import edges_of_rows, save_edges, saved_edges, write_edges
from normalisr_dask.stored_expression import stored_expression


def store_gene_pairs(results: ResultStore, counts: Counts, plan: RunPlan) -> int:
    """Fill the stage ``coex``: P-value and mean product of all gene pairs, tile by tile.

    Parameters
    ----------
    results
        Of a run whose stage ``normalisation`` is stored.
    counts
        Of the whole count store.
    plan
        Of the run.

    Returns
    -------
    int
        Number of gene pairs.
    """
    expression, covariates, _ = stored_expression(results, counts)
    tiles = plan.tiles(*expression.shape)
    tested = coex(expression, covariates, plan=tiles)
    genes = results.read("normalisation", "gene")
    arrays = results.begin("coex", {"gene": genes, "gene_2": genes}, {"gene": tiles.side, "gene_2": tiles.side})
    targets = list(arrays.values())
    sources = [getattr(tested, name).rechunk(target.chunks) for name, target in arrays.items()]
    dask.compute(da.store(sources, targets, lock=False, compute=False))
    results.publish("coex")
    return genes.size * (genes.size - 1) // 2


def store_network(results: ResultStore, counts: Counts, plan: RunPlan, qcut: float) -> int:
    """Write the table of edges and fill the stage ``edges``: from stored P-values if there are any, or without them.

    Parameters
    ----------
    results, counts, plan
        As for :func:`store_gene_pairs`.
    qcut
        Largest Q-value of an edge.

    Returns
    -------
    int
        Number of edges.
    """
    genes = results.read("normalisation", "gene")
    if results.has("coex"):
        batches = _edges_of_stored(results, genes.size, plan, qcut)
    else:
        batches = _edges_of_expression(results, counts, plan, qcut)
    degree = write_edges(results, genes, batches)
    results.write("edges", {"gene": genes}, {"degree": degree})
    return int(degree.sum())


def _edges_of_stored(results: ResultStore, n_genes: int, plan: RunPlan, qcut: float) -> Iterator[pa.RecordBatch]:
    """Yield the edges of stored P-values, some tasks at a time."""
    height = plan.rows_of_edges(n_genes)
    find = dask.delayed(edges_of_rows, pure=True)
    tasks = [find(str(results.path), start, min(start + height, n_genes), qcut) for start in range(0, n_genes, height)]
    at_a_time = 4 * plan.workers * plan.threads_per_worker
    for start in range(0, len(tasks), at_a_time):
        yield from dask.compute(*tasks[start : start + at_a_time])


def _edges_of_expression(results: ResultStore, counts: Counts, plan: RunPlan, qcut: float) -> Iterator[pa.RecordBatch]:
    """Yield the edges panel by panel; the tasks have written them to files, so that no worker holds them."""
    expression, covariates, _ = stored_expression(results, counts)
    folder = results.work_folder("edge-panels")
    panels = edge_panels(
        expression,
        covariates,
        qcut,
        plan=plan.tiles(*expression.shape),
        collect=partial(save_edges, folder=str(folder)),
    )
    dask.compute(*panels)
    yield from saved_edges(folder, len(panels))
    folder.rmdir()
