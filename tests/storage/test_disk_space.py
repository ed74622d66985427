"""Which disk is said to be full."""

import errno
import os
from pathlib import Path

import pytest

from normalisr_dask.storage.disk_space import disk_full_errors


def fill(folder: Path | str, *named: object) -> None:
    with disk_full_errors(folder, "make room"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *named)


def test_the_folder_that_is_written_to_is_named(tmp_path: Path) -> None:
    for named in ([], [str(tmp_path / "out" / "work" / "c" / "0")], [tmp_path / "out.partial"]):
        with pytest.raises(OSError, match="no space left on the disk of ") as told:
            fill(tmp_path / "out", *named)
        assert str(told.value).startswith(f"no space left on the disk of {tmp_path / 'out'}; make room (")


@pytest.mark.parametrize("output", ["out", "s3://bucket/out"])
def test_a_disk_elsewhere_is_named_by_the_file_that_could_not_be_made(tmp_path: Path, output: str) -> None:
    folder = output if "://" in output else tmp_path / output
    spilled = Path("/scratch/worker-1").absolute()
    for name in (str(spilled), os.fsencode(spilled), spilled):
        with pytest.raises(OSError, match="no space left on the disk of ") as told:
            fill(folder, name)
        assert str(told.value).startswith(f"no space left on the disk of {spilled.parent}; make room (")


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="no way"), disk_full_errors(tmp_path, "make room"):
        raise PermissionError(errno.EACCES, "no way", str(tmp_path))
