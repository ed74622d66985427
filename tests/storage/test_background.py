"""Iterating in another thread."""

import threading
from itertools import count

import pytest

from normalisr_dask.storage.background import in_background, mapped_in_threads


def test_items_come_in_order_from_another_thread():
    threads = set()

    def items():
        for number in range(20):
            threads.add(threading.get_ident())
            yield number

    assert list(in_background(items(), ahead=1)) == list(range(20))
    assert threading.get_ident() not in threads


def test_errors_are_raised_by_the_reader():
    def items():
        yield 1
        msg = "line 2 is bad"
        raise ValueError(msg)

    read = in_background(items())
    assert next(read) == 1
    with pytest.raises(ValueError, match="line 2 is bad"):
        next(read)


def test_closing_early_ends_the_thread_and_closes_the_items():
    closed = threading.Event()

    def items():
        try:
            yield from count()
        finally:
            closed.set()

    n_threads = threading.active_count()
    read = in_background(items())
    assert next(read) == 0
    assert threading.active_count() == n_threads + 1
    read.close()
    assert closed.is_set()
    assert threading.active_count() == n_threads


def test_threads_keep_the_order_and_take_little_ahead():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = mapped_in_threads(lambda number: number**2, items(), threads=3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) <= 9
    assert list(results) == [number**2 for number in range(5, 50)]


def test_errors_in_threads_are_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(mapped_in_threads(lambda number: 1 / number, iter([1, 0, 2]), threads=2))
