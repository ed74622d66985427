"""The same run on a cluster: a scheduler, workers, and one command that names them.

    python examples/on_a_cluster.py OUT [--workers N]

Runs a small simulated screen twice: with the local cluster that the command starts by itself, and on a scheduler with
workers that are started here as they would be on other machines. Takes about a minute.

What to look at: the results are the same to the last bit, and the picture of time and memory by stage. What differs on
a real cluster is how scheduler and workers are started. They need this package and the folder of the stores in common.

For SLURM, docs/clusters.md has a job script, and on_slurm.py submits workers from Python.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from normalisr_dask.testing import simulate_screen, write_cell_ranger_folder

PROGRAMS = Path(sys.executable).parent


@contextmanager
def running(*command: str) -> Iterator[None]:
    """Keep a program running until the block ends."""
    with subprocess.Popen([PROGRAMS / "dask", *command], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def run(*arguments: str | Path) -> None:
    """Run normalisr-dask, as on the command line."""
    command = [str(argument) for argument in arguments]
    print("$ normalisr-dask", *command, flush=True)
    subprocess.run([PROGRAMS / "normalisr-dask", *command], check=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", type=Path)
parser.add_argument("--workers", type=int, default=2)
arguments = parser.parse_args()
out = arguments.out
for folder in ("local", "cluster"):
    shutil.rmtree(out / folder, ignore_errors=True)

# 1. Counts as Cell Ranger leaves them, a table of guides, and a store.

screen = simulate_screen(n_genes=1200, n_cells=4000, n_guides=24, n_modules=2, seed=5)
write_cell_ranger_folder(out / "matrix", screen.counts, screen.gene_names, screen.cell_names)
guides = pd.DataFrame(screen.groupings.toarray().T, index=screen.cell_names, columns=screen.grouping_names)
guides.to_csv(out / "guides.tsv.gz", sep="\t", index_label="cell")
run("ingest", out / "matrix", out / "counts.zarr", "--overwrite")

# 2. On this machine. The command starts workers by itself, as many as there are processors, unless told otherwise.

asked = ("run", out / "counts.zarr", "--groupings", out / "guides.tsv.gz", "--coex")
run(*asked, "-o", out / "local", "--workers", str(arguments.workers))

# 3. On a cluster. The scheduler writes its address to a file, by which workers and the command find it. Workers may be
#    killed and others join: what was lost is computed again.

scheduler_file = out / "scheduler.json"
scheduler_file.unlink(missing_ok=True)
with ExitStack() as cluster:
    local_only = ("--host", "127.0.0.1")  # leave this out where workers are on other machines
    cluster.enter_context(running("scheduler", *local_only, "--port", "0", "--scheduler-file", str(scheduler_file)))
    for _ in range(arguments.workers):
        options = (
            *local_only,
            "--nthreads",
            "1",
            "--memory-limit",
            "1500MB",
            "--local-directory",
            str(out / "spilled"),
        )
        cluster.enter_context(running("worker", "--scheduler-file", str(scheduler_file), *options))
    run(*asked, "-o", out / "cluster", "--scheduler-file", scheduler_file)

# 4. The same bits, whoever computed them.

for table in ("de.parquet", "coex_edges.parquet"):
    assert (out / "local" / table).read_bytes() == (out / "cluster" / table).read_bytes(), f"{table} differs"
print("the tables of both runs are the same, byte by byte")

# 5. What each stage took.

manifests = {place: json.loads((out / place / "manifest.json").read_text()) for place in ("local", "cluster")}
seconds = pd.DataFrame({place: pd.DataFrame(found["stages"]).loc["seconds"] for place, found in manifests.items()})
memory = pd.DataFrame(
    {place: pd.DataFrame(found["stages"]).loc["peak_worker_bytes"] / 1e6 for place, found in manifests.items()}
)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
seconds.plot.barh(ax=left, xlabel="seconds")
memory.plot.barh(ax=right, xlabel="peak memory of a worker, MB", legend=False)
figure.savefig(out / "stages.png", dpi=150)
print(f"see {out / 'stages.png'}")
