"""Workers that cannot go on end a command in one line."""

import logging
import re
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import LocalCluster
from typer.testing import CliRunner

from normalisr_dask.cli.app import app
from normalisr_dask.cli.computing import computing
from normalisr_dask.cluster import ClusterSettings

LIMIT = 600_000_000
held: list[np.ndarray] = []


def hold_up_to(n_bytes: int) -> None:
    """Keep so much memory that this process has so many bytes."""
    held.append(np.ones(n_bytes - psutil.Process().memory_info().rss, np.uint8))


def let_go() -> None:
    held.clear()


def test_workers_that_stay_paused_end_the_command() -> None:
    start = time.monotonic()

    def wait_for_memory() -> None:
        with computing(ClusterSettings(workers=1, memory_limit=LIMIT), patience=2.0) as client:
            client.run(hold_up_to, int(0.87 * LIMIT))  # paused from 0.8 on, ended at 0.95
            time.sleep(0.5)
            client.submit(time.sleep, 0.01).result()

    with pytest.raises(
        RuntimeError, match=r"for 2 seconds all workers .* give them more memory \(--memory-limit\) or have fewer"
    ):
        wait_for_memory()
    assert time.monotonic() - start < 20


def test_workers_that_are_paused_for_a_while_go_on() -> None:
    with computing(ClusterSettings(workers=1, memory_limit=LIMIT), patience=2.0) as client:
        client.run(hold_up_to, int(0.87 * LIMIT))
        time.sleep(0.5)
        waiting = client.submit(abs, -1)
        time.sleep(1.0)
        assert waiting.status == "pending"
        client.run(let_go)
        assert waiting.result(timeout=20) == 1


@pytest.mark.parametrize("dry_run", [True, False])
def test_too_little_memory_of_workers_that_others_started_names_their_options(
    count_store: Path, tmp_path: Path, *, dry_run: bool
) -> None:
    with LocalCluster(
        n_workers=1,
        memory_limit=400_000_000,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        words = ["run", str(count_store), "-o", str(tmp_path / "out"), "--scheduler", cluster.scheduler_address]
        result = CliRunner().invoke(app, words + ["--dry-run"] * dry_run)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert re.search(
        r" 381\.47 MiB .*; start workers with more memory \(dask worker --memory-limit 0\.\d\dGB or more\)", line
    )
    assert line.count("--memory-limit") == 1
    assert list(tmp_path.iterdir()) == []
