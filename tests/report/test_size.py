"""The report of 1,000 groupings × 20,000 genes: its size, its time and memory, and how a browser takes it."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from scipy.special import log_ndtr

from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.storage.result_tables import edge_batch, write_edges

pytestmark = [pytest.mark.slow, pytest.mark.alone]

N_GROUPINGS, N_GENES, N_CELLS, N_EDGES = 1000, 20_000, 100_000, 1_000_000
ROWS = 50
HITS = 25

MEASURED = """
import json, time
from pathlib import Path
from normalisr_dask.process_memory import peak_bytes
from normalisr_dask.report import write_report
start = time.perf_counter()
size = write_report(Path({output!r})).stat().st_size
peak = peak_bytes()
print(json.dumps({{"size": size, "seconds": time.perf_counter() - start, "peak": peak}}))
"""


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result store with random results of the size of a genome-wide screen."""
    output = tmp_path_factory.mktemp("large") / "out"
    random = np.random.default_rng(0)
    settings = RunSettings(store="counts.zarr", output=str(output), groupby="guide", coex=True)
    manifest = Manifest.begin(output, asdict(settings), {})
    results = ResultStore(output)
    results.create()
    genes = np.array([f"ENSG{number:011d}" for number in range(N_GENES)], dtype=object)
    cells = np.array([f"ACGTACGTACGTACGT-{number}" for number in range(N_CELLS)], dtype=object)
    write_quality_and_normalisation(results, genes, cells, random)
    hits = write_tests(results, genes, random)
    degree = write_network(results, genes, random)
    done = {"seconds": 1.0, "peak_worker_bytes": 1 << 28, "peak_client_bytes": 1 << 28, "note": "", "warnings": []}
    details = {"de": {"hits": hits}, "edges": {"edges": int(degree.sum()), "qcut": 0.05}}
    for stage in ("qc", "normalisation", "de", "edges"):
        manifest.record(stage, done | details.get(stage, {}))
    return output


def write_quality_and_normalisation(results: ResultStore, genes, cells, random: np.random.Generator) -> None:
    totals = {"gene": random.lognormal(6, 2, N_GENES).astype(int) + 1, "cell": random.lognormal(8, 0.6, N_CELLS)}
    kept = {name: np.ones(values.size, dtype=bool) for name, values in totals.items()}
    results.write(
        "qc",
        {"gene": genes, "cell": cells},
        {
            "gene_total": totals["gene"],
            "gene_cells": np.minimum(totals["gene"], N_CELLS),
            "gene_kept": kept["gene"],
            "cell_total": totals["cell"].astype(int),
            "cell_genes": totals["cell"].astype(int) // 3,
            "cell_kept": kept["cell"],
        },
    )
    weights = 1 + random.gamma(3, 0.1, N_CELLS)
    results.write(
        "normalisation",
        {"gene": genes, "cell": cells, "qc_cell": cells, "covariate": np.array(["log_total_count", "constant"])},
        {
            "fitted_weight": weights,
            "weight_kept": kept["cell"],
            "log_cpm_offset": weights,
            "cell_weight": weights,
            "covariates": np.stack([random.normal(size=N_CELLS), np.ones(N_CELLS)]),
            "gene_scaling": random.random(N_GENES),
            "coefficients": random.normal(size=(N_GENES, 2)),
            "variance_factor": np.ones(N_GENES),
            "sum_of_squares": np.full(N_GENES, float(N_CELLS)),
        },
    )


def write_tests(results: ResultStore, genes, random: np.random.Generator) -> list[int]:
    """Fill the stage ``de`` and return the number of hits of every grouping."""
    names = np.array([f"GUIDE_OF_TARGET{number // 3}_sg{number % 3}" for number in range(N_GROUPINGS)], dtype=object)
    arrays = results.begin("de", {"grouping": names, "gene": genes}, {"grouping": ROWS})
    for start in range(0, N_GROUPINGS, ROWS):
        rows = slice(start, start + ROWS)
        z = random.normal(size=(ROWS, N_GENES))
        z[:, random.integers(0, N_GENES, HITS)] *= 9
        se = 0.05 + 0.2 * random.random((ROWS, N_GENES))
        log10_p = (log_ndtr(-np.abs(z)) + np.log(2)) / np.log(10)
        values = {"gamma": z * se, "se": se, "log10_pvalue": log10_p, "qvalue": np.minimum(1, 800 * 10**log10_p)}
        for name, block in values.items():
            arrays[name][rows] = block
    arrays["n_cells"][...] = 300
    arrays["varg"][...] = 1.0
    results.publish("de")
    return [HITS] * N_GROUPINGS


def write_network(results: ResultStore, genes, random: np.random.Generator) -> np.ndarray:
    """Write the table of edges and fill the stage ``edges``; return the degrees."""
    first, second = random.zipf(1.3, size=(2, N_EDGES)) % N_GENES
    r = random.uniform(-0.9, 0.9, N_EDGES)
    order = np.argsort(first, kind="stable")
    degree = write_edges(
        results,
        genes,
        [
            edge_batch(first[part], second[part], r[part], np.full(part.size, 1e-9), np.full(part.size, 1e-6))
            for part in np.array_split(order, 4)
        ],
    )
    results.write("edges", {"gene": genes}, {"degree": degree})
    return degree


@pytest.fixture(scope="module")
def measured(large_run: Path) -> dict[str, float]:
    """Size, seconds and peak memory of writing the report, in a process of its own."""
    script = MEASURED.format(output=str(large_run))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_size_and_memory(measured: dict[str, float]) -> None:
    assert measured["size"] < 5_000_000
    assert measured["seconds"] < 30
    assert measured["peak"] < 1_000_000_000  # with some 300 MB of imports; the tests alone are 640 MB
    print(f"{measured['size'] / 1e6:.1f} MB in {measured['seconds']:.1f} s, peak {measured['peak'] / 1e6:.0f} MB")


def test_a_browser_takes_it(large_run: Path, measured: dict[str, float], browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((large_run / "report.html").as_uri())
        assert page.locator("#picker option").count() == N_GROUPINGS
        page.get_by_label("Grouping", exact=True).select_option("GUIDE_OF_TARGET333_sg0")
        assert page.locator("#top tbody tr").count() == 40
        page.get_by_label("Search groupings").fill("TARGET42_")
        assert page.locator("#groupings tbody tr:visible").count() == 3
        assert errors == []
