"""Time and peak memory of ingest beside scipy.io.mmread, on a synthetic Matrix Market file.

    python benchmarks/ingest.py                                     16 million entries, .mtx and .mtx.gz
    python benchmarks/ingest.py --order gene                        the same, sorted by genes
    python benchmarks/ingest.py --entries 150e6 --memory-only       the promise on memory

Each measurement runs in a fresh process, after a first call on a tiny file, so that imports and compilation do not
count; they are reported apart. The matrices are compared before anything is printed. Ratios are of medians.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import scipy.io

from normalisr_dask.storage.count_store import open_count_store, read_cells
from normalisr_dask.storage.ingest import ingest

N_GENES = 33_000
ENTRIES_PER_CELL = 2_000
N_TEMPLATES = 500
SAMPLE_SECONDS = 0.02
MEGABYTE = 1e6
ALLOWED = {"mtx": 2.5, "mtx.gz": 1.4}  # ingest over mmread
ALLOWED_MEGABYTES = 700


def write_matrix(folder: Path, n_entries: int, *, order: str, seed: int = 0) -> Path:
    """Write a matrix of counts with gene and cell names, in the order of Cell Ranger or sorted by genes."""
    n_cells = max(n_entries // ENTRIES_PER_CELL, 1)
    n_entries = n_cells * ENTRIES_PER_CELL
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "genes.tsv").write_text("".join(f"ENSG{n:011d}\tG{n}\n" for n in range(N_GENES)))
    (folder / "barcodes.tsv").write_text("".join(f"CELL{n}-1\n" for n in range(n_cells)))
    write = _write_by_cell if order == "cell" else _write_by_gene
    path = folder / "matrix.mtx"
    with path.open("w") as file:
        file.write("%%MatrixMarket matrix coordinate integer general\n%\n")
        file.write(f"{N_GENES} {n_cells} {n_entries}\n")
        write(file, n_cells, rng)
    return path


def _write_by_cell(file: IO[str], n_cells: int, rng: np.random.Generator) -> None:
    """Write cell by cell, genes descending, as Cell Ranger does; cells share a few hundred sets of genes."""
    popularity = _popularity(rng)
    templates = []
    for _ in range(N_TEMPLATES):
        chosen = np.sort(rng.choice(N_GENES, ENTRIES_PER_CELL, replace=False, p=popularity)) + 1
        templates.append(chosen[::-1].astype(str).tolist())
    for cell in range(1, n_cells + 1):
        genes = templates[rng.integers(N_TEMPLATES)]
        counts = _counts(rng, ENTRIES_PER_CELL)
        file.write("".join([f"{gene} {cell} {count}\n" for gene, count in zip(genes, counts, strict=True)]))


def _write_by_gene(file: IO[str], n_cells: int, rng: np.random.Generator) -> None:
    """Write gene by gene, cells ascending."""
    n_left = n_cells * ENTRIES_PER_CELL
    shares = np.minimum((_popularity(rng) * n_left).astype(int), n_cells)
    for gene in range(N_GENES):
        rest = n_left - int(shares[gene + 1 :].sum())  # what flooring and capping took goes to the next genes
        size = min(n_cells, max(int(shares[gene]), rest))
        n_left -= size
        cells = (np.sort(rng.choice(n_cells, size, replace=False)) + 1).tolist()
        counts = _counts(rng, size)
        file.write("".join([f"{gene + 1} {cell} {count}\n" for cell, count in zip(cells, counts, strict=True)]))


def _popularity(rng: np.random.Generator) -> np.ndarray:
    """Probability of each gene."""
    weights = rng.gamma(0.3, 1, N_GENES) + 1e-3
    return weights / weights.sum()


def _counts(rng: np.random.Generator, size: int) -> list[int]:
    """Negative binomial counts above 0."""
    return (rng.negative_binomial(0.3, 0.1, size) + 1).tolist()


def compress(path: Path) -> Path:
    """Write the gzipped form of a matrix beside it."""
    packed = path.with_name(f"{path.name}.gz")
    with path.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
        while block := source.read(1 << 22):
            target.write(block)
    return packed


def run_child(task: str, path: Path, tiny: Path, store: Path) -> None:
    """Measure one task in this process, print seconds of imports, first call and task."""
    imports = time.time() - psutil.Process().create_time()
    tasks: dict[str, Callable[[Path], object]] = {
        "mmread": lambda matrix: scipy.io.mmread(matrix, spmatrix=False),
        "ingest": lambda matrix: ingest(matrix, store, overwrite=True),
    }
    seconds = []
    for matrix in (tiny, path):
        start = time.perf_counter()
        tasks[task](matrix)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"imports": imports, "first_call": seconds[0], "seconds": seconds[1]}))


def measure(task: str, path: Path, tiny: Path, store: Path, *, cache: Path | None = None) -> dict[str, float]:
    """Run a task in a fresh process and sample the memory of its process tree."""
    command: list[str] = [sys.executable, __file__, "--child", task, str(path), str(tiny), str(store)]
    environment = os.environ | ({"NUMBA_CACHE_DIR": str(cache)} if cache else {})
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        while process.poll() is None:
            peak = max(peak, sum(_memory(process.pid)))
            time.sleep(SAMPLE_SECONDS)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(output) | {"peak_megabytes": peak / MEGABYTE}


def _memory(pid: int) -> Iterator[int]:
    """Resident memory of a process and its children, in bytes."""
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            yield member.memory_info().rss
    except psutil.NoSuchProcess:
        return


def compare(path: Path, store: Path) -> None:
    """Stop unless the store holds what mmread reads."""
    expected = scipy.io.mmread(path, spmatrix=False).T.tocsr()
    description = open_count_store(store)
    for start in range(0, description.n_cells, 1000):
        stop = min(start + 1000, description.n_cells)
        if (read_cells(store, start, stop) != expected[start:stop]).nnz:
            msg = f"cells {start} to {stop} of {store} differ from {path}"
            raise SystemExit(msg)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=float, default=16e6)
    parser.add_argument("--order", choices=("cell", "gene"), default="cell")
    parser.add_argument("--memory-only", action="store_true", help="ingest the plain file once; no mmread, no .gz")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are written (removed afterwards)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, *paths = arguments.child
        run_child(task, *(Path(path) for path in paths))
        return

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        results = run(Path(name), arguments)
    print(json.dumps(results, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the files and measure."""
    store = folder / "store.zarr"
    tiny = write_matrix(folder / "tiny", 2 * ENTRIES_PER_CELL, order=arguments.order)
    path = write_matrix(folder / "matrix", int(arguments.entries), order=arguments.order)
    cold = measure("ingest", tiny, tiny, store, cache=folder / "cache")
    results: dict[str, Any] = {
        "entries": int(arguments.entries),
        "order": arguments.order,
        "seconds_imports": cold["imports"],
        "seconds_first_call_ever": cold["first_call"],
    }
    if arguments.memory_only:
        measured = measure("ingest", path, tiny, store)
        within = measured["peak_megabytes"] < ALLOWED_MEGABYTES
        return results | {"ingest": measured, "megabytes_file": path.stat().st_size / MEGABYTE, "within": within}

    for matrix in (path, compress(path)):
        runs: dict[str, list[dict[str, float]]] = {"mmread": [], "ingest": []}
        for _ in range(arguments.repeats):
            for task in runs:
                runs[task].append(measure(task, matrix, tiny, store))
        compare(path, store)
        medians = {task: statistics.median(run["seconds"] for run in measured) for task, measured in runs.items()}
        kind = matrix.name.partition(".")[2]
        ratio = medians["ingest"] / medians["mmread"]
        results[kind] = {
            "megabytes": matrix.stat().st_size / MEGABYTE,
            "seconds": medians,
            "ratio": ratio,
            "allowed_ratio": ALLOWED[kind],
            "peak_megabytes": {task: max(run["peak_megabytes"] for run in measured) for task, measured in runs.items()},
            "seconds_first_call": statistics.median(run["first_call"] for run in runs["ingest"]),
        }
    results["megabytes_store"] = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / MEGABYTE
    return results


if __name__ == "__main__":
    main()
