"""Time and peak memory of the steps beside normalisr 1.0.0, on the same data and 2 cores, in one run.

    python benchmarks/steps.py                                       pbmc3k and simulated 6,000 genes × 10,000 cells
    python benchmarks/steps.py --data pbmc3k --steps lcpm coex       some of it
    python benchmarks/steps.py --json steps.json                     also as JSON

pbmc3k is read from the folder that NORMALISR_DASK_TEST_DATA names, and goes through qc_reads with the bounds of the
command line. normalisr gets a dense NumPy array of int64, and two cores as it uses them (nth=2; BLAS with
--blas-threads). This package gets two threads of Dask, BLAS with one, and its input by one of three routes:

- dense: the same NumPy arrays;
- sparse: a SciPy array of the counts;
- store: a count store on disk, which is opened and read within the time.

A time is that of a step's results as NumPy arrays. By the routes from sparse counts nothing of an earlier step is
kept in memory: log-CPM, and for de and coex normalised expression, are made of the counts within the time, too.
Covariates, weights, scaling factors and groupings are the same arrays for all.

Every measurement runs in a fresh process, after a first call on tiny data, so that imports and compilation do not
count; they are reported apart. A first run of each gives its results and peak memory (of its processes, shared pages
counted once); results that differ end the benchmark with exit code 1 before any time is taken. Then the programs take
turns, and ratios are of medians. Before its time starts, each process uses and frees a few gigabytes (on a virtual
machine the first use of a page can take longer than the step), and waits until other programs leave both cores alone.
A run that they disturb all the same is repeated; the share of the cores that they took is reported.
"""

import argparse
import io
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import scipy.io
import scipy.sparse

import normalisr_dask as nd
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.testing import simulate_counts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its docstrings hold invalid escape sequences
    import normalisr.normalisr as published

N_CORES = 2
N_GROUPINGS = 10
ROUTES = ("store", "sparse", "dense")
PUBLISHED = "normalisr"
SAMPLE_SECONDS = 0.05
MEGABYTE = 1e6
#: More than any step takes.
TOUCHED_BYTES = 4e9
#: Share of the cores that other programs may take; how long to wait for that, and how often to try.
UNDISTURBED = 0.1
MOST_SECONDS_OF_WAITING, LOOK_SECONDS = 20, 0.5
MOST_TRIES = 3

#: Relative to the largest value; for P-values, of their logarithm.
TOLERANCE, P_TOLERANCE = 1e-8, 1e-6
#: normalisr's P-values below the first are not exact, nor is the logarithm of those above the second.
EXACT_P = (1e-290, 0.998)


@dataclass(frozen=True)
class Step:
    """How a step is called, and what is asked of it.

    Attributes
    ----------
    inputs
        Names of the arrays it gets, in order.
    results
        Names of its results by their position in what it returns.
    goals
        How many times as fast as normalisr it should be, by data set; a data set without a goal is measured all the
        same.
    takes_threads
        Whether normalisr's function has ``nth``.
    """

    inputs: tuple[str, ...]
    results: dict[int, str]
    goals: dict[str, float]
    takes_threads: bool = True


STEPS = {
    "lcpm": Step(("counts",), {0: "lcpm", 3: "cov"}, {"pbmc3k": 1, "simulated": 2}),
    "compute_var": Step(("log_cpm", "covariates"), {0: "weights"}, {"pbmc3k": 1, "simulated": 2}, takes_threads=False),
    "normvar": Step(
        ("log_cpm", "covariates", "weights", "scaling"), {0: "dtn", 1: "dcn"}, {"pbmc3k": 1, "simulated": 2}
    ),
    "de": Step(
        ("groupings", "expression", "expression_covariates"), {0: "pvalue", 1: "gamma", 3: "varg", 4: "vart"}, {}
    ),
    "coex": Step(("expression", "expression_covariates"), {0: "pvalue", 1: "dot", 2: "var"}, {"pbmc3k": 3}),
}
DATA = ("pbmc3k", "simulated")
#: normalisr takes minutes for the others.
NOT_BY_DEFAULT = {("simulated", "coex")}


# ---- data


def pbmc3k() -> scipy.sparse.csc_array:
    """Read pbmc3k, and leave out what the command line's bounds leave out."""
    folder = os.environ.get("NORMALISR_DASK_TEST_DATA")
    if not folder:
        msg = "expected a folder with the real data in NORMALISR_DASK_TEST_DATA, found none; or give --data simulated"
        raise SystemExit(msg)
    with tarfile.open(Path(folder) / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        member = archive.extractfile("filtered_gene_bc_matrices/hg19/matrix.mtx")
        reads = scipy.sparse.csc_array(scipy.io.mmread(io.BytesIO(member.read() if member else b"")))
    genes, cells = nd.qc_reads(reads, 0, 50, 0.02, 500, 100, 0)
    return scipy.sparse.csc_array(reads[genes][:, cells])


def simulated() -> scipy.sparse.csc_array:
    return simulate_counts(6_000, 10_000, seed=0).counts


def prepare(folder: Path, counts: scipy.sparse.csc_array) -> None:
    """Write the counts in every form, and what normalisr's earlier steps make of them."""
    folder.mkdir()
    scipy.sparse.save_npz(folder / "sparse.npz", counts, compressed=False)
    write_store(folder / "counts.zarr", counts)
    dense = counts.toarray().astype(np.int64)
    log_cpm, _, _, summary = published.lcpm(dense, nth=N_CORES)
    covariates = published.normcov(summary)
    weights = published.compute_var(log_cpm, covariates)
    scaling = published.scaling_factor(dense)
    expression, expression_covariates = published.normvar(log_cpm, covariates, weights, scaling, nth=N_CORES)
    arrays = {
        "counts": dense,
        "log_cpm": log_cpm,
        "covariates": covariates,
        "weights": weights,
        "scaling": scaling,
        "expression": expression,
        "expression_covariates": expression_covariates,
        "groupings": (np.random.default_rng(0).random((N_GROUPINGS, counts.shape[1])) < 0.1).astype(np.float64),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def write_store(path: Path, counts: scipy.sparse.csc_array) -> None:
    n_genes, n_cells = counts.shape
    obs = pd.DataFrame(index=[f"cell{number}" for number in range(n_cells)])
    var = pd.DataFrame(index=[f"gene{number}" for number in range(n_genes)])
    with CountStoreWriter(path, obs=obs, var=var) as writer:
        for start in range(0, n_cells, 1000):
            block = counts[:, start : start + 1000]
            writer.append(np.diff(block.indptr), block.indices, block.data.astype(np.uint32))
        writer.finalise()


# ---- one measurement, in a process of its own


def run_child(program: str, step: str, folders: list[Path], results: Path | None) -> None:
    """Run a step on each folder's data in turn, print seconds and memory, and write the results of the last."""
    imports = time.time() - psutil.Process().create_time()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_CORES])
    logging.disable(logging.CRITICAL)
    dask.config.set(scheduler="threads", num_workers=N_CORES)
    seconds = []
    for folder in folders:
        call = prepared_call(program, step, folder)
        if folder == folders[-1] and not results:
            touch_memory()
            wait_for_cores()
        before = psutil.Process().memory_info().rss
        clock = Clock()
        found = call()
        seconds.append(clock.seconds)
        others = clock.share_of_others
    if results:
        for name, array in found.items():
            np.save(results / f"{name}.npy", array)
    print(
        json.dumps(
            {
                "imports": imports,
                "first_call": seconds[0],
                "seconds": seconds[-1],
                "megabytes_before": before / MEGABYTE,
                "share_of_others": others,
            }
        )
    )


class Clock:
    """Time from now on, and what other programs have taken of the cores since."""

    def __init__(self) -> None:
        self.start, self.busy, self.own = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return the time, and seconds that all programs and that this one and its children have had of all cores."""
        system = psutil.cpu_times()
        busy = sum(system) - system.idle - getattr(system, "iowait", 0.0)
        return time.perf_counter(), busy, sum(psutil.Process().cpu_times()[:4])

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    @property
    def share_of_others(self) -> float:
        now, busy, own = self._now()
        return max(0.0, (busy - self.busy) - (own - self.own)) / ((now - self.start) * (psutil.cpu_count() or 1))


def wait_for_cores() -> None:
    """Wait until other programs do next to nothing, for a while."""
    waited = Clock()
    while waited.seconds < MOST_SECONDS_OF_WAITING:
        clock = Clock()
        time.sleep(LOOK_SECONDS)
        if clock.share_of_others <= UNDISTURBED / 2:
            return


def touch_memory() -> None:
    """Use and free memory, so that the operating system has it at hand."""
    n_bytes = min(TOUCHED_BYTES, psutil.virtual_memory().available / 2)
    np.empty(int(n_bytes), dtype=np.uint8).fill(1)


def prepared_call(program: str, step: str, folder: Path) -> Callable[[], dict[str, np.ndarray]]:
    """Load what a call needs in memory, and return the call."""
    names = STEPS[step].inputs
    from_counts = {"counts", "log_cpm", "expression"} if program in {"store", "sparse"} else set()
    if "expression" in from_counts.intersection(names):
        names = (*names, "covariates", "weights", "scaling")
    arrays: dict[str, Any] = {name: np.load(folder / f"{name}.npy") for name in names if name not in from_counts}
    if program == PUBLISHED:
        return lambda: call_published(step, arrays)
    if program == "sparse":
        arrays["counts"] = scipy.sparse.load_npz(folder / "sparse.npz")
    return lambda: call_ours(step, arrays, folder / "counts.zarr")


def call_published(step: str, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    options = {"nth": N_CORES} if STEPS[step].takes_threads else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return named(step, getattr(published, step)(*(arrays[name] for name in STEPS[step].inputs), **options))


def call_ours(step: str, arrays: dict[str, Any], store: Path) -> dict[str, np.ndarray]:
    """Run a step; what is not among the arrays is made of the counts, of the store where there are no counts either."""
    values = dict(arrays)
    if not {"counts", "log_cpm", "expression"}.intersection(values):
        values["counts"] = nd.open_counts(store).matrix
    if "log_cpm" not in values and "counts" in values:
        values["log_cpm"] = nd.lcpm(values["counts"]).lcpm
    if "expression" not in values and "scaling" in values:
        values["expression"] = nd.normvar(*(values[name] for name in STEPS["normvar"].inputs)).dtn
    found = getattr(nd, step)(*(values[name] for name in STEPS[step].inputs))
    return dask.compute(named(step, found))[0]


def named(step: str, found: Any) -> dict[str, Any]:
    parts = tuple(found) if len(STEPS[step].results) > 1 else (found,)
    return {name: parts[position] for position, name in STEPS[step].results.items()}


# ---- measuring


def measure(
    program: str, step: str, tiny: Path, folder: Path, *, blas_threads: int, results: Path | None = None
) -> dict[str, float]:
    """Run a step in a fresh process; sample its memory where its results are asked for: sampling takes time."""
    command = [sys.executable, __file__, "--child", program, step, str(tiny), str(folder)]
    if results:
        results.mkdir(parents=True)
        command.append(str(results))
    n_threads = str(blas_threads if program == PUBLISHED else 1)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": n_threads, "OMP_NUM_THREADS": n_threads}
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        while results and process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(SAMPLE_SECONDS)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(output) | {"peak_megabytes": peak / MEGABYTE}


def measure_undisturbed(program: str, step: str, tiny: Path, folder: Path, *, blas_threads: int) -> dict[str, float]:
    """Measure until other programs take next to nothing of the cores; the least disturbed run where they never do."""
    tries = []
    for _ in range(MOST_TRIES):
        tries.append(measure(program, step, tiny, folder, blas_threads=blas_threads))
        if tries[-1]["share_of_others"] <= UNDISTURBED:
            break
    return min(tries, key=lambda run: run["share_of_others"])


def tree_bytes(pid: int) -> int:
    """Memory of a process and its children; pages that they share count once."""
    total = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            memory = member.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.NoSuchProcess:
        pass
    return total


def largest_difference(step: str, expected: Path, found: Path) -> dict[str, float]:
    """Return how far each result is from normalisr's, relative to the tolerance."""
    differences = {}
    for name in STEPS[step].results.values():
        theirs, ours = (np.load(folder / f"{name}.npy") for folder in (expected, found))
        if theirs.shape != ours.shape or not np.isfinite(ours).all():
            differences[name] = float("inf")
        elif name == "pvalue":
            differences[name] = p_value_difference(theirs, ours) / P_TOLERANCE
        else:
            differences[name] = float(np.abs(ours - theirs).max() / np.abs(theirs).max()) / TOLERANCE
    return differences


def p_value_difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return the largest relative difference of logarithms where normalisr's are exact, of P-values elsewhere."""
    smallest, nearly_one = EXACT_P
    exact = (theirs >= smallest) & (theirs <= nearly_one)
    logarithms = np.log(theirs[exact])
    relative = np.abs((np.log(np.maximum(ours[exact], np.finfo(float).tiny)) - logarithms) / logarithms)
    return float(max(relative.max(initial=0), np.abs(ours - theirs)[~exact].max(initial=0)))


def compare(data: str, step: str, folder: Path) -> float:
    """Stop unless all routes give what normalisr gives; return the largest difference over its tolerance."""
    worst = 0.0
    for route in ROUTES:
        for name, difference in largest_difference(step, folder / PUBLISHED, folder / route).items():
            worst = max(worst, difference)
            if not difference <= 1:
                msg = f"{data}: {name} of {step}, {route}, is {difference:.3g} tolerances away from normalisr's"
                raise SystemExit(msg)
    return worst


def benchmark(data: str, step: str, tiny: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the results of a step, then time it."""
    programs = (PUBLISHED, *ROUTES)
    options = {"blas_threads": arguments.blas_threads}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        results = Path(name)
        first = {
            program: measure(program, step, tiny, folder, results=results / program, **options) for program in programs
        }
        difference = compare(data, step, results)
    runs: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
    for _ in range(arguments.repeats):
        for program in programs:
            runs[program].append(measure_undisturbed(program, step, tiny, folder, **options))
    record: dict[str, Any] = {"data": data, "step": step, "difference_over_tolerance": difference, "programs": {}}
    goal = STEPS[step].goals.get(data)
    for program in programs:
        medians = {
            key: statistics.median(run[key] for run in runs[program]) for key in ("seconds", "first_call", "imports")
        }
        ratio = statistics.median(run["seconds"] for run in runs[PUBLISHED]) / medians["seconds"]
        record["programs"][program] = {
            "seconds": medians["seconds"],
            "all_seconds": [run["seconds"] for run in runs[program]],
            "shares_of_others": [run["share_of_others"] for run in runs[program]],
            "seconds_first_call": medians["first_call"],
            "seconds_imports": medians["imports"],
            "peak_megabytes": first[program]["peak_megabytes"],
            "megabytes_before": first[program]["megabytes_before"],
            "ratio": ratio,
            "goal": goal,
            "passes": None if goal is None or program == PUBLISHED else ratio >= goal,
        }
    return record


def show(record: dict[str, Any]) -> None:
    """Print one line a program."""
    for program, measured in record["programs"].items():
        verdict = "" if measured["passes"] is None else "PASS" if measured["passes"] else "short"
        goal = "" if measured["goal"] is None or program == PUBLISHED else f"{measured['goal']:g}×"
        print(
            f"{record['data']:<10} {record['step']:<12} {program:<10} {measured['seconds']:>8.3f} "
            f"{measured['ratio']:>6.2f}× {goal:>5} {verdict:<6} {measured['peak_megabytes']:>8.0f} "
            f"{measured['megabytes_before']:>8.0f} {measured['seconds_first_call']:>7.2f} "
            f"{max(measured['shares_of_others']):>7.0%}",
            flush=True,
        )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--steps", nargs="+", choices=STEPS, help="all by default, but for coex of the simulated data")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--blas-threads", type=int, default=1, help="of normalisr, beside its nth=2 (default: 1)")
    parser.add_argument("--folder", type=Path, help="where the files are written (removed afterwards)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        program, step, tiny, folder, *results = arguments.child
        run_child(program, step, [Path(tiny), Path(folder)], Path(results[0]) if results else None)
        return

    logging.disable(logging.CRITICAL)
    print(
        "seconds: median; MB: peak, and before the call; first: seconds of the first call, on tiny data; others: "
        "largest share of the cores that other programs took"
    )
    print("data       step         program     seconds   ratio  goal              MB   before   first  others")
    records = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        prepare(folder / "tiny", simulate_counts(60, 80, seed=0, median_depth=600, decades=2.0).counts)
        for data in arguments.data:
            counts = {"pbmc3k": pbmc3k, "simulated": simulated}[data]()
            prepare(folder / data, counts)
            for step in arguments.steps or [step for step in STEPS if (data, step) not in NOT_BY_DEFAULT]:
                record = benchmark(data, step, folder / "tiny", folder / data, arguments)
                show(record)
                records.append(
                    record | {"n_genes": counts.shape[0], "n_cells": counts.shape[1], "n_entries": counts.nnz}
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(description(arguments) | {"results": records}, indent=2) + "\n")


def description(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say what was compared with what."""
    packages = ("normalisr", "normalisr-dask", "numpy", "scipy", "numba", "dask", "zarr")
    return {
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "cores": N_CORES,
        "normalisr_nth": N_CORES,
        "normalisr_blas_threads": arguments.blas_threads,
        "normalisr_dask_threads": N_CORES,
        "normalisr_dask_blas_threads": 1,
        "repeats": arguments.repeats,
        "tolerance": TOLERANCE,
        "p_tolerance": P_TOLERANCE,
    }


if __name__ == "__main__":
    main()
