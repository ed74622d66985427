"""The screens of benchmarks/atlas.py: what is drawn, the same files by any number of threads, and its verdict."""

import gzip
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io

from normalisr_dask.storage.counts import open_counts
from normalisr_dask.storage.ingest import ingest

N_GENES, N_CELLS, N_GUIDES = 500, 3_000, 20
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def atlas_data() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return pytest.importorskip("atlas_data")


@pytest.fixture(scope="module")
def atlas() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return pytest.importorskip("atlas")


def test_a_screen_is_the_same_for_any_number_of_threads_and_can_be_ingested(
    atlas_data: ModuleType, tmp_path: Path
) -> None:
    written = [
        atlas_data.write_atlas(
            tmp_path / str(n_threads), n_cells=N_CELLS, n_genes=N_GENES, n_guides=N_GUIDES, n_threads=n_threads
        )
        for n_threads in (1, 2)
    ]
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "12")
    assert written[0] == written[1]
    assert one == two
    times = {content[4:8] for name, content in one.items() if name.endswith(".gz")}
    assert times == {bytes(4)}  # in the header of gzip: files made later are the same, too
    assert len(gzip.decompress(one["matrix.mtx.gz"])) == written[0]["n_characters"]

    store = ingest(tmp_path / "1", tmp_path / "counts.zarr")
    assert (store.n_genes, store.n_cells, store.n_entries) == (N_GENES, N_CELLS, written[0]["n_entries"])
    depths = open_counts(store.path).matrix.compute().sum(axis=0)
    assert 0.8 < np.median(depths) / atlas_data.MEDIAN_DEPTH < 1.2

    names = pd.read_csv(tmp_path / "1" / "guide_names.txt", header=None)[0]
    few, many = (scipy.io.mmread(tmp_path / "1" / f"{name}.mtx.gz").toarray() for name in ("guides", "many_guides"))
    assert few.shape == many.shape == (len(names), N_CELLS) == (N_GUIDES, N_CELLS)
    assert set(np.unique(few.sum(axis=0))) == {0, 1}
    assert ((few > 0) <= (many > 0)).all()
    assert abs((few.sum(axis=0) == 0).mean() - atlas_data.WITHOUT_GUIDE) < 0.05


def test_a_worker_beyond_its_limit_is_told(atlas: ModuleType) -> None:
    results = {
        "machine": {"cores": 2},
        "ingest": {"3000": {"peak_tree_megabytes": 900.0}},
        "exclude": {"3000": {"peak_worker_megabytes": 500.0}, "12000": {"peak_worker_megabytes": 501.0}},
    }
    assert atlas.beyond_limit(results, 501_000_000) == []
    assert atlas.beyond_limit(results, 500_000_000) == ["exclude 12000: a worker held 501 MB of 500 MB"]


def test_growth_is_told_in_cells_and_for_gene_pairs_in_genes(atlas: ModuleType) -> None:
    def measured(seconds: float, peak: float) -> dict[str, Any]:
        return {"seconds": seconds, "peak_worker_megabytes": peak, "stages": {"coex": {"seconds": seconds / 2}}}

    sizes = zip(atlas.COEX_SIZES, (measured(5.0, 50.0), measured(8.0, 100.0), measured(20.0, 100.0)), strict=True)
    results = atlas.with_ratios(
        {
            "exclude": {"1000": measured(10.0, 100.0), "4000": measured(30.0, 110.0), "8000": measured(70.0, 110.0)},
            "coex": {atlas.coex_label(*size): values for size, values in sizes},
        },
        [1000, 4000, 8000],
    )
    assert results["exclude"]["4000"]["ratio_of_seconds"] == 3.0
    assert results["exclude"]["4000"]["ratio_of_peaks"] == pytest.approx(1.1)
    assert "ratio_of_seconds" not in results["exclude"]["8000"]
    *smaller, largest = results["coex"].values()
    assert [value for name, value in largest.items() if name.startswith("ratio")] == [4.0, 2.0, 2.5, 1.0]
    assert all(set(values) == {"seconds", "peak_worker_megabytes", "stages"} for values in smaller)
