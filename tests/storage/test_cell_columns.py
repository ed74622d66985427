"""Columns of the cell table as groupings and covariates."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from normalisr_dask.storage.cell_columns import groupings_from_column, one_hot_covariates

CELLS = [f"cell_{number}" for number in range(7)]


class TestOneHotCovariates:
    def test_labels_lose_their_first_in_sorted_order_and_numbers_stay(self):
        frame = pd.DataFrame(
            {
                "batch": pd.Categorical(["c", "a", "b", "c"], categories=["c", "b", "a", "unused"]),
                "depth": [1, 2, 3, 5],
                "fresh": [True, False, True, True],
                "donor": ["NA", "D2", "D2", "D2"],
                "plate": pd.Categorical([10, 9, 10, 9]),
            },
            index=list("wxyz"),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # four cells cannot hold six independent covariates
            names, values = one_hot_covariates(frame)
        assert names == ("batch=b", "batch=c", "depth", "fresh=True", "donor=NA", "plate=10")
        assert values.dtype == np.float64
        assert_array_equal(values, [[0, 0, 1, 0], [1, 0, 0, 1], [1, 2, 3, 5], [1, 0, 1, 1], [1, 0, 0, 0], [1, 0, 1, 0]])

    def test_no_columns_are_no_covariates(self):
        names, values = one_hot_covariates(pd.DataFrame(index=CELLS))
        assert names == ()
        assert values.shape == (0, 7)

    @pytest.mark.parametrize(
        ("column", "shown"),
        [
            ([1, np.nan, 3], "no value"),
            ([1, np.inf, 3], "inf"),
            (["a", None, "b"], "no value"),
            (pd.array([1, None, 3]), "no value"),
        ],
    )
    def test_a_missing_value_is_named(self, column, shown):
        frame = pd.DataFrame({"fine": [1, 2, 3], "broken": column}, index=["x", "y", "z"])
        with pytest.raises(ValueError, match=rf"covariate 'broken' has {shown} for cell 'y' \(1 such cells\); fill it"):
            one_hot_covariates(frame)

    def test_constant_columns_are_named_all(self):
        frame = pd.DataFrame({"a": 1, "b": "only", "c": range(3), "d": True}, index=["x", "y", "z"])
        with pytest.raises(ValueError, match="covariates with one value in all 3 cells: 'a', 'b', 'd'; leave them out"):
            one_hot_covariates(frame)

    def test_a_column_of_names_is_no_covariate(self):
        frame = pd.DataFrame({"barcode": [f"cell_{number}" for number in range(1500)]})
        with pytest.raises(ValueError, match="covariate 'barcode' has 1,500 labels"):
            one_hot_covariates(frame)

    def test_covariates_that_others_determine_are_named(self):
        generator = np.random.default_rng(1)
        depth, mito = generator.normal(size=(2, 500)) * [[1e6], [1e-6]] + [[1e7], [3]]
        batch = generator.integers(0, 3, 500)
        frame = pd.DataFrame(
            {
                "depth": depth,
                "batch": batch.astype(str),
                "mito": mito,
                "is_batch_0": batch == 0,
                "mixed": 2 * depth - 1e11 * mito + 5,
            }
        )
        with pytest.warns(UserWarning, match="that the others determine: 'is_batch_0=True', 'mixed'; they change"):
            one_hot_covariates(frame)

    def test_covariates_that_are_close_but_independent_pass_silently(self):
        generator = np.random.default_rng(2)
        depth = generator.normal(size=500)
        frame = pd.DataFrame({"depth": depth, "nearly": depth + 1e-5 * generator.normal(size=500)})
        names, _ = one_hot_covariates(frame)
        assert names == ("depth", "nearly")


class TestGroupingsFromColumn:
    SERIES = pd.Series(["b", "control", "a", "b", "control", "c", "a"], index=CELLS, name="guide")

    def test_each_label_is_a_grouping(self):
        groupings = groupings_from_column(self.SERIES)
        assert groupings.names == ("a", "b", "c", "control")
        assert list(groupings.cells) == CELLS
        expected = [[label == name for label in self.SERIES] for name in groupings.names]
        assert_array_equal(groupings.values.toarray(), np.array(expected, dtype=np.float64))

    def test_cells_of_the_reference_are_in_no_grouping(self):
        groupings = groupings_from_column(self.SERIES.astype("category"), reference="b")
        assert groupings.names == ("a", "c", "control")
        assert_array_equal(groupings.values.sum(axis=0), (self.SERIES != "b").to_numpy(dtype=float))

    def test_numbers_and_truth_values_are_labels(self):
        clusters = pd.Series([10, 9, 10], index=["x", "y", "z"], name="cluster")
        assert groupings_from_column(clusters).names == ("9", "10")
        assert groupings_from_column(clusters, reference="9").names == ("10",)
        assert groupings_from_column(clusters == 10, reference="False").names == ("True",)

    def test_an_unknown_reference_lists_the_labels_and_suggests(self):
        message = "reference of column 'guide': 'contrl' is not one of 'a', 'b', 'c', 'control'; did you mean 'control'"
        with pytest.raises(ValueError, match=message):
            groupings_from_column(self.SERIES, reference="contrl")

    def test_labels_that_often_stand_for_missing_ones_are_tested_and_told(self):
        series = pd.Series(["T", "NA", "B", "NA", "T"], index=list("vwxyz"), name="type")
        with pytest.warns(UserWarning, match="column 'type': the label 'NA' of 2 cells, which often .* rename it"):
            assert groupings_from_column(series).names == ("B", "NA", "T")
        assert groupings_from_column(series, reference="NA").names == ("B", "T")

    def test_columns_without_groupings_are_refused(self):
        with pytest.raises(ValueError, match="column 'guide' has 'a' in every cell"):
            groupings_from_column(pd.Series(["a", "a"], name="guide"))
        with pytest.raises(ValueError, match="column 'guide' has another label in every cell"):
            groupings_from_column(pd.Series(["a", "b", "c"], name="guide"))
        with pytest.raises(ValueError, match="column 'depth' holds fractional numbers"):
            groupings_from_column(pd.Series([1.5, 2, 2], name="depth"))
        with pytest.raises(
            ValueError, match=r"column 'guide' has no label for cell 'y' \(1 such cells\); give such cells one"
        ):
            groupings_from_column(pd.Series(["a", None, "b"], index=["x", "y", "z"], name="guide"))
