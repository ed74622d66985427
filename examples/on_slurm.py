"""A run on SLURM: the workers are jobs, which dask-jobqueue submits.

    pip install '.[slurm]'
    python examples/on_slurm.py OUT [--jobs N] [--partition NAME] [--interface NAME]

Simulates a small screen, submits jobs with one worker each, runs everything on them, and ends them. Takes about a
minute, and what the queue takes. OUT must be in a folder that all nodes share.

What to look at: the script of a job, which is printed, and the picture of what each stage took. The run begins with the
first job that starts; others join when they do, and one that ends, such as at the end of its walltime, is replaced.
"""

import argparse
import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from dask_jobqueue import SLURMCluster

import normalisr_dask as nd
from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.pipeline import run
from normalisr_dask.settings import RunSettings
from normalisr_dask.testing import simulate_screen, write_cell_ranger_folder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", type=Path)
parser.add_argument("--jobs", type=int, default=2)
parser.add_argument("--partition", help="by default SLURM's own")
parser.add_argument("--interface", help="network between nodes, such as ib0")
arguments = parser.parse_args()
out = arguments.out.resolve()
shutil.rmtree(out / "results", ignore_errors=True)

# 1. Counts, a table of guides, and a store.

screen = simulate_screen(n_genes=1200, n_cells=4000, n_guides=24, n_modules=2, seed=5)
write_cell_ranger_folder(out / "matrix", screen.counts, screen.gene_names, screen.cell_names)
guides = pd.DataFrame(screen.groupings.toarray().T, index=screen.cell_names, columns=screen.grouping_names)
guides.to_csv(out / "guides.tsv.gz", sep="\t", index_label="cell")
nd.ingest(out / "matrix", out / "counts.zarr", overwrite=True)

# 2. A scheduler in this process, and workers in jobs. Here a job is a worker with a core; on nodes with many cores, say
#    cores=32, processes=32, memory="128GB". Without an address of its own, the dashboard would be open to all.

settings = RunSettings(
    store=str(out / "counts.zarr"), output=str(out / "results"), groupings=str(out / "guides.tsv.gz"), coex=True
)
with SLURMCluster(
    queue=arguments.partition,
    cores=1,
    processes=1,
    memory="1500MB",
    walltime="00:30:00",
    interface=arguments.interface,
    log_directory=str(out / "logs"),
    local_directory="/tmp",
    scheduler_options={"dashboard_address": "127.0.0.1:0"},
) as cluster:
    print(cluster.job_script())
    cluster.adapt(minimum_jobs=arguments.jobs, maximum_jobs=arguments.jobs)  # has jobs that ended submitted again

    # 3. The run. `connect` waits for the first worker, sees that all have the same software, and holds their libraries
    #    to one thread. The command would do the same: normalisr-dask run … --scheduler with this address.

    with connect(ClusterSettings(scheduler=cluster.scheduler_address, worker_seconds=3600)) as client:
        summary = run(settings, client)
        print("workers at the end:", len(client.nthreads()))

print(f"{sum(grouping.n_hits for grouping in summary.groupings)} hits, {summary.edges:,} edges")

# 4. What each stage took.

stages = pd.DataFrame(json.loads((out / "results" / "manifest.json").read_text())["stages"])
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
stages.loc["seconds"].plot.barh(ax=axes, xlabel="seconds")
figure.savefig(out / "stages.png", dpi=150)
print(f"see {out / 'stages.png'}")
