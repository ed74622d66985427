"""The lock of an output folder, between real processes."""

import os
import subprocess
import sys

import pytest

from normalisr_dask.storage.folder_lock import HOLDER, locked

HOLD = """
import sys
from normalisr_dask.storage.folder_lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_that_another_process_writes_to_is_refused(tmp_path, holder):
    with (
        pytest.raises(ValueError, match=f"another run is writing to .*out \\(process {holder.pid} on .*; wait until"),
        locked(tmp_path / "out"),
    ):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "out"):
        assert f"process {os.getpid()} on " in (tmp_path / "out" / HOLDER).read_text()


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such-file"), locked(tmp_path):
        (tmp_path / "no-such-file").read_text()
    with locked(tmp_path):
        pass
