"""What a task may use, and the refusal of one that would use more."""

import re

import pytest

from normalisr_dask.graph.memory import (
    TaskPlan,
    TaskTooLargeError,
    check_fits,
    dense_block_bytes,
    sparse_block_bytes,
    task_allowance,
)


def test_threads_share_what_the_process_leaves():
    one, two = task_allowance(2_000_000_000, 1), task_allowance(2_000_000_000, 2)
    assert 0.4e9 < one < 1.2e9
    assert abs(one - 2 * two) <= 1
    assert task_allowance(100_000_000, 1) < 0


def test_a_task_that_fits_passes():
    check_fits(TaskPlan("normvar", task_allowance(10**9, 2)), 10**9, 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_task_that_does_not_fit_is_refused_with_a_limit_that_suffices(threads):
    task = TaskPlan("normvar", 2 * 10**9)
    with pytest.raises(ValueError, match=r"the largest task \(normvar\) needs 1\.86 GiB, allowed are") as refusal:
        check_fits(task, 10**9, threads)
    message = str(refusal.value)
    assert ("fewer --threads-per-worker" in message) == (threads > 1)
    suggested = float(re.search(r"--memory-limit ([\d.]+)GB", message).group(1))
    check_fits(task, round(suggested * 1e9), threads)
    with pytest.raises(ValueError, match="the largest task"):
        check_fits(task, round((suggested - 0.01) * 1e9), threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_of_workers_that_others_started_their_options_are_named(threads):
    with pytest.raises(TaskTooLargeError) as refusal:
        check_fits(TaskPlan("normvar", 10**9), 10**9, threads)
    message = refusal.value.of_started_workers
    assert message.startswith("the largest task (normvar) needs 0.93 GiB, allowed are ")
    assert re.search(r"; start workers with more memory \(dask worker --memory-limit [\d.]+GB or more\)", message)
    assert ("--nthreads" in message) == (threads > 1)
    assert "--threads-per-worker" not in message


def test_a_limit_below_the_process_itself_allows_nothing():
    with pytest.raises(ValueError, match=r"allowed are 0 B of a worker's 95\.37 MiB"):
        check_fits(TaskPlan("lcpm", 1), 10**8, 1)


def test_bytes_of_blocks():
    assert dense_block_bytes(100, 10, 2) == 16_000
    assert sparse_block_bytes(1000) >= 1000 * 20
