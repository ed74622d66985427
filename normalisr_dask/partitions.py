"""Writing stages in partitions: what an interrupted run has written already is not computed again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from importlib.metadata import version
from itertools import cycle
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr
from dask.core import flatten
from dask.optimization import cull
from distributed import default_client
from numpy.typing import NDArray

from normalisr_dask.graph.calls import NO_SUMS
from normalisr_dask.planning import RunPlan
from normalisr_dask.process_memory import release_freed
from normalisr_dask.storage.locations import for_tasks, stored_chunks


def made_with(plan: RunPlan, **further: Any) -> dict[str, Any]:
    """Return what decides on the last bits of a stage's values, beside the settings and inputs of the run."""
    return {"version": version("normalisr-dask"), "cells_per_block": plan.cells_per_block, **further}


#: Is told which share of a stage an interrupted run has left.
Standing = Callable[[float], None]


def tell_nobody(share: float) -> None:
    """Take a share and do nothing."""


def store(
    arrays: Mapping[str, zarr.Array],
    lazy: Mapping[str, da.Array],
    *,
    rows_at_a_time: int | None = None,
    standing: Standing = tell_nobody,
) -> None:
    """Compute lazy arrays and write them into the chunks of their targets, but for those that stand there.

    Parameters
    ----------
    arrays
        Targets by name.
    lazy
        Sources by name.
    rows_at_a_time
        Rows that are computed in one submission to the scheduler, a multiple of the targets' chunks; None for all.
    standing
        Is told the share of chunks that stand.
    """
    targets = [arrays[name] for name in lazy]
    missing = [~stored_chunks(target) for target in targets]
    standing(1 - sum(mask.sum() for mask in missing) / max(1, sum(mask.size for mask in missing)))
    n_rows = targets[0].shape[0]
    for start in range(0, n_rows, rows_at_a_time or n_rows):
        rows = range(start, min(start + (rows_at_a_time or n_rows), n_rows))
        parts = [
            (part, for_tasks(target), region)
            for source, target, mask in zip(lazy.values(), targets, missing, strict=True)
            for part, region in _missing_parts(source, target.chunks, mask, rows)
        ]
        if parts:
            of_sources, of_targets, regions = (list(column) for column in zip(*parts, strict=True))
            stored = da.store(of_sources, of_targets, regions=regions, lock=False, compute=False)
            compute_alone(*(stored if isinstance(stored, tuple) else (stored,)))


def compute_alone(*parts: Any) -> tuple[Any, ...]:
    """Compute parts of larger collections and nothing else, each task by itself.

    Dask's own culling goes by layers and now and then, as the order of its sets has it, leaves the tasks of other
    parts, too: work for nothing, and tasks of the same names as those of the next submission. Its fusion would make one
    task of all that a sum goes through from link to link, which then holds the slices of all cells at once.
    """
    computed = _computed_alone(parts)
    release_freed()
    return computed


def _computed_alone(parts: Sequence[Any]) -> tuple[Any, ...]:
    """Do what :func:`compute_alone` says; the graph is gone at the end."""
    with dask.config.set({"optimization.fuse.active": False}):
        optimised = dask.optimize(*_with_layers_of_their_own(parts))
    keys = [key for part in optimised for key in flatten(part.__dask_keys__())]
    graph, _ = cull({key: task for part in optimised for key, task in dict(part.__dask_graph__()).items()}, keys)
    chains = WorkersOfChains(graph)
    told = {"workers": chains, "allow_other_workers": True} if chains.workers else {}
    with dask.annotate(**told):
        computed: tuple[Any, ...] = dask.compute(*_on_graph(optimised, graph), optimize_graph=False)
    return computed


class WorkersOfChains:
    """Tells Dask on which worker each chain of sums is to begin, one after the other; elsewhere if that one is gone.

    A chain stays where its sums are. Dask would begin it where small arrays lie that its links need: all of those that
    are computed together on one worker, now and then, which then also holds the sums of all.
    """

    def __init__(self, graph: Iterable[Any]) -> None:
        chains = sorted(key for key in graph if isinstance(key, tuple) and str(key[0]).startswith(NO_SUMS))
        workers = sorted(_current_workers()) if len(chains) > 1 else []
        self.workers = dict(zip(chains, cycle(workers), strict=False))

    def __call__(self, key: Any) -> list[str]:
        """Return the worker of a task, if it begins a chain."""
        return [self.workers[key]] if key in self.workers else []


def _current_workers() -> list[str]:
    """Return the workers of the client that Dask computes with, if there is one."""
    try:
        client = default_client()
    except ValueError:
        return []
    return list(client.scheduler_info(n_workers=-1)["workers"])


def _with_layers_of_their_own(parts: Sequence[Any]) -> list[Any]:
    """Return collections on one graph, with copies of the layers of theirs.

    Layers keep the tasks that are made of them, and with these, slices of cells: in the lazy results that all
    submissions are parts of, they would stay until the last one.
    """
    graphs = [part.__dask_graph__() for part in parts]
    graph = type(graphs[0]).merge(*graphs)
    graph = type(graph)({name: copy(layer) for name, layer in graph.layers.items()}, graph.dependencies)
    return _on_graph(parts, graph)


def _on_graph(parts: Sequence[Any], graph: Any) -> list[Any]:
    """Return collections with another graph in place of theirs."""
    rebuilt = []
    for part in parts:
        rebuild, arguments = part.__dask_postpersist__()
        rebuilt.append(rebuild(graph, *arguments))
    return rebuilt


def _missing_parts(
    source: da.Array, chunks: tuple[int, ...], missing: NDArray[np.bool_], rows: range
) -> Iterator[tuple[da.Array, tuple[slice, ...]]]:
    """Yield the parts of some rows of an array that are missing, each with its place: all together, or each chunk."""
    in_chunks = source.rechunk(chunks)
    edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in in_chunks.chunks]
    first, last = np.searchsorted(edges[0], [rows.start, rows.stop])
    if missing[first:last].all():
        holds_whole_chunks = all(
            np.isin(np.cumsum(sizes), ends).all() for sizes, ends in zip(source.chunks, edges, strict=True)
        )
        yield (source if holds_whole_chunks else in_chunks)[rows.start : rows.stop], (slice(rows.start, rows.stop),)
        return
    for row, *others in np.argwhere(missing[first:last]).tolist():
        index = (first + row, *others)
        region = tuple(slice(int(edge[at]), int(edge[at + 1])) for edge, at in zip(edges, index, strict=True))
        yield in_chunks.blocks[index], region
