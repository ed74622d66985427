"""Lines of association.py that are whole runs of the command on a local cluster, for the memory of its workers."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from association_de import write_store
from association_lines import OURS, Arrays, Line

from normalisr_dask.testing import simulate_counts

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
WORKERS, WORKER_LIMIT = 2, 1_500_000_000
#: Quality control keeps all genes and cells.
NO_QUALITY_CONTROL = [
    *("--min-gene-cells", "0", "--min-gene-cell-fraction", "0"),
    *("--min-cell-reads", "0", "--min-cell-genes", "0"),
]


def store_for_pairs(folder: Path) -> tuple[Arrays, Arrays]:
    """Count stores of 20,000 genes in 20,000 cells, 8 % not zero, and of a few."""
    paths = {}
    for name, n_genes, n_cells in (("tiny", 300, 500), ("whole", 20_000, 20_000)):
        counts = simulate_counts(n_genes, min(n_cells, 5_000), seed=10, median_depth=n_genes // 6, decades=2.5)
        paths[name] = folder / f"{name}.zarr"
        write_store(paths[name], counts.counts, counts.gene_names, n_cells)
    return tuple({"store": np.array(str(path))} for path in paths.values())  # type: ignore[return-value]


def our_run(data: Arrays, stored: str) -> Arrays:
    """Run co-expression from the store, and return the largest peak of a worker."""
    with tempfile.TemporaryDirectory(dir=Path(str(data["store"])).parent) as folder:
        out = Path(folder) / "out"
        options = ["--workers", str(WORKERS), "--memory-limit", str(WORKER_LIMIT), "--coex-store", stored]
        command = [PROGRAM, "run", str(data["store"]), "-o", str(out), "--coex", *options, *NO_QUALITY_CONTROL]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        stages = json.loads((out / "manifest.json").read_text())["stages"]
    return {"peak": np.array(max(stage["peak_worker_bytes"] for stage in stages.values()))}


def within_limit(data: Arrays, theirs: Arrays, ours: Arrays) -> float:
    """Compare the peak of a worker with its limit."""
    del data, theirs
    print(f"largest peak of a worker: {int(ours['peak']) / 1e6:.0f} MB", flush=True)
    return float(ours["peak"]) / WORKER_LIMIT


RUN_DATA = {"store for pairs": store_for_pairs}
RUN_LINES = {
    f"coex-memory-{stored}": Line(
        "store for pairs", OURS, {OURS: lambda data, stored=stored: our_run(data, stored)}, within_limit, goal=1.0
    )
    for stored in ("all", "edges")
}
