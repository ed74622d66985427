"""What a process takes and gives back."""

import platform

import numpy as np
import psutil
import pytest

from normalisr_dask.process_memory import release_freed

MEGABYTE = 1_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give back what they can by themselves")
def test_memory_that_was_freed_between_what_is_held_is_given_back():
    arrays = [np.ones(800) for _ in range(30_000)]  # 6.4 kB each, too small to be given back one by one
    held = arrays[::10]
    arrays.clear()
    before = psutil.Process().memory_info().rss
    release_freed()
    assert psutil.Process().memory_info().rss < before - 50 * MEGABYTE
    assert sum(array.sum() for array in held) == 800 * len(held)
