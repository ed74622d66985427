"""The tests of a run's groupings, lazy: as they are, with permuted cells, and of reference controls.

A run submits them some groupings at a time. What all of these share is found once, before, and kept: a few numbers a
gene, and vectors of cells.
"""

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from normalisr_dask.graph.vectors import in_memory, in_one_chunk
from normalisr_dask.kernels.association import UntestableGroupingWarning
from normalisr_dask.kernels.exclusive import exclusive_labels
from normalisr_dask.results import DifferentialExpression
from normalisr_dask.screen import Screen
from normalisr_dask.settings import RunSettings
from normalisr_dask.steps.association import AssociationInputs, Prepared, loss_of_rank
from normalisr_dask.steps.covariates import Basis
from normalisr_dask.steps.differential import association_tests, de, in_blocks, prepare
from normalisr_dask.steps.exclusive import Controls, controls_of
from normalisr_dask.steps.expression import NormalisedForm, Residuals, expression_of
from normalisr_dask.steps.selection import of_first_groupings, only_pairs
from normalisr_dask.storage.counts import Counts
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.stored_expression import StoredExpression, stored_expression

SINGLE: dict[str, Literal[0, 1, 4]] = {"ignore": 0, "exclude": 1, "covariates": 4}
#: Results of a test; NaN for what was not tested.
OF_TESTS = ("pvalue", "log10_pvalue", "gamma", "se")


def warn_of_untestable(names: NDArray[np.object_], variance: NDArray[np.float64]) -> None:
    """Warn, by name, of groupings (groupings,) that have no variance left in the cells of their test."""
    untestable = names[variance <= 0]
    if untestable.size:
        msg = (
            f"{untestable.size:,} of {names.size:,} groupings cannot be tested and have P = 1, the first "
            f"{untestable[0]!r}: all cells of the test are alike in it, or the covariates (with other groupings as "
            "covariates also these) determine it"
        )
        warnings.warn(msg, UntestableGroupingWarning, stacklevel=3)


def _computed(*arrays: da.Array) -> list[da.Array]:
    """Return small arrays, computed together, each in one chunk."""
    return [in_one_chunk(values) for values in dask.compute(*arrays)]


@dataclass(frozen=True)
class GroupingTests:
    """Tests of the groupings of a screen in the cells that a run has kept.

    Parameters
    ----------
    settings
        Of the run.
    screen
        What to test.
    results
        With the stages ``qc`` and ``normalisation``.
    counts
        Of the whole store.
    groupings_per_block
        Groupings that a task tests together.
    cells_per_dense_block
        Cells of a block that a task makes dense: those of reference controls alone.
    """

    settings: RunSettings
    screen: Screen
    results: ResultStore
    counts: Counts
    groupings_per_block: int
    cells_per_dense_block: int

    @cached_property
    def _stored(self) -> StoredExpression:
        return stored_expression(self.results, self.counts)

    @cached_property
    def _values(self) -> scipy.sparse.csr_array:
        """The groupings in the kept cells."""
        return scipy.sparse.csr_array(self.screen.groupings.values[:, self._stored.cells])

    @cached_property
    def _prepared(self) -> Prepared:
        """What all tests share, in memory: numbers of genes, and vectors of cells; a pass over the counts."""
        form = expression_of(self._stored.expression, "dt")
        lazy = prepare(form, self._stored.covariates).basis
        of_form = (form.scaling_range, form.zero_fit) if isinstance(form, NormalisedForm) else ()
        # little work, most of it on vectors of cells, which no worker should hold
        with threadpool_limits(1):  # as in workers, since the last bits follow the number of threads
            found, (rows, *of_rows) = dask.compute(of_form, lazy, scheduler="synchronous")
        if isinstance(form, NormalisedForm):
            scaling_range, zero_fit = (in_one_chunk(values) for values in found)
            form = replace(form, scaling_range=scaling_range, zero_fit=zero_fit)
        basis = Basis(in_memory(rows, lazy.rows.chunks[1]), *(in_one_chunk(part) for part in of_rows))
        return Prepared(form, basis, Residuals(*_computed(*form.residuals(basis.rows, basis.gram))))

    def _tests(self, values: scipy.sparse.csr_array) -> DifferentialExpression:
        """Return the tests of groupings in the kept cells; where others are excluded, after a pass for the controls."""
        prepared, single = self._prepared, SINGLE[self.settings.other_groupings]
        # of groupings that are alone, a block takes the labels
        groupings = in_blocks(values, prepared, values.shape[0] if single == 1 else self.groupings_per_block)
        controls = None
        if single == 1:
            labels = in_memory(exclusive_labels(values)[0], prepared.expression.chunks[1])
            lazy = controls_of(labels, values.shape[0], prepared)
            controls = Controls(lazy.labels, *_computed(lazy.counts, lazy.moments))
        return association_tests(
            AssociationInputs(groupings, prepared, loss_of_rank(0, prepared.expression.shape[0])),
            single=single,
            with_alpha=False,
            groupings_per_block=self.groupings_per_block,
            controls=controls,
        )

    def n_cells(self) -> NDArray[np.int64]:
        """Return the number of kept cells of every grouping."""
        return np.asarray(self._values.astype(bool).sum(axis=1), dtype=np.int64)

    def tested(self, rows: NDArray[np.int64], *, order: NDArray[np.int64] | None = None) -> dict[str, da.Array]:
        """Return the results of testing some of the groupings (rows), by name.

        Parameters
        ----------
        rows
            Which of the groupings.
        order
            A permutation of the kept cells, by which to take them for the groupings; None for none.
        """
        values = self._values if order is None else self._values[:, order]
        if self.settings.other_groupings == "ignore":
            tested = self._tests(values[rows])
        else:  # cells of groupings too small to test are still in another grouping; those without cells are none
            untested = np.setdiff1d(np.flatnonzero(self.n_cells()), rows)
            values = values[np.concatenate([rows, untested])]
            if self.settings.other_groupings == "exclude" and self.screen.reference.names:
                values = self._without_unassigned(values, order)
            tested = self._tests(values)
            if untested.size:
                tested = of_first_groupings(tested, rows.size)
        of_tests: dict[str, Any] = {name: getattr(tested, name) for name in OF_TESTS}
        if self.screen.pairs is not None:
            pairs = self.screen.pairs[rows][:, np.flatnonzero(self.results.read("qc", "gene_kept"))]
            of_tests = {name: only_pairs(array, pairs) for name, array in of_tests.items()}
        return of_tests | {"vart": tested.vart, "varg": tested.varg}

    def log10_p_of_reference(self) -> da.Array | None:
        """Return log10 P of every reference control with enough cells against the other cells like it.

        These are all other cells where other groupings are ignored, else the cells of other controls, without those
        that are in a tested grouping, too. None if no control can be tested so.
        """
        stored, controls = self._stored, self.screen.reference.values
        if self.settings.other_groupings != "ignore":
            is_reference = self._n_of_cells(controls) > 0
            chosen = np.flatnonzero(is_reference & (self._n_of_cells(self.screen.groupings.values) == 0))
            if chosen.size <= stored.covariates.shape[0] + 1:
                return None
            in_dense_blocks = replace(self.counts, cells_per_block=self.cells_per_dense_block)
            stored = stored_expression(self.results, in_dense_blocks, chosen=chosen)
        controls = scipy.sparse.csr_array(controls[:, stored.cells])
        n_cells = controls.astype(bool).sum(axis=1)
        rows = np.flatnonzero((n_cells >= max(1, self.settings.min_grouping_cells)) & (n_cells < stored.cells.size))
        if rows.size == 0:
            return None
        return de(controls[rows], stored.expression, stored.covariates, bs=self.groupings_per_block).log10_pvalue

    def _without_unassigned(
        self, values: scipy.sparse.csr_array, order: NDArray[np.int64] | None
    ) -> scipy.sparse.csr_array:
        """Keep cells that are neither in a grouping nor a reference control out of all tests.

        No guide was found in them, or several, so that they are no reference. A cell in several groupings is in no
        test of groupings alone: these get into the first two.
        """
        n_groupings = self._n_of_cells(self.screen.groupings.values) + self._n_of_cells(self.screen.reference.values)
        cells = np.flatnonzero((n_groupings if order is None else n_groupings[order]) == 0)
        n_rows = max(2, values.shape[0])
        entries = (np.ones(2 * cells.size), (np.repeat([0, 1], cells.size), np.tile(cells, 2)))
        into_two = scipy.sparse.csr_array(entries, shape=(n_rows, values.shape[1]))
        padding = scipy.sparse.csr_array((n_rows - values.shape[0], values.shape[1]))
        return scipy.sparse.csr_array(scipy.sparse.vstack([values, padding]) + into_two)

    def _n_of_cells(self, values: scipy.sparse.csr_array) -> NDArray[np.int64]:
        """Return in how many groupings (rows of values over the store's cells) every kept cell is."""
        return np.asarray(values[:, self._stored.cells].astype(bool).sum(axis=0), dtype=np.int64)
