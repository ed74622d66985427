"""The border checks: what passes, and the line that is shown for what does not."""

import math
from pathlib import Path

import numpy as np
import pytest

from normalisr_dask.validation import (
    check_choice,
    check_count,
    check_fraction,
    check_positive,
    check_probability,
    check_writable,
    listing,
)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(1e-30), np.int64(3)])
def test_positive_numbers_pass(value):
    check_positive(value, "cut")


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_other_numbers_are_not_positive(value):
    with pytest.raises(ValueError, match=f"cut must be a positive number, not {value}"):
        check_positive(value, "cut")


@pytest.mark.parametrize("check", [check_positive, check_fraction, check_probability])
@pytest.mark.parametrize("value", ["1", None, True, 1j])
def test_what_is_no_number_is_a_type_error(check, value):
    with pytest.raises(TypeError, match="cut must be a number, not"):
        check(value, "cut")


@pytest.mark.parametrize("value", [0, 1, 0.02, np.float64(1)])
def test_fractions_pass(value):
    check_fraction(value, "fraction")


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_numbers_outside_0_to_1_are_no_fraction(value):
    with pytest.raises(ValueError, match=f"fraction must lie between 0 and 1, not {value}"):
        check_fraction(value, "fraction")


def test_a_probability_lies_strictly_inside_0_to_1():
    check_probability(0.05, "qcut")
    for value in (0, 1, -1, math.nan):
        with pytest.raises(ValueError, match=f"qcut must be above 0 and below 1, not {value}"):
            check_probability(value, "qcut")


def test_counts_are_whole_numbers_from_a_minimum_on():
    check_count(np.int32(0), "cells")
    check_count(2, "cells", minimum=2)
    with pytest.raises(ValueError, match="cells must be at least 2, not 1"):
        check_count(1, "cells", minimum=2)
    for value in (1.0, True, "3"):
        with pytest.raises(TypeError, match="cells must be a whole number, not"):
            check_count(value, "cells")


def test_a_choice_that_is_not_there_lists_what_is_and_suggests():
    check_choice("B", ["A", "B"], "level")
    with pytest.raises(ValueError, match=r"^level 'C' is not one of 'A', 'B'$"):
        check_choice("C", ["A", "B"], "level")
    with pytest.raises(ValueError, match=r"level 'controll' is not one of .*; did you mean 'control'\?"):
        check_choice("controll", ["treated", "control"], "level")


def test_long_lists_are_cut_and_counted():
    assert listing([]) == "nothing"
    assert listing(["a", "b"]) == "'a', 'b'"
    assert listing([str(number) for number in range(10_000)], shown=2) == "'0', '1' and 9,998 more"


def test_a_folder_to_write_to_may_be_there_or_not_and_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for folder in (tmp_path, tmp_path / "new", tmp_path / "a" / "b"):
        check_writable(folder, "--folder")
    for folder, found in ((tmp_path / "file", "file"), (tmp_path / "file" / "a", "file"), (tmp_path / "link", "link")):
        with pytest.raises(ValueError, match=f"/{found} is not a folder; give another place with --folder"):
            check_writable(folder, "--folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
