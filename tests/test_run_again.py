"""A run that is called again, or beside another: what stands, what is refused, and what is left to others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from distributed import Client, LocalCluster
from filelock import FileLock

from normalisr_dask import pipeline
from normalisr_dask.calibration import calibrate
from normalisr_dask.grouping_tests import GroupingTests
from normalisr_dask.pipeline import run
from normalisr_dask.run_inputs import read_inputs
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.storage.counts import open_counts
from normalisr_dask.storage.folder_lock import LOCK
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.testing import simulate_counts

N_GENES, N_CELLS = 60, 240


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    """A run on counts of random guides and batches."""
    random = np.random.default_rng(1)
    simulated = simulate_counts(N_GENES, N_CELLS, seed=1, median_depth=2000)
    obs = pd.DataFrame(
        {
            "guide": random.choice(["none", "a", "b", "c", "d", "e"], N_CELLS),
            "age": random.normal(50, 9, N_CELLS),
        },
        index=simulated.cell_names,
    )
    by_cell = simulated.counts.T.tocsr()
    with CountStoreWriter(tmp_path / "counts.zarr", obs=obs, var=pd.DataFrame(index=simulated.gene_names)) as writer:
        writer.append(np.diff(by_cell.indptr), by_cell.indices, by_cell.data)
        writer.finalise()
    return RunSettings(
        str(tmp_path / "counts.zarr"),
        str(tmp_path / "out"),
        groupby="guide",
        reference="none",
        covariate_columns=("age",),
        min_cell_reads=1,
        min_cell_genes=0,
    )


@pytest.mark.parametrize(
    ("column", "change"), [("guide/codes", lambda values: values[::-1]), ("age", lambda values: values + 1.0)]
)
def test_a_column_of_cells_that_has_changed_is_another_input(
    settings: RunSettings, client: Client, column: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    run(settings, client)
    obs = zarr.open_group(f"{settings.store}/obs", mode="r+")
    values = obs[column if column in obs else column.partition("/")[0]]
    values[:] = change(values[:])
    name = column.partition("/")[0]
    with pytest.raises(ValueError, match=f"holds a run on other column '{name}' of the cells; choose another output"):
        run(settings, client)


def test_permutations_stand_whatever_groupings_are_tested_together(
    settings: RunSettings, client: Client, tmp_path: Path
) -> None:
    run(settings, client)
    screen = read_inputs(settings).screen
    assert screen is not None
    tests = GroupingTests(settings, screen, ResultStore(settings.output), open_counts(settings.store), 2, 10)
    folder = tmp_path / "permutations"
    folder.mkdir()

    def inflation(rows_at_a_time: int) -> float:
        asked = {"permutations": 2, "seed": 3, "rows_at_a_time": rows_at_a_time, "folder": folder}
        return calibrate(tests, np.arange(5), standing=shares.append, **asked)["permuted"].inflation

    shares: list[float] = []
    whole = inflation(2)
    (folder / "1.npy").unlink()
    done = (folder / "0.npy").stat().st_mtime_ns
    assert inflation(3) == whole
    assert (folder / "0.npy").stat().st_mtime_ns == done
    assert shares == [0.0, 0.5]


def test_what_another_run_has_begun_at_the_same_time_is_left_to_it(
    settings: RunSettings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, own_lock = Path(settings.output), pipeline.locked

    @contextmanager
    def another_is_first(folder: str) -> Iterator[Callable[[], None]]:
        output.mkdir()
        with FileLock(output / LOCK), own_lock(folder) as still_held:
            yield still_held

    monkeypatch.setattr(pipeline, "locked", another_is_first)
    with pytest.raises(ValueError, match="another run is writing to"):
        run(settings, client)
    assert (output / LOCK).exists()


def test_bad_input_found_late_leaves_no_new_output(settings: RunSettings, client: Client) -> None:
    with pytest.raises(ValueError, match="expected some cells to pass quality control"):
        run(replace(settings, min_cell_reads=10**9), client)
    assert not Path(settings.output).exists()


def test_a_run_computes_on_the_client_it_is_given(settings: RunSettings) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as own_client,
    ):
        run(settings, own_client)
        assert len(cluster.scheduler.transition_log) > 0
        counted = {key for key, *_ in cluster.scheduler.transition_log}
    assert any("both_sums" in str(key) for key in counted)
