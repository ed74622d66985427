"""The stages of a run in order, each computed, stored and recorded: the module that triggers computation."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from normalisr_dask.calibration import QQ_POINTS, calibrate
from normalisr_dask.cluster import keep_out_small_workers, memory_limits, worker_peaks
from normalisr_dask.gene_pairs import store_gene_pairs, store_network
from normalisr_dask.gene_set_levels import GeneSetLevels, check_gene_sets, level_titles
from normalisr_dask.grouping_sums import GroupingBlocks
from normalisr_dask.grouping_tests import SINGLE, GroupingTests, warn_of_untestable
from normalisr_dask.kernels.log_cpm import summary_covariates
from normalisr_dask.kernels.multiple_testing import benjamini_hochberg
from normalisr_dask.kernels.scaling import scale_between
from normalisr_dask.partitions import made_with, store
from normalisr_dask.planning import RunPlan, plan_run, with_calibration
from normalisr_dask.process_memory import peak_bytes, release_freed
from normalisr_dask.progress import RunProgress, Silent, recorded_warnings, watched
from normalisr_dask.run_inputs import RunInputs, check_counts_stayed, check_enough_cells, fingerprints, read_inputs
from normalisr_dask.screen import Screen, groupings_with_enough_cells
from normalisr_dask.settings import RunSettings
from normalisr_dask.stage_use import measured
from normalisr_dask.steps.expression import LogCpmForm, NormalisedForm, log_cpm_form, normalised_form, with_form
from normalisr_dask.steps.log_cpm import lcpm
from normalisr_dask.steps.normalisation import cell_weights, normcov, normvar
from normalisr_dask.steps.quality_control import choose_by_counts, qc_outlier
from normalisr_dask.storage.counts import counts_of
from normalisr_dask.storage.disk_space import disk_full_errors
from normalisr_dask.storage.folder_lock import locked
from normalisr_dask.storage.manifest import Manifest, is_new_output, nothing_left_of_bad_input
from normalisr_dask.storage.q_values import write_q_values_of_all
from normalisr_dask.storage.result_store import ResultStore, lazy
from normalisr_dask.storage.result_tables import write_de_table
from normalisr_dask.storage.url_errors import url_errors
from normalisr_dask.stored_expression import log_cpm_of
from normalisr_dask.summary import RunSummary, summarise

HIT_QVALUE = 0.05
#: Genes of a stored chunk of tests: those of some genes and all groupings, or of a grouping and all genes, are near.
GENES_PER_CHUNK = 4096
Form = TypeVar("Form", LogCpmForm, NormalisedForm)
COVARIATES_OF_LOG_CPM = ("log_total_count", "n_zero_genes", "log_total_count_squared")
CONSTANT = "constant"
TITLES = {
    "simulation": "Simulation",
    "ingest": "Ingest",
    "qc": "Quality control of reads",
    "normalisation": "Normalisation",
    "de": "Differential expression",
    "calibration": "Calibration",
    "coex": "Co-expression",
    "edges": "Co-expression network",
}


def plan(settings: RunSettings, *, memory_limit: int, workers: int, threads_per_worker: int) -> RunPlan:
    """Plan a run from metadata and the tables of groupings and covariates; reads no counts.

    Parameters
    ----------
    settings
        What the run is to do.
    memory_limit
        Bytes of a worker.
    workers, threads_per_worker
        Of the cluster.

    Returns
    -------
    RunPlan
        Tasks, bytes and peak memory of every stage.

    Raises
    ------
    FileNotFoundError
        If the store or a table does not exist.
    ValueError
        If an input does not fit the store, a task would not fit into the memory limit, or the output folder holds
        another run.
    """
    inputs = read_inputs(settings)
    check_gene_sets(settings, inputs.store.genes())
    before = Manifest.of_run(settings.output, asdict(settings), fingerprints(settings, inputs.store))
    return _plan(settings, inputs, before, memory_limit, workers, threads_per_worker)


def _plan(
    settings: RunSettings, inputs: RunInputs, before: Manifest, memory_limit: int, workers: int, threads_per_worker: int
) -> RunPlan:
    planned = plan_run(
        inputs.store,
        n_groupings=0 if inputs.groupings is None else len(inputs.groupings.names),
        n_covariates=len(inputs.covariate_names) + len(COVARIATES_OF_LOG_CPM) + 1,
        single=SINGLE[settings.other_groupings],
        coex=settings.coex_store if settings.coex else None,
        go_levels=None if settings.go is None else settings.go_levels,
        memory_limit=memory_limit,
        workers=workers,
        threads_per_worker=threads_per_worker,
        begun_with=before.cells_per_block,
    )
    planned.warn_of_other_blocks(settings.output, before.cells_per_block)
    if not _calibrates(settings, inputs.screen):
        return planned
    of_reference = inputs.screen is not None and bool(inputs.screen.reference.names)
    return with_calibration(planned, settings.permutations, of_reference=of_reference)


def stage_titles(settings: RunSettings) -> dict[str, str]:
    """Return what to call the stages of a run."""
    return TITLES | level_titles(settings.go_levels)


def _calibrates(settings: RunSettings, screen: Screen | None) -> bool:
    return screen is not None and (screen.is_calibrated or settings.permutations > 0)


def run(settings: RunSettings, client: Client, *, progress: RunProgress | None = None) -> RunSummary:
    """Run quality control, normalisation, and the tests asked for; go on where an earlier call stopped.

    Parameters
    ----------
    settings
        What to do.
    client
        Of the cluster to compute on.
    progress
        Who is told how it goes.

    Returns
    -------
    RunSummary

    Raises
    ------
    FileNotFoundError
        If the store or a table does not exist.
    ValueError
        If an input does not fit the store, a task would not fit into the workers' memory limit, or the output folder
        holds another run, or one that is going on.
    OSError
        If the disk of the output folder is full, or object storage refuses or does not answer.

    Notes
    -----
    Every stage is published whole under ``OUT/results.zarr`` and recorded in ``OUT/manifest.json``; a later call with
    the same settings and inputs skips what is recorded. Cost: some four passes over the counts for quality control,
    four for normalisation, two for differential expression, each O(non-zeros).
    """
    stay = "stages that are done stay; make room and run the same command again"
    with url_errors(settings.output), disk_full_errors(settings.output, stay):
        prepared = Run(settings, client, progress or Silent())  # refuses what cannot be run before a file is written
        is_new = is_new_output(settings.output)
        with (
            locked(settings.output) as still_held,
            nothing_left_of_bad_input(settings.output, is_new=is_new),
            client.as_current(),
        ):
            return prepared.run(still_held)


class Run:
    """One call of :func:`run`: its inputs, its plan, and its stages.

    Parameters
    ----------
    settings, client, progress
        As of :func:`run`.
    """

    def __init__(self, settings: RunSettings, client: Client, progress: RunProgress) -> None:
        self.settings, self.client, self.progress = settings, client, progress
        threads = max(
            (worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()), default=1
        )
        limits = memory_limits(client)
        with recorded_warnings() as self.warned:
            self.inputs = read_inputs(settings)
            check_gene_sets(settings, self.inputs.store.genes())
            self.fingerprints = fingerprints(settings, self.inputs.store)
            self.manifest = Manifest.of_run(settings.output, asdict(settings), self.fingerprints)
            self.plan = _plan(settings, self.inputs, self.manifest, min(limits.values()), len(limits), threads)
        self.results = ResultStore(settings.output)
        self.counts = counts_of(self.inputs.store, self.plan.cells_per_block)

    def run(self, still_held: Callable[[], None]) -> RunSummary:
        """Run all stages, but not after the lock of the output was lost."""
        start, self.still_held = time.perf_counter(), still_held
        keep_out_small_workers(self.client, self.plan.largest_task_bytes)
        self.peaks = [(max(worker_peaks(self.client).values(), default=0), peak_bytes())]
        self.manifest = Manifest.begin(self.settings.output, asdict(self.settings), self.fingerprints)
        self.manifest.record_warnings(self.warned)
        self.results.create()
        self._tell_plan()
        self._stage("qc", self._qc)
        self._tell_plan()
        self._stage("normalisation", self._normalisation)
        if self.inputs.screen is not None:
            self._stage("de", partial(self._de, self.inputs.screen))
            if _calibrates(self.settings, self.inputs.screen):
                self._forget_if_other("calibration", "permutations", "seed")
                self._stage("calibration", partial(self._calibration, self.inputs.screen))
        if self.settings.coex:
            if self.settings.coex_store == "all":
                self._stage("coex", self._coex)
            self._forget_if_other("edges", "qcut")
            self._stage("edges", self._edges)
        if self.settings.go is not None:
            levels = GeneSetLevels(
                self.settings, self.results, self.manifest, self.counts, self.plan, self.progress.stage_stands
            )
            for stage, work in levels.stages():
                self._stage(stage, work)
        self.results.clear_work()
        return summarise(
            self.results,
            self.manifest,
            cells_total=self.inputs.store.n_cells,
            genes_total=self.inputs.store.n_genes,
            seconds=time.perf_counter() - start,
            peak_worker_bytes=max(peak for peak, _ in self.peaks),
            peak_client_bytes=max(peak for _, peak in self.peaks),
        )

    def _forget_if_other(self, stage: str, *names: str) -> None:
        """Have a stage made again that was made with other values of settings that may change."""
        done = self.manifest.stage(stage) if self.manifest.is_done(stage) else None
        if done is not None and any(done[name] != getattr(self.settings, name) for name in names):
            self.manifest.forget(stage)

    def _stage(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do a stage and record it, unless an earlier run has."""
        if self._is_done(name):
            self.results.check(name)
            details = self.manifest.stage(name)
            self.progress.stage_finished(name, details["seconds"], resumed=True, note=details["note"])
            return
        self.still_held()
        self.results.remove(name)
        self.progress.stage_started(name, stage_titles(self.settings)[name], self.planned[name].tasks)
        with (
            watched(self.client, name, self.progress),
            recorded_warnings() as warned,
            measured(self.client) as use,
        ):
            details = work()
        check_counts_stayed(self.settings, self.fingerprints)
        self.manifest.record(name, {**use, **self.plan.made_for, "warnings": warned, **details})
        self.peaks.append((use["peak_worker_bytes"], use["peak_client_bytes"]))
        seconds = use.pop("seconds")
        self.progress.stage_finished(name, seconds, resumed=False, note=details["note"], use=use)
        release_freed()

    def _is_done(self, name: str) -> bool:
        return self.manifest.is_done(name) and self.results.has(name)

    def _tell_plan(self) -> None:
        """Tell all stages and those that are done; quality control, once done, has left fewer genes than planned."""
        qc_done = self.results.has("qc")
        n_genes = self._n_genes_kept() if qc_done else self.inputs.store.n_genes
        self.planned = {stage.name: stage for stage in self.plan.of_genes(n_genes)}
        self.progress.run_planned(list(self.planned.values()), [name for name in self.planned if self._is_done(name)])

    # ---- quality control

    def _qc(self) -> dict[str, Any]:
        counts = self.counts
        gene_kept, cell_kept, by_gene, by_cell = choose_by_counts(counts.matrix, *self.settings.qc_bounds)
        cells, without_counts = counts.cells, np.flatnonzero(cell_kept & (by_cell[0] == 0))
        if without_counts.size:
            msg = (
                f"{without_counts.size:,} cells have no counts, the first {cells[without_counts[0]]!r}, and so no "
                "log-CPM; leave them out with --min-cell-reads 1 or more"
            )
            raise ValueError(msg)
        self.results.write(
            "qc",
            {"gene": counts.genes, "cell": cells},
            {
                "gene_total": by_gene[:, 0],
                "gene_cells": by_gene[:, 1],
                "gene_kept": gene_kept,
                "cell_total": by_cell[0],
                "cell_genes": by_cell[1],
                "cell_kept": cell_kept,
            },
        )
        n_genes, n_cells = counts.shape
        return {"note": f"kept {gene_kept.sum():,} of {n_genes:,} genes, {cell_kept.sum():,} of {n_cells:,} cells"}

    # ---- normalisation

    def _normalisation(self) -> dict[str, Any]:
        gene_kept, cell_kept = self.results.read("qc", "gene_kept"), self.results.read("qc", "cell_kept")
        counts = self.counts.subset(genes=np.flatnonzero(gene_kept), cells=np.flatnonzero(cell_kept))
        offset = _implicit(log_cpm_form(lcpm(counts.matrix, nocov=True).lcpm)).cell_offset.compute()
        of_log_cpm, scaling = self._from_qc(gene_kept, cell_kept)
        names, values = self._varying_covariates(cell_kept, of_log_cpm)
        covariates = normcov(values).compute(scheduler="synchronous")  # small: not worth the way to a worker
        check_enough_cells(covariates, names)
        expression = with_form(log_cpm_of(counts, offset))
        fitted_weights = cell_weights(expression, covariates)
        kept = qc_outlier(fitted_weights)

        qc_cells, counts = counts.cells, counts.subset(cells=np.flatnonzero(kept))
        offset, covariates, weights = offset[kept], covariates[:, kept], fitted_weights[kept]
        normalised = normvar(with_form(log_cpm_of(counts, offset)), covariates, weights, scaling).dtn
        fit = _implicit(normalised_form(normalised)).fit.compute()
        self.results.write(
            "normalisation",
            {
                "gene": counts.genes,
                "cell": qc_cells[kept],
                "qc_cell": qc_cells,
                "covariate": np.array([*names, CONSTANT]),
            },
            {
                "fitted_weight": fitted_weights,
                "weight_kept": kept,
                "log_cpm_offset": offset,
                "cell_weight": weights,
                "covariates": covariates,
                "gene_scaling": scaling,
                "coefficients": fit[:, :-2],
                "variance_factor": fit[:, -2],
                "sum_of_squares": fit[:, -1],
            },
        )
        return {"note": f"left out {np.count_nonzero(~kept):,} variance outliers; {len(covariates):,} covariates"}

    def _from_qc(
        self, gene_kept: NDArray[np.bool_], cell_kept: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the covariates of log-CPM and the gene scaling from the sums that quality control has stored."""
        cell_sums = np.stack([self.results.read("qc", name)[cell_kept] for name in ("cell_total", "cell_genes")])
        gene_sums = np.stack(
            [self.results.read("qc", name)[gene_kept] for name in ("gene_total", "gene_cells")], axis=1
        )
        n_genes, n_cells = gene_sums.shape[0], cell_sums.shape[1]
        covariates = summary_covariates(cell_sums, cell_index=np.flatnonzero(cell_kept), n_genes=n_genes)
        if (gene_sums[:, 1] == n_cells).all():  # the scaling of a gene without zeros is 0, whatever that of others is
            return covariates, np.zeros(n_genes)
        return covariates, scale_between(gene_sums, varname="nt0mean", bounds=(0.0, "max"), n_cells=n_cells)

    def _varying_covariates(
        self, cell_kept: NDArray[np.bool_], of_log_cpm: NDArray[np.float64]
    ) -> tuple[list[str], NDArray[np.float64]]:
        """Return names and values of the covariates of the kept cells, without those that have one value in all."""
        names = [*self.inputs.covariate_names, *COVARIATES_OF_LOG_CPM]
        values = np.vstack([self.inputs.covariates[:, cell_kept], of_log_cpm])
        varies = values.min(axis=1, initial=np.inf) < values.max(axis=1, initial=-np.inf)
        return [name for name, keep in zip(names, varies, strict=True) if keep], values[varies]

    # ---- tests

    def _de(self, screen: Screen) -> dict[str, Any]:
        blocks = self._grouping_blocks()
        tests = self._tests(screen, blocks)
        n_cells = tests.n_cells()
        rows = groupings_with_enough_cells(screen, n_cells, self.settings.min_grouping_cells)
        tested, names = tests.tested(rows), np.array(screen.groupings.names, dtype=object)
        genes, groupings = self.results.read("normalisation", "gene"), names[rows]
        arrays = self.results.begin(
            "de",
            {"grouping": groupings, "gene": genes},
            {"grouping": blocks.per_block, "gene": GENES_PER_CHUNK},
            made_with=made_with(self.plan),
        )
        arrays["n_cells"][...] = n_cells[rows]
        store(arrays, tested, rows_at_a_time=blocks.per_submission, standing=self.progress.stage_stands)
        pvalue = lazy(arrays["pvalue"]).rechunk({1: -1})
        store(arrays, {"qvalue": pvalue.map_blocks(benjamini_hochberg, axis=-1, dtype=np.float64)})
        write_q_values_of_all(arrays["pvalue"], arrays["qvalue_all"])
        warn_of_untestable(groupings, np.asarray(arrays["varg"][:]))
        targets = screen.select(rows).targets
        hits = write_de_table(self.results.output, groupings, genes, arrays, HIT_QVALUE, targets=targets)
        self.results.publish("de")  # last: what is not recorded is made again, and until then tests stand
        return {
            "note": f"{sum(hits):,} hits at Q <= {HIT_QVALUE} in {np.count_nonzero(hits):,} of {len(hits):,} groupings",
            "hits": [int(number) for number in hits],
            "groupings_left_out": np.delete(names, rows).tolist(),
            "targets": None if targets is None else list(targets),
        }

    def _calibration(self, screen: Screen) -> dict[str, Any]:
        tested = set(self.results.read("de", "grouping"))
        rows = np.array([row for row, name in enumerate(screen.groupings.names) if name in tested])
        blocks = self._grouping_blocks()
        families = calibrate(
            self._tests(screen, blocks),
            rows,
            permutations=self.settings.permutations,
            seed=self.settings.seed,
            rows_at_a_time=blocks.per_submission,
            folder=self.results.work_folder(
                "calibration", made_with(self.plan, seed=self.settings.seed, block=blocks.per_block)
            ),
            standing=self.progress.stage_stands,
        )
        names, values = list(families), list(families.values())
        points = [str(number) for number in range(1, QQ_POINTS + 1)]
        self.results.write(
            "calibration",
            {"family": np.array(names), "quantile": np.array(points)},
            {
                "n_tests": np.array([family.n_tests for family in values]),
                "inflation": np.array([family.inflation for family in values]),
                "expected": np.stack([family.points[0] for family in values]),
                "observed": np.stack([family.points[1] for family in values]),
            },
        )
        note = ", ".join(f"{family.inflation:.3f} {name}" for name, family in families.items())
        asked = {"permutations": self.settings.permutations, "seed": self.settings.seed}
        return {"note": f"inflation {note}", **asked}

    def _grouping_blocks(self) -> GroupingBlocks:
        """Return the blocks that tests were begun with, so that these stand whatever the workers now, or new ones."""
        begun_with = self.results.begun_with("de", "grouping")
        return self.plan.groupings.blocks(self._n_genes_kept(), begun_with=begun_with)

    def _tests(self, screen: Screen, blocks: GroupingBlocks) -> GroupingTests:
        dense = self.plan.cells_per_dense_block
        return GroupingTests(self.settings, screen, self.results, self.counts, blocks.per_block, dense)

    def _n_genes_kept(self) -> int:
        return int(self.results.read("qc", "gene_kept").sum())

    def _coex(self) -> dict[str, Any]:
        n_pairs = store_gene_pairs(self.results, self.counts, self.plan, standing=self.progress.stage_stands)
        return {"note": f"{n_pairs:,} gene pairs"}

    def _edges(self) -> dict[str, Any]:
        qcut = self.settings.qcut
        n_edges = store_network(self.results, self.counts, self.plan, qcut, standing=self.progress.stage_stands)
        return {"note": f"{n_edges:,} edges at Q <= {qcut}", "edges": n_edges, "qcut": qcut}


def _implicit(form: Form | None) -> Form:
    """Return the form, which what steps make of a count store always has."""
    if form is None:
        msg = "expected expression in its implicit form, as the steps make it from sparse counts"
        raise TypeError(msg)
    return form
