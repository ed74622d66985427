"""Time of vooma_lm_fit beside pylimma 0.2.0, on the same simulated data and one core, in one run.

    python benchmarks/limma.py                                     10,000 genes × 200 samples, all options; some minutes
    python benchmarks/limma.py --genes 5000 --samples 48           smaller
    python benchmarks/limma.py --options plain block --repeats 3   some of it, medians of three
    python benchmarks/limma.py --json limma.json                   also as JSON

Two groups of samples, blocks of four correlated samples, samples of different precision. Both programs get the same
NumPy array and give their whole fit, weights included. Every measurement runs in a fresh process with one BLAS thread,
after a first call on tiny data, so that imports and compilation do not count. The first run of each program gives its
results; if they differ by more than 1e-8 (relative, coefficients to their standard error) the benchmark ends with exit
code 1. Times are wall-clock; processor time is given beside, and says whether another program has disturbed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pylimma

import normalisr_dask.limma

PROGRAMS = {"normalisr-dask": normalisr_dask.limma, "pylimma": pylimma}
OPTIONS = {
    "plain": {},
    "sample-weights": {"sample_weights": True},
    "block": {"block": True},
    "both": {"sample_weights": True, "block": True},
}
#: Least ratio of times, pylimma's over ours.
GOALS = {"plain": 2, "sample-weights": 8, "block": 15, "both": 10}
BLOCK_SIZE = 4
TOLERANCE = 1e-8
SLOTS = ("coefficients", "stdev_unscaled", "sigma", "df_residual", "weights", "sample_weights", "correlation")


def simulate(n_genes: int, n_samples: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    block = np.arange(n_samples) // BLOCK_SIZE
    group = np.arange(n_samples) % 2
    mean = random.normal(7, 2, (n_genes, 1))
    deviation = np.sqrt(random.gamma(4, 0.25, (n_genes, 1))) * (0.4 + np.exp(-mean / 4))
    effects = np.where(np.arange(n_genes) < n_genes // 20, 1.0, 0.0)[:, None] * group
    shared = random.normal(0, 0.5, (n_genes, block[-1] + 1))[:, block]
    noise = random.normal(size=(n_genes, n_samples)) * random.uniform(0.6, 1.6, n_samples)
    expression = mean + effects + deviation * (shared + noise)
    return {"y": expression, "design": np.column_stack([np.ones(n_samples), group]), "block": block}


def fit(program: str, option: str, data: dict[str, np.ndarray]) -> dict[str, Any]:
    options: dict[str, Any] = dict(OPTIONS[option])
    if options.get("block"):
        options["block"] = data["block"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = PROGRAMS[program].vooma_lm_fit(data["y"], data["design"], **options)
    flat = {**found, **found["EList"], **found.get("targets", {})}
    return {name: np.asarray(flat[name]) for name in SLOTS if name in flat}


def measure(program: str, option: str, n_genes: int, n_samples: int, output: str) -> None:
    """Fit once and report; runs in a process of its own."""
    fit(program, option, simulate(60, 16))
    data = simulate(n_genes, n_samples)
    wall, processor = time.perf_counter(), time.process_time()
    results = fit(program, option, data)
    times = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    np.savez(output, **results)
    print(json.dumps(times))


def run(program: str, option: str, arguments: argparse.Namespace, output: Path) -> dict[str, float]:
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "NUMBA")}
    measured = subprocess.run(
        [
            *(sys.executable, __file__, "--measure", program, option, str(output)),
            *("--genes", str(arguments.genes), "--samples", str(arguments.samples)),
        ],
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(measured.stdout)


def largest_difference(ours: Path, theirs: Path) -> float:
    """Return the largest relative difference of any slot; of coefficients, over their standard error."""
    with np.load(ours) as found, np.load(theirs) as expected:
        if set(found.files) != set(expected.files):
            return float("inf")
        scale = {"coefficients": expected["stdev_unscaled"] * expected["sigma"][:, None]}
        return max(
            float(np.max(np.abs(found[name] - expected[name]) / scale.get(name, np.abs(expected[name]))))
            for name in expected.files
        )


def compare(option: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    times: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
    for repeat in range(arguments.repeats):
        for program in PROGRAMS:
            times[program].append(run(program, option, arguments, folder / f"{program}.npz"))
        if repeat == 0:
            difference = largest_difference(folder / "normalisr-dask.npz", folder / "pylimma.npz")
            if not difference <= TOLERANCE:
                sys.exit(f"{option}: results differ by {difference:.2g}, allowed are {TOLERANCE:g}")
    medians = {
        program: {kind: statistics.median(one[kind] for one in runs) for kind in ("wall", "processor")}
        for program, runs in times.items()
    }
    ratio = medians["pylimma"]["wall"] / medians["normalisr-dask"]["wall"]
    return {"option": option, "difference": difference, "times": medians, "ratio": ratio, "goal": GOALS[option]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        program, option, output = arguments.measure
        measure(program, option, arguments.genes, arguments.samples, output)
        return
    print(f"{arguments.genes:,} genes × {arguments.samples:,} samples; pylimma {version('pylimma')}; one core")
    print(
        f"{'option':16}{'pylimma s':>12}{'(cpu)':>9}{'ours s':>9}{'(cpu)':>9}{'ratio':>8}{'goal':>6}{'difference':>12}"
    )
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for option in arguments.options:
            line = compare(option, arguments, Path(folder))
            theirs, ours = line["times"]["pylimma"], line["times"]["normalisr-dask"]
            print(
                f"{option:16}{theirs['wall']:12.2f}{theirs['processor']:9.2f}{ours['wall']:9.2f}"
                f"{ours['processor']:9.2f}{line['ratio']:8.1f}{line['goal']:6}{line['difference']:12.1e}",
                flush=True,
            )
            lines.append(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=2))
    missed = [line["option"] for line in lines if line["ratio"] < line["goal"]]
    if missed:
        sys.exit(f"slower than the goal: {', '.join(missed)}")


if __name__ == "__main__":
    main()
