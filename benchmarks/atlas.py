"""Whole runs of the command at the size of an atlas: time, bytes read and peak memory of every stage.

    python benchmarks/atlas.py --folder FOLDER                                   all sizes; an hour and 40 GB of disk
    python benchmarks/atlas.py --folder FOLDER --cells 62500 250000 --parts ingest exclude
    python benchmarks/atlas.py --folder FOLDER --parts workers coex --json atlas.json

FOLDER keeps what was generated and ingested, so that parts can be run one after the other; what runs write is removed.
The data are those of atlas_data.py. Every part runs the command as a user does, in processes of its own, with the
memory of the process tree sampled from outside. It ends with exit code 1 if a worker has passed the memory limit.

ingest       matrix.mtx.gz to a count store, beside `gzip -dc | wc -l` on the same file
exclude      quality control, normalisation and 1,000 groupings, each against the cells that are in none (single=1)
covariates   the same with the other groupings as covariates (single=4), and some five guides a cell
workers      exclude at the largest number of cells with one worker, and with two
coex         6,000 genes × 37,500 cells, and 3,000 and 6,000 genes × 150,000 cells, beside the same products from
             NumPy's blocks in memory
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import threadpoolctl
from atlas_data import write_atlas

from normalisr_dask.process_memory import peak_bytes, reset_peak

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
CELLS, N_GENES = (62_500, 250_000, 1_000_000), 20_000
COEX_SIZES, COEX_BLOCK = ((6_000, 37_500), (3_000, 150_000), (6_000, 150_000)), 7_500
LIMIT = 1_500_000_000
SAMPLE_SECONDS = 0.05
MEGABYTE = 1e6
PARTS = ("ingest", "exclude", "covariates", "workers", "coex")
GUIDES = {"exclude": "guides.mtx.gz", "covariates": "many_guides.mtx.gz"}
KEEP_ALL = ["--min-gene-cells", "0", "--min-gene-cell-fraction", "0", "--min-cell-reads", "0", "--min-cell-genes", "0"]


def generated(folder: Path, n_cells: int, n_genes: int) -> Path:
    """Return the folder of a screen, generated if it is not there."""
    screen = folder / f"screen_{n_genes}x{n_cells}"
    facts = screen / "facts.json"
    if not facts.is_file():
        reset_peak()
        start = time.perf_counter()
        written = write_atlas(screen, n_cells=n_cells, n_genes=n_genes)
        took = {"seconds_to_generate": time.perf_counter() - start}
        facts.write_text(json.dumps(written | took | {"peak_megabytes_to_generate": peak_bytes() / MEGABYTE}))
    return screen


def store_of(screen: Path) -> Path:
    """Return the count store of a screen, ingested if it is not there."""
    store = screen / "counts.zarr"
    if not store.is_dir():
        subprocess.run([PROGRAM, "ingest", str(screen), str(store)], check=True)
    return store


def timed(command: list[str]) -> dict[str, float]:
    """Run a command and return its seconds, and the most memory that it and its children held together."""
    peak, start = 0, time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(_memory(process.pid)))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"seconds": time.perf_counter() - start, "peak_tree_megabytes": peak / MEGABYTE}


def _memory(pid: int) -> Iterator[int]:
    """Resident memory of a process and its children, in bytes; pages they share count once for each."""
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            yield member.memory_info().rss
    except psutil.NoSuchProcess:
        return


# ---- parts


def ingest(folder: Path, n_cells: int) -> dict[str, Any]:
    """Ingest one screen, beside what only unpacks it."""
    screen = generated(folder, n_cells, N_GENES)
    facts = json.loads((screen / "facts.json").read_text())
    matrix, store = screen / "matrix.mtx.gz", screen / "counts.zarr"
    shutil.rmtree(store, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run(f"gzip -dc {matrix} | wc -l", shell=True, check=True, stdout=subprocess.DEVNULL)
    unpacking = time.perf_counter() - start
    measured = timed([PROGRAM, "ingest", str(screen), str(store)])
    text = facts["n_characters"] / MEGABYTE
    return facts | measured | {"seconds_gzip_wc": unpacking, "text_megabytes_a_second": text / measured["seconds"]}


def run(folder: Path, n_cells: int, other_groupings: str, *, workers: int = 2) -> dict[str, Any]:
    """Run quality control, normalisation and differential expression."""
    screen = generated(folder, n_cells, N_GENES)
    groupings = ["--groupings", str(screen / GUIDES[other_groupings])]
    names = ["--grouping-names", str(screen / "guide_names.txt"), "--other-groupings", other_groupings]
    return _run(folder, store_of(screen), [*groupings, *names], workers)


def _run(folder: Path, store: Path, options: list[str], workers: int) -> dict[str, Any]:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    limits = ["--workers", str(workers), "--memory-limit", str(LIMIT), "--no-report"]
    measured = timed([PROGRAM, "run", str(store), "-o", str(out), *options, *limits])
    stages = json.loads((out / "manifest.json").read_text())["stages"]
    shutil.rmtree(out)
    kept = ("seconds", "peak_worker_bytes", "peak_client_bytes", "bytes_read")
    of_stages = {name: {key: stage.get(key) for key in kept} for name, stage in stages.items()}
    peak = max(stage["peak_worker_bytes"] for stage in stages.values())
    return measured | {"stages": of_stages, "peak_worker_megabytes": peak / MEGABYTE, "workers": workers}


def coex(folder: Path, n_genes: int, n_cells: int) -> dict[str, Any]:
    """Co-expression from a store, beside NumPy's product of as many cells, with as many threads."""
    screen = generated(folder, n_cells, n_genes)
    ours = _run(folder, store_of(screen), ["--coex", "--coex-store", "all", *KEEP_ALL], workers=2)
    random = np.random.default_rng(0)
    block = random.normal(size=(n_genes, COEX_BLOCK))
    product = np.zeros((n_genes, n_genes))
    with threadpoolctl.threadpool_limits(os.cpu_count() or 1):
        start = time.perf_counter()
        for _ in range(0, n_cells, COEX_BLOCK):
            product += block @ block.T
        seconds = time.perf_counter() - start
    of_pairs = ours["stages"]["coex"]["seconds"]
    return ours | {"seconds_numpy_product": seconds, "ratio": of_pairs / seconds}


def coex_label(n_genes: int, n_cells: int) -> str:
    """Return the name of what is measured of so many genes and cells."""
    return f"{n_genes} genes x {n_cells} cells"


# ---- all of it


def with_ratios(results: dict[str, Any], cells: list[int]) -> dict[str, Any]:
    """Add how seconds and peaks grow from a number of cells to four times as many, and what a second worker gives."""
    for part in ("ingest", "exclude", "covariates"):
        for few, many in pairwise(cells):
            of_few, of_many = (results.get(part, {}).get(str(number)) for number in (few, many))
            if many == 4 * few and of_few and of_many:
                peak = "peak_tree_megabytes" if part == "ingest" else "peak_worker_megabytes"
                of_many["ratio_of_seconds"] = of_many["seconds"] / of_few["seconds"]
                for stage, measured in of_many.get("stages", {}).items():
                    measured["ratio_of_seconds"] = measured["seconds"] / of_few["stages"][stage]["seconds"]
                of_many["ratio_of_peaks"] = of_many[peak] / of_few[peak]
    one, two = (results.get("workers", {}).get(number) for number in ("1", "2"))
    if one and two:
        two["times_as_fast_as_one"] = one["seconds"] / two["seconds"]
    *smaller, largest = (results.get("coex", {}).get(coex_label(*size)) for size in COEX_SIZES)
    for what, of_few in zip(("a_quarter_of_the_cells", "half_the_genes"), smaller, strict=True):
        if of_few and largest:
            few, many = (measured["stages"]["coex"]["seconds"] for measured in (of_few, largest))
            largest[f"ratio_of_coex_seconds_to_{what}"] = many / few
            peaks = largest["peak_worker_megabytes"] / of_few["peak_worker_megabytes"]
            largest[f"ratio_of_peaks_to_{what}"] = peaks
    return results


def processor() -> str:
    """Return what the processor calls itself: lines of one file may be of several machines."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def beyond_limit(results: dict[str, Any], limit: int) -> list[str]:
    """Return a line for each run of which a worker has held more than the limit."""
    return [
        f"{part} {label}: a worker held {measured['peak_worker_megabytes']:,.0f} MB of {limit / MEGABYTE:,.0f} MB"
        for part in PARTS
        for label, measured in results.get(part, {}).items()
        if measured.get("peak_worker_megabytes", 0) * MEGABYTE > limit
    ]


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=list(CELLS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, help="results; those of parts that are in it already stay")
    arguments = parser.parse_args()
    cells = sorted(arguments.cells)
    results: dict[str, Any] = {}
    if arguments.json and arguments.json.is_file():
        results = json.loads(arguments.json.read_text())
    results["machine"] = {"cores": os.cpu_count(), "memory_megabytes": psutil.virtual_memory().total // 1_000_000}
    results["versions"] = {name: version(name) for name in ("normalisr-dask", "dask", "zarr", "numpy", "numba")}
    results["versions"]["python"] = platform.python_version()
    for part in arguments.parts:
        if part == "coex":  # which measures all of its sizes
            results[part] = {}
        for label, measured in measure(part, arguments.folder, cells):
            results.setdefault(part, {})[label] = measured | {"processor": processor()}
            print(part, label, json.dumps(measured, indent=1), flush=True)
            if arguments.json:
                everything = json.dumps(with_ratios(results, cells), indent=2)
                arguments.json.write_text(everything + "\n")
    if beyond := beyond_limit(results, LIMIT):
        sys.exit("\n".join(beyond))


def measure(part: str, folder: Path, cells: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a part measures, each with its label."""
    if part == "coex":
        for size in COEX_SIZES:
            yield coex_label(*size), coex(folder, *size)
    elif part == "workers":
        for workers in (1, 2):
            yield str(workers), run(folder, cells[-1], "exclude", workers=workers)
    else:
        for n_cells in cells:
            yield str(n_cells), ingest(folder, n_cells) if part == "ingest" else run(folder, n_cells, part)


if __name__ == "__main__":
    main()
