"""The promise on memory: 20,000 genes of 5,000 samples on workers of 1.5 GB."""

import dask.array as da
import numpy as np
import pytest
import zarr

from normalisr_dask import vooma_lm_fit
from normalisr_dask.cluster import ClusterSettings, connect, worker_peaks

pytestmark = [pytest.mark.slow, pytest.mark.alone]

N_GENES, N_SAMPLES, SAMPLES_PER_DONOR = 20_000, 5_000, 10
GENES_AT_A_TIME = 500
WORKER_LIMIT = 1_500_000_000
DONORS = np.arange(N_SAMPLES) // SAMPLES_PER_DONOR
DESIGN = np.column_stack([np.ones(N_SAMPLES), DONORS % 2, np.arange(N_SAMPLES) % 5 == 0]).astype(float)


@pytest.fixture(scope="module")
def large_array(tmp_path_factory: pytest.TempPathFactory) -> zarr.Array:
    """Log-expression with a correlation of 0.2 within donors."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("limma") / "y.zarr"
    array = zarr.create_array(path, shape=(N_GENES, N_SAMPLES), chunks=(GENES_AT_A_TIME, 1000), dtype="float32")
    for start in range(0, N_GENES, GENES_AT_A_TIME):
        donors = random.normal(0, 0.5, (GENES_AT_A_TIME, DONORS[-1] + 1))[:, DONORS]
        noise = random.standard_normal((GENES_AT_A_TIME, N_SAMPLES), dtype=np.float32)
        array[start : start + GENES_AT_A_TIME] = random.normal(6, 2, (GENES_AT_A_TIME, 1)) + donors + noise
    return array


def test_workers_stay_within_their_limit(large_array: zarr.Array) -> None:
    with connect(ClusterSettings(workers=2, memory_limit=WORKER_LIMIT)) as client:
        fit = vooma_lm_fit(large_array, DESIGN, block=DONORS)
        peaks = worker_peaks(client)
    assert fit["correlation"] == pytest.approx(0.2, abs=0.01)
    assert isinstance(fit["EList"]["weights"], da.Array)
    assert len(peaks) == 2
    assert max(peaks.values()) < WORKER_LIMIT


def test_sample_weights_too(large_array: zarr.Array) -> None:
    few = da.from_zarr(large_array)[:150]  # the chain of genes takes time, and its memory is that of any number
    with connect(ClusterSettings(workers=1, memory_limit=WORKER_LIMIT)) as client:
        fit = vooma_lm_fit(few, DESIGN, block=DONORS, sample_weights=True)
        peaks = worker_peaks(client)
    assert np.ptp(fit["targets"]["sample_weights"]) < 1.5
    assert max(peaks.values()) < WORKER_LIMIT
