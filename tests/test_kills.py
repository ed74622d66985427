"""Runs that lose workers or the client again and again end with the bits of one that is left alone.

By benchmarks/kills.py, which does the same at larger size.
"""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "kills.py"
MOMENTS = 6

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="module")
def kills() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def job(kills: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run in many chunks, for want of memory."""
    folder = tmp_path_factory.mktemp("kills")
    kills["make_inputs"](folder, n_genes=2000, n_cells=8000, n_guides=24, seed=5)
    return kills["Job"](folder, "800MB", permutations=5)


@pytest.fixture(scope="module")
def undisturbed(kills: dict[str, Any], job: Any) -> tuple[dict[str, str], dict[str, float]]:
    digests, seconds = kills["undisturbed"](job)
    assert list(seconds) == ["start-up", "qc", "normalisation", "de", "calibration", "edges"]
    stages = {name.partition("/")[0] for name in digests if "/" in name}
    assert stages == {"qc", "normalisation", "de", "calibration", "edges"}
    assert {"de.parquet", "coex_edges.parquet"} <= digests.keys()
    return digests, seconds


def test_workers_are_killed_again_and_again(kills, job, undisturbed) -> None:
    expected, seconds = undisturbed
    interval = max(3.0, sum(seconds.values()) / 8)  # a worker that is not given the time to start does no work
    found = kills["with_workers_killed"](job, expected, interval=interval, generator=np.random.default_rng(1))
    assert found["identical"]
    assert found["killed"] >= 3


def test_the_client_is_killed_at_random_moments(kills, job, undisturbed) -> None:
    expected, seconds = undisturbed
    found = kills["with_client_killed"](
        job, expected, n_moments=MOMENTS, stages=seconds, generator=np.random.default_rng(2)
    )
    assert found["identical"]
    assert found["killed"] == MOMENTS
    assert any(found["killed_in"][stage] for stage in ("de", "calibration", "edges"))
    assert sum(times > 0 for times in found["killed_in"].values()) >= 3
