"""What Dask costs: whole runs of the command beside the work of their tasks, and beside normalisr 1.0.0's chain.

    python benchmarks/overhead.py                     both tables
    python benchmarks/overhead.py --json overhead.json

The first table runs quality control, normalisation and 20 random groupings on pbmc3k (from the folder that
NORMALISR_DASK_TEST_DATA names), with and without co-expression, on one worker, and compares the seconds of its stages
with those that the worker spent in tasks, as Dask's task stream tells. Starting the cluster is left aside, and a first
run has compiled everything.

The second starts two processes on 6,000 genes × 10,000 simulated cells in a Cell Ranger folder: `ingest` and then `run`
with --workers 2; and a script that reads the same files with SciPy and goes through normalisr's functions with nth=2.
All of each counts, imports and cluster too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.io
from distributed import get_task_stream

from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.pipeline import run
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.count_store import open_count_store
from normalisr_dask.storage.ingest import ingest
from normalisr_dask.testing import simulate_counts, write_cell_ranger_folder

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
N_GROUPINGS = 20
ALLOWED_OVER_TASKS = 2.5
KEEP_ALL = ["--min-gene-cells", "0", "--min-gene-cell-fraction", "0", "--min-cell-reads", "0", "--min-cell-genes", "0"]


def write_groupings(path: Path, cells: list[str]) -> None:
    """Write a table of random groupings, each of a tenth of the cells."""
    values = (np.random.default_rng(0).random((len(cells), N_GROUPINGS)) < 0.1).astype(np.int8)
    table = pd.DataFrame(
        values, index=pd.Index(cells, name="cell"), columns=[f"grouping{n}" for n in range(N_GROUPINGS)]
    )
    table.to_csv(path, sep="\t")


def over_tasks(folder: Path, repeats: int) -> dict[str, Any]:
    """Compare the seconds of stages with those of their tasks, on pbmc3k."""
    with tarfile.open(
        Path(os.environ["NORMALISR_DASK_TEST_DATA"]) / "pbmc3k_filtered_gene_bc_matrices.tar.gz"
    ) as archive:
        archive.extractall(folder, filter="data")
    store, table = folder / "pbmc3k.zarr", folder / "groupings.tsv"
    ingest(folder / "filtered_gene_bc_matrices" / "hg19", store)
    write_groupings(table, open_count_store(store).cells().tolist())
    results = {}
    with connect(ClusterSettings(workers=1)) as client:
        for coex in (False, True):
            measured = []
            for repeat in range(repeats + 1):
                out = folder / f"out{coex}{repeat}"
                settings = RunSettings(store=str(store), output=str(out), groupings=str(table), coex=coex)
                with get_task_stream(client) as stream, warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    seconds = run(settings, client).seconds
                spans = [span for task in stream.data for span in task["startstops"] if span["action"] == "compute"]
                measured.append((seconds, sum(span["stop"] - span["start"] for span in spans), len(stream.data)))
            seconds, in_tasks, n_tasks = (statistics.median(column) for column in zip(*measured[1:], strict=True))
            results["with coex" if coex else "without coex"] = {
                "seconds": seconds,
                "seconds_in_tasks": in_tasks,
                "tasks": n_tasks,
                "ratio": seconds / in_tasks,
                "allowed_ratio": ALLOWED_OVER_TASKS,
            }
    return results


def beside_normalisr(folder: Path, repeats: int) -> dict[str, Any]:
    """Compare whole processes on simulated counts."""
    simulated = simulate_counts(6_000, 10_000, seed=1, median_depth=4_000, decades=2.5)
    screen, table = folder / "screen", folder / "screen.tsv"
    write_cell_ranger_folder(screen, simulated.counts, simulated.gene_names, simulated.cell_names)
    write_groupings(table, simulated.cell_names)
    seconds: dict[str, list[float]] = {"normalisr": [], "ours": []}
    for repeat in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, __file__, "--child", str(screen), str(table)], check=True)
        seconds["normalisr"].append(time.perf_counter() - start)
        store, out = folder / f"screen{repeat}.zarr", folder / f"screen{repeat}"
        options = ["--groupings", str(table), "--workers", "2", "--no-report", *KEEP_ALL]
        start = time.perf_counter()
        for command in (["ingest", str(screen), str(store)], ["run", str(store), "-o", str(out), *options]):
            subprocess.run([PROGRAM, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds["ours"].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"seconds": medians, "ratio": medians["ours"] / medians["normalisr"], "allowed_ratio": 1.0}


def published_chain(screen: Path, table: Path) -> None:
    """Go through normalisr's functions, from files to P-values."""
    warnings.simplefilter("ignore")
    import normalisr.normalisr as published  # noqa: PLC0415  this process alone pays for it

    counts = scipy.io.mmread(screen / "matrix.mtx.gz", spmatrix=False).toarray().astype(np.int64)
    groupings = pd.read_csv(table, sep="\t", index_col=0).to_numpy().T.astype(float)
    genes, cells = published.qc_reads(counts, 0, 0, 0, 0, 0, 0)
    counts, groupings = counts[genes][:, cells], groupings[:, cells]
    log_cpm, _, _, summary = published.lcpm(counts, nth=2)
    covariates = published.normcov(summary)
    weights, scaling = published.compute_var(log_cpm, covariates), published.scaling_factor(counts)
    kept = published.qc_outlier(weights)
    log_cpm, covariates, weights = log_cpm[:, kept], covariates[:, kept], weights[kept]
    normalised = published.normvar(log_cpm, covariates, weights, scaling, nth=2)
    published.de(groupings[:, kept], *normalised, nth=2)


def main() -> None:
    """Run both comparisons from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are written (removed afterwards)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        published_chain(*arguments.child)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        results = {
            "stages over tasks, pbmc3k, 1 worker": over_tasks(Path(name), arguments.repeats),
            "processes, 6,000 x 10,000": beside_normalisr(Path(name), arguments.repeats),
        }
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
