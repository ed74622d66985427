"""Matrices as text: time beside NumPy's loadtxt and savetxt, and peak memory of commands on matrices of two sizes.

Usage: python benchmarks/text_matrices.py [--rows N] [--columns N]

Both programs write and read the same matrix with eight digits, plain and gzipped, and what they give is compared
first. Medians of three runs; NumPy compresses once, since that takes long. Then ``subset`` copies matrices of one and
of two sizes, in a process of its own, and its peak memory must not grow with them.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from normalisr_dask.storage.number_text import read_rows, write_rows

REPEATS = 3
#: Peak memory of the larger matrix over that of the smaller one that still counts as no growth.
GROWTH = 1.25
CHILD = """
from normalisr_dask.cli import main
from normalisr_dask.process_memory import peak_bytes
try:
    main()
except SystemExit as error:
    assert not error.code
print(peak_bytes())
"""


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Return wall-clock and CPU seconds of a call, medians."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def compare(folder: Path, matrix: np.ndarray, suffix: str) -> Iterator[tuple[str, float, float, float, float]]:
    """Yield what, our wall-clock and CPU seconds, and NumPy's."""
    ours, numpys = folder / f"ours{suffix}", folder / f"numpys{suffix}"
    gzipped = suffix.endswith(".gz")
    written = seconds(lambda: write_rows(ours, [matrix], gzipped=gzipped))
    by_numpy = seconds(lambda: np.savetxt(numpys, matrix, "%.8G", "\t"), 1 if gzipped else REPEATS)
    found, expected = (np.concatenate(list(read_rows(path))) for path in (ours, numpys))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, np.loadtxt(numpys, delimiter="\t"))
    yield f"write {suffix}", *written, *by_numpy
    read = seconds(lambda: list(read_rows(ours)))
    yield f"read {suffix}", *read, *seconds(lambda: np.loadtxt(ours, delimiter="\t"))


def peak_of_subset(folder: Path, n_rows: int, n_columns: int) -> int:
    """Return the peak memory of the command that copies a matrix of this size, in bytes."""
    random = np.random.default_rng(1)
    heights = [100] * (n_rows // 100)
    write_rows(folder / "in.tsv", (random.normal(size=(height, n_columns)) for height in heights), gzipped=False)
    (folder / "names").write_text("\n".join(map(str, range(n_columns))))
    words = [sys.executable, "-c", CHILD, "subset", "in.tsv", "out.tsv", "-c", "names", "names"]
    return int(subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Print both tables; the exit code is 1 if NumPy was faster in anything, or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--columns", type=int, default=2000)
    sizes = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matrix = np.random.default_rng(0).normal(size=(sizes.rows, sizes.columns))
        write_rows(folder / "warm.tsv", [matrix[:2]], gzipped=False)
        list(read_rows(folder / "warm.tsv"))
        print(f"{matrix.size / 1e6:.1f} million numbers, seconds (CPU seconds)")
        for suffix in (".tsv", ".tsv.gz"):
            for what, wall, cpu, numpy_wall, numpy_cpu in compare(folder, matrix, suffix):
                ratio = numpy_wall / wall
                good &= ratio >= 1
                print(
                    f"{what:14} {wall:7.2f} ({cpu:.2f})   NumPy {numpy_wall:7.2f} ({numpy_cpu:.2f})   ratio {ratio:.1f}"
                )
        small, large = (peak_of_subset(folder, n_rows, 20_000) for n_rows in (2000, 4000))
        good &= large <= GROWTH * small
        print(f"peak of subset: {small / 1e6:.0f} MB for 320 MB of float64, {large / 1e6:.0f} MB for 640 MB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
