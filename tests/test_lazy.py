"""Building the graph of a step computes nothing and reads no matrix; what must compute, computes once a round.

Reads are those of a real count store on disk; its metadata may be read.
"""

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.callbacks import Callback
from dask.utils import key_split
from layouts import laid_out

import normalisr_dask as nd
from normalisr_dask.storage.counts import Counts
from normalisr_dask.testing import count_computes, count_reads, raise_if_computes

N_GENES, N_CELLS = 90, 110  # of the fixture counts
CELLS_PER_BLOCK = 16
BOUNDS = (20, 5, 0.1, 50, 10, 0.1)


class Inputs:
    """What the steps take, all of it lazy and chunked as the counts."""

    def __init__(self, counts: Counts) -> None:
        cell_chunks = (counts.chunks,)
        random = np.random.default_rng(2)
        self.counts = counts.matrix
        self.weights = da.from_array(random.uniform(1, 3, N_CELLS), chunks=cell_chunks)
        self.scaling = da.from_array(random.uniform(0, 1, N_GENES), chunks=-1)
        covariates = np.vstack([random.normal(size=(2, N_CELLS)), np.ones(N_CELLS)])
        self.covariates = da.from_array(covariates, chunks=(3, *cell_chunks))
        self.groupings = da.from_array((random.random((4, N_CELLS)) < 0.3).astype(np.int8), chunks=(2, *cell_chunks))
        self.log_cpm = nd.lcpm(self.counts).lcpm
        self.expression = nd.normvar(self.log_cpm, self.covariates, self.weights, self.scaling).dtn


@pytest.fixture
def inputs(count_store: Path) -> Inputs:
    return Inputs(nd.open_counts(count_store, cells_per_block=CELLS_PER_BLOCK))


LAZY_STEPS = {
    "lcpm": lambda data: nd.lcpm(data.counts),
    "lcpm, drawn": lambda data: nd.lcpm(data.counts, varscale=1, seed=1),
    "lcpm, not normalised": lambda data: nd.lcpm(data.counts, normalize=False),
    "scaling_factor": lambda data: nd.scaling_factor(data.counts),
    "scaling_factor, mean share": lambda data: nd.scaling_factor(data.counts, "logtmeanprop", "min"),
    "normcov": lambda data: nd.normcov(nd.lcpm(data.counts).cov),
    "compute_var, implicit": lambda data: nd.compute_var(data.log_cpm, data.covariates),
    "compute_var, dense": lambda data: nd.compute_var(data.log_cpm[1:], data.covariates),
    "normvar, implicit": lambda data: nd.normvar(
        data.log_cpm, data.covariates, data.weights, data.scaling, dextra=data.groupings
    ),
    "normvar, dense": lambda data: nd.normvar(
        data.log_cpm[1:], data.covariates, data.weights, data.scaling[1:], normmean=True
    ),
    "de, implicit": lambda data: nd.de(data.groupings, data.expression, data.covariates, lowmem=False),
    "de, dense": lambda data: nd.de(data.groupings, data.expression[1:], data.covariates, lowmem=False),
    "de of groupings alone, implicit": lambda data: nd.de(
        data.groupings, data.expression, data.covariates, single=1, lowmem=False
    ),
    "de of groupings alone, dense": lambda data: nd.de(
        data.groupings, data.expression[1:], data.covariates, single=1, lowmem=False
    ),
    "de of all groupings jointly, implicit": lambda data: nd.de(
        data.groupings, data.expression, data.covariates, single=4, lowmem=False
    ),
    "de of all groupings jointly, dense": lambda data: nd.de(
        data.groupings, data.expression[1:], data.covariates, single=4, lowmem=False
    ),
    "de with principal components": lambda data: nd.de(
        data.groupings, data.expression, data.covariates, single=4, mpc=3, lowmem=False
    ),
    "coex, implicit": lambda data: nd.coex(data.expression, data.covariates, bs=40),
    "coex, float32": lambda data: nd.coex(data.expression, data.covariates, bs=40, dtype="float32"),
    "coex, dense": lambda data: nd.coex(data.expression[1:], data.covariates, bs=40),
    "pccovt, implicit": lambda data: nd.pccovt(data.expression, data.covariates, range(N_GENES), range(20)),
    "pccovt, dense": lambda data: nd.pccovt(data.expression[1:], data.covariates, range(1, N_GENES), range(1, 20)),
}

# Whose results are not dense float64 with dimensions.
OTHER_LAZY_STEPS = {
    "assign_guides": lambda data: nd.assign_guides(data.counts, moi="high"),
    "inflation": lambda data: nd.inflation(nd.de(data.groupings, data.expression, data.covariates).pvalue),
    "qq": lambda data: nd.qq(nd.de(data.groupings, data.expression, data.covariates).pvalue),
}


def lazy_arrays(result: Any) -> list[da.Array]:
    """Return every array of a step's result."""
    fields = result if isinstance(result, tuple) else vars(result).values() if hasattr(result, "pvalue") else [result]
    return [field for field in fields if field is not None]


@pytest.mark.parametrize("name", [*LAZY_STEPS, *OTHER_LAZY_STEPS])
def test_building_computes_nothing_and_reads_nothing(name: str, inputs: Inputs, count_store: Path):
    with raise_if_computes(), count_reads(count_store) as reads:
        arrays = lazy_arrays((LAZY_STEPS | OTHER_LAZY_STEPS)[name](inputs))
    assert sum(reads.data().values()) == 0
    assert arrays
    assert all(isinstance(array, da.Array) for array in arrays)


@pytest.mark.parametrize("name", LAZY_STEPS)
def test_what_is_computed_is_what_was_promised(name: str, inputs: Inputs, count_store: Path):
    """Shape, dtype and chunks of every block are those that the graph was built with; and now the store is read."""
    arrays = lazy_arrays(LAZY_STEPS[name](inputs))
    with count_reads(count_store) as reads:
        blocks = dask.compute(*[list(array.to_delayed().ravel()) for array in arrays])
    assert sum(reads.data().values()) > 0
    for array, parts in zip(arrays, blocks, strict=True):
        assert type(array._meta) is np.ndarray
        sizes = [
            tuple(sizes) for sizes in np.array(np.meshgrid(*array.chunks, indexing="ij")).reshape(array.ndim, -1).T
        ]
        for part, size in zip(parts, sizes, strict=True):
            assert type(part) is np.ndarray
            assert part.shape == size
            assert part.dtype == array.dtype == np.float64


def test_opening_counts_reads_no_counts(count_store: Path):
    with raise_if_computes(), count_reads(count_store) as reads:
        counts = nd.open_counts(count_store)
        assert counts.matrix.shape == (N_GENES, N_CELLS)
        assert counts.subset(genes=np.arange(3), cells=np.arange(5)).matrix.shape == (3, 5)
    # The number of entries, which decides on the size of blocks, is the last of the row offsets.
    assert set(reads.data()) <= {"X/indptr/c/0"}


def test_building_reads_no_zarr_array(tmp_path: Path, counts: np.ndarray):
    stored = {}
    random = np.random.default_rng(0)
    for name, values in {
        "counts": counts,
        "expression": random.normal(size=(N_GENES, N_CELLS)),
        "covariates": np.vstack([random.normal(size=N_CELLS), np.ones(N_CELLS)]),
        "groupings": (random.random((3, N_CELLS)) < 0.4).astype(np.int8),
        "weights": random.uniform(1, 2, N_CELLS),
        "scaling": random.uniform(0, 1, N_GENES),
    }.items():
        stored[name] = zarr.create_array(
            tmp_path / name, shape=values.shape, dtype=values.dtype, chunks=(9,) * values.ndim
        )
        stored[name][...] = values
    with raise_if_computes(), count_reads(tmp_path) as reads:
        results = [
            *nd.lcpm(stored["counts"]),
            nd.scaling_factor(stored["counts"]),
            nd.normcov(stored["groupings"]),
            nd.compute_var(stored["expression"], stored["covariates"]),
            *nd.normvar(
                stored["expression"], stored["covariates"], stored["weights"], stored["scaling"], stored["groupings"]
            ),
            nd.de(stored["groupings"], stored["expression"], stored["covariates"]).pvalue,
            *nd.coex(stored["expression"], stored["covariates"]),
        ]
    assert sum(reads.data().values()) == 0
    assert all(np.isfinite(values).all() for values in dask.compute(*results))


class TestDocumentedExceptions:
    def test_qc_reads_computes_once_a_round(self, inputs: Inputs):
        with count_computes() as counter:
            nd.qc_reads(inputs.counts, 0, 0, 0, 0, 0, 0)
        assert counter.computes == 1
        with count_computes() as counter:
            nd.qc_reads(inputs.counts, *BOUNDS)
        assert 1 <= counter.computes < 8

    def test_qc_outlier_computes_its_weights_once(self, inputs: Inputs):
        with count_computes() as counter:
            nd.qc_outlier(inputs.weights)
        assert counter.computes == 1

    def test_compute_var_with_rounds_computes_once_a_round(self, inputs: Inputs):
        with count_computes() as counter:
            nd.compute_var(inputs.log_cpm, inputs.covariates, stepmax=3, eps=1e-12)
        assert counter.computes == 3

    def test_they_bring_back_vectors_only(self, inputs: Inputs):
        """Nothing as large as a block of the matrix leaves the tasks."""
        sizes: list[int] = []

        def scheduler(graph: Any, keys: Any, **options: Any) -> Any:
            results = dask.get(graph, keys, **options)
            sizes.extend(np.asarray(part).size for part in flat(results))
            return results

        def flat(nested: Any):
            for part in nested:
                yield from flat(part) if isinstance(part, list | tuple) else [part]

        with dask.config.set(scheduler=scheduler):
            nd.qc_reads(inputs.counts, *BOUNDS)
            nd.compute_var(inputs.log_cpm, inputs.covariates, stepmax=2)
        assert 0 < max(sizes) <= 3 * max(N_GENES, N_CELLS) < N_GENES * CELLS_PER_BLOCK


# Kernels that make a dense genes × cells block of counts.
DENSE_KERNELS = {"dense_normalised", "mean_log_cpm", "log_cpm", "variance_log_cpm", "normalised"}


def kernels_of(*arrays: da.Array) -> set[str]:
    """Return names of the tasks of the arrays' graphs, as they were built, without hashes."""
    return {key_split(key) for array in arrays for key in dict(array.__dask_graph__())}


class TestTheImplicitRoute:
    """From sparse counts to P-values without any dense block of genes × cells."""

    def test_its_graphs_make_no_dense_block(self, inputs: Inputs):
        assert "dense_normalised" in kernels_of(inputs.expression), "the name that this test looks for has changed"
        assert "mean_log_cpm" in kernels_of(inputs.log_cpm), "the name that this test looks for has changed"
        weights = nd.compute_var(inputs.log_cpm, inputs.covariates)
        expression = nd.normvar(inputs.log_cpm, inputs.covariates, weights, nd.scaling_factor(inputs.counts)).dtn
        result = nd.de(inputs.groupings, expression, inputs.covariates, lowmem=False)
        assert not kernels_of(weights, *lazy_arrays(result)) & DENSE_KERNELS

    def test_slices_take_the_dense_route(self, inputs: Inputs):
        result = nd.de(inputs.groupings, inputs.expression[1:], inputs.covariates)
        assert "dense_normalised" in kernels_of(result.pvalue)

    def test_no_task_returns_a_dense_block(self, inputs: Inputs):
        """Whatever the tasks are called: none hands over as many numbers as a block has."""
        largest = LargestResult()
        weights = nd.compute_var(inputs.log_cpm, inputs.covariates)
        expression = nd.normvar(inputs.log_cpm, inputs.covariates, weights, inputs.scaling).dtn
        result = nd.de(inputs.groupings[:1], expression, inputs.covariates)
        with largest, dask.config.set({"scheduler": "synchronous", "optimization.fuse.active": False}):
            dask.compute(result.pvalue, weights)
        n_nodes = 32
        per_gene_or_cell = n_nodes * (inputs.covariates.shape[0] + 1)
        assert 0 < largest.n_values <= max(4 * per_gene_or_cell, 10 * N_GENES)
        assert largest.n_values < N_GENES * CELLS_PER_BLOCK


class LargestResult(Callback):
    """Remembers the size of the largest array that a task returned."""

    def __init__(self) -> None:
        super().__init__(posttask=self.look)
        self.n_values = 0

    def look(self, key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        if isinstance(result, np.ndarray):
            self.n_values = max(self.n_values, result.size)


def test_graphs_of_stored_counts_carry_no_data(count_store: Path):
    """A graph grows with the number of blocks, not with the counts: a task gets the store's path and positions."""
    counts = nd.open_counts(count_store, cells_per_block=CELLS_PER_BLOCK)
    graph = dict(nd.lcpm(counts.matrix).lcpm.__dask_graph__())
    carried = [value for value in graph.values() if isinstance(value, np.ndarray)]
    assert sum(array.size for array in carried) <= 4 * (N_GENES + N_CELLS)


def test_every_pass_over_an_array_of_the_caller_shares_its_blocks(counts: np.ndarray):
    """One name for the caller's blocks, so that Dask computes each once for all passes in a graph."""
    matrix = laid_out(counts, "csc_array", ((N_GENES,), (60, 50)))
    covariates = nd.normcov(nd.lcpm(matrix).cov)
    weights = nd.compute_var(nd.lcpm(matrix).lcpm, covariates)
    assert set(matrix.__dask_keys__()[0]) <= set(dict(weights.__dask_graph__()))
