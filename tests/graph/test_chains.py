"""Sums too large to wait for each other are added to one after the other: the same bits, however shared out."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask.callbacks import Callback
from dask.core import get_dependencies
from distributed import get_task_stream

from normalisr_dask import partitions
from normalisr_dask.graph import calls
from normalisr_dask.graph.layout import sum_over_cells
from normalisr_dask.graph.passes import BlockReader, with_reader
from normalisr_dask.graph.products import product_over_cells
from normalisr_dask.graph.vectors import in_memory, in_one_chunk
from normalisr_dask.partitions import WorkersOfChains, compute_alone

N_GENES, N_ROWS = 5, 6
VALUES = np.random.default_rng(0).normal(size=(N_GENES, 103))
ROWS = np.random.default_rng(1).normal(size=(N_ROWS, 103))


@pytest.fixture(autouse=True)
def _small_sums_are_chained(monkeypatch):
    monkeypatch.setattr(calls, "CHAINED_SUM_BYTES", 1)


def matrix(size=4):
    """An array whose blocks are read by the tasks that use them."""

    def read(cells, genes):
        return VALUES[np.ix_(genes, cells)]

    cells = in_memory(np.arange(VALUES.shape[1]), da.core.normalize_chunks(size, (VALUES.shape[1],))[0])
    reader = BlockReader(read, cells, in_one_chunk(np.arange(N_GENES)))
    lazy = da.from_array(VALUES, chunks=(-1, size))
    return with_reader(lazy, reader)


def squares(block, *, factor, sums=None):
    """Add up entry by entry, in place."""
    sums = np.zeros((len(block), 2)) if sums is None else sums
    for cell in range(block.shape[1]):
        sums[:, 0] += factor[cell] * block[:, cell] ** 2
        sums[:, 1] += 1
    return sums


def products(block, rows, *, sums=None):
    """Add up cell by cell, in place."""
    sums = np.zeros((len(rows), len(block))) if sums is None else sums
    for cell in range(block.shape[1]):
        sums += np.outer(rows[:, cell], block[:, cell])
    return sums


def test_a_chain_gives_the_sum():
    factor = da.arange(103, chunks=4)
    lazy = sum_over_cells(squares, matrix(), width=2, by_cell={"factor": factor}, chained_width=2)
    np.testing.assert_allclose(lazy.compute()[:, 0], (VALUES**2 * np.arange(103)).sum(axis=1), rtol=1e-13)
    assert (lazy.compute()[:, 1] == 103).all()


@pytest.mark.parametrize("rows_per_block", [1, 2, 5, 6])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_blocks_of_rows_change_no_bit(rows_per_block, scheduler):
    lazy = product_over_cells(products, da.from_array(ROWS, chunks=(rows_per_block, 4)), matrix(), adds=True)
    whole = products(VALUES, ROWS)
    assert (lazy.compute(scheduler=scheduler) == whole).all()
    np.testing.assert_allclose(whole, ROWS @ VALUES.T, rtol=1e-12, atol=1e-12)


def test_blocks_of_cells_change_no_bit():
    results = [product_over_cells(products, da.from_array(ROWS), matrix(size), adds=True).compute() for size in (1, 7)]
    assert (results[0] == results[1]).all()


def test_a_link_waits_for_one_sum_alone_and_their_number_is_bounded():
    lazy = product_over_cells(products, da.from_array(ROWS, chunks=(3, 1)), matrix(1), adds=True)
    graph = dict(lazy.__dask_graph__())
    links = [key for key in graph if "products" in str(key)]
    assert len(links) <= 2 * calls.MOST_LINKS
    for key in links:
        assert sum("products" in str(other) for other in get_dependencies(graph, key)) <= 1


def test_links_of_a_run_stay_tasks_of_their_own_that_hold_their_own_cells():
    factor = in_one_chunk(np.arange(103.0))
    lazy = sum_over_cells(squares, matrix(), width=2, by_cell={"factor": factor}, chained_width=2)
    links = {key for key in dict(lazy.__dask_graph__()) if "squares" in str(key)}
    done = set()
    with dask.config.set(scheduler="sync"), Callback(posttask=lambda key, *_: done.add(key)):
        (computed,) = compute_alone(lazy)
    assert len(links) > 1
    assert links <= done
    np.testing.assert_allclose(computed[:, 0], (VALUES**2 * np.arange(103)).sum(axis=1), rtol=1e-13)


def two_chains():
    rows = da.from_array(ROWS, chunks=(3, 4))
    return product_over_cells(products, rows, matrix(), adds=True)


def test_chains_that_are_computed_together_begin_on_workers_of_their_own(client):
    """Where small arrays lie that all links need, Dask by itself would begin all of them."""
    (computed,) = compute_alone(two_chains())
    np.testing.assert_allclose(computed, ROWS @ VALUES.T, rtol=1e-12, atol=1e-12)
    graph = dict(two_chains().__dask_graph__())
    workers = WorkersOfChains(graph)
    told = {key: workers(key) for key in graph if workers(key)}
    assert sorted(str(key[0]).partition("-")[0] for key in told) == ["no", "no"]
    assert sorted(told.values()) == sorted([address] for address in client.nthreads())


def test_chains_begin_where_they_are_told_to(client, monkeypatch):
    (worker,) = sorted(client.nthreads())[1:]
    monkeypatch.setattr(partitions, "_current_workers", lambda: [worker])
    with get_task_stream(client) as stream:
        compute_alone(two_chains())
    assert [task["worker"] for task in stream.data if "no-sums" in str(task["key"])] == [worker, worker]


def test_without_a_cluster_chains_begin_anywhere():
    graph = dict(two_chains().__dask_graph__())
    assert not any(map(WorkersOfChains(graph), graph))


def test_a_sum_that_another_task_may_need_stays_as_it_was():
    lazy = product_over_cells(products, da.from_array(ROWS), matrix(), adds=True)
    first, again = lazy.compute(), lazy.compute()
    assert (first == again).all()
