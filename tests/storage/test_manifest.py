"""What is said where no run is."""

from pathlib import Path

import pytest

from normalisr_dask.storage.manifest import Manifest


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("here/resultz", r"there is no folder .*resultz; did you mean 'results'\?$"),
        ("nowhere/results", r"there is no folder .*nowhere/results$"),
        ("here/results/elsewhere", r"there is no folder .*elsewhere$"),
        ("here", r"here holds no run; in it are 'results'$"),
        ("here/results/results.zarr", r"results\.zarr is a part of the output .*here/results; give that folder$"),
        ("here/results/report.html", r"report\.html is a part of the output .*here/results; give that folder$"),
        ("here/empty", r"empty holds no run: there is no manifest\.json in it$"),
    ],
)
def test_a_place_without_a_run_is_told(tmp_path: Path, place: str, message: str) -> None:
    Manifest.begin(tmp_path / "here/results", {}, {})
    (tmp_path / "here/results/results.zarr").mkdir()
    (tmp_path / "here/empty").mkdir()
    (tmp_path / "here/results/report.html").touch()
    with pytest.raises(FileNotFoundError, match=message):
        Manifest.read(tmp_path / place)
