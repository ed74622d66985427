"""Log-CPM, draws from its posterior, and the scaling factor: definitions, edges, bad input."""

import re
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from comparing import assert_close
from layouts import laid_out
from scipy import stats
from scipy.special import digamma, polygamma

import normalisr_dask as nd
from normalisr_dask.testing import simulate_counts


@pytest.fixture(params=["dense", "sparse"])
def layout(request: pytest.FixtureRequest):
    """A function that lays counts out in some blocks."""
    kind = {"dense": "dask", "sparse": "csc_array"}[request.param]

    def lay_out(counts: np.ndarray) -> da.Array:
        n_genes, n_cells = counts.shape
        return laid_out(counts, kind, ((n_genes // 2, n_genes - n_genes // 2), (1, n_cells - 1)))

    return lay_out


class TestPosterior:
    def test_mean_and_variance_are_those_of_the_definition(self, counts, layout):
        total = counts.sum()
        found = nd.lcpm(layout(counts), normalize=False)
        assert_close(found.lcpm, digamma(counts + 1.0) - digamma(total + 2.0), 1e-14)
        assert_close(found.var, polygamma(1, counts + 1.0) - polygamma(1, total + 2.0), 1e-14)

    def test_normalised_cells_hold_a_million(self, counts, layout):
        assert_close(np.exp(nd.lcpm(layout(counts)).lcpm.compute()).sum(axis=0), np.full(counts.shape[1], 1e6), 1e-12)

    def test_deep_cells_and_shallow_ones(self, layout):
        """Counts from 1 to a million, most of them beyond the table of looked-up values."""
        random = np.random.default_rng(0)
        counts = random.poisson(np.exp(random.uniform(-3, 13.8, size=(60, 40))))
        counts[0] = 1
        counts[1, 0] = 10**6
        expected = digamma(counts + 1.0)
        expected -= np.log(np.exp(expected).sum(axis=0)) - np.log(1e6)
        found = nd.lcpm(layout(counts))
        assert_close(found.lcpm, expected, 1e-12)
        assert_close(found.cov[0], np.log(counts.sum(axis=0)), 1e-14)

    def test_genes_without_counts(self, layout):
        counts = np.array([[0, 0, 0, 0], [5, 2, 1, 3], [0, 0, 0, 0], [1, 0, 2, 4]])
        found = nd.lcpm(layout(counts))
        np.testing.assert_array_equal(found.lcpm[0].compute(), found.lcpm[2].compute())
        np.testing.assert_array_equal(found.cov[1].compute(), [2, 3, 2, 2])

    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint32, np.float32, np.float64])
    def test_counts_of_every_type(self, counts, layout, dtype):
        small = np.minimum(counts, 200)
        assert_close(nd.lcpm(layout(small.astype(dtype))).lcpm, nd.lcpm(small).lcpm.compute(), 1e-14)

    def test_entries_stored_twice_or_as_zero(self):
        """A sparse matrix may hold an entry in two parts, which stand for their sum, and zeros."""
        entries = (np.array([1, 2, 0, 3, 4]), np.array([0, 0, 1, 0, 1]), np.array([0, 3, 5]))
        counts = scipy.sparse.csr_array(entries, shape=(2, 2))
        np.testing.assert_array_equal(counts.toarray(), [[3, 0], [3, 4]])
        found = dask.compute(*nd.lcpm(counts))
        for array, expected in zip(found, dask.compute(*nd.lcpm(counts.toarray())), strict=True):
            assert_close(array, expected, 1e-14)
        np.testing.assert_array_equal(counts.data, entries[0])


class TestDraws:
    """``varscale`` > 0: x = f + z sqrt(s v)."""

    counts = simulate_counts(150, 200, seed=1, median_depth=400, decades=2).counts.toarray()

    def standardised(self, seed: int | None, varscale: float = 0.7) -> np.ndarray:
        found = nd.lcpm(self.counts, normalize=False, varscale=varscale, seed=seed)
        draw, mean, variance = dask.compute(found.lcpm, found.mean, found.var)
        return (draw - mean) / np.sqrt(varscale * variance)

    def test_they_are_normal_with_the_posterior_mean_and_variance(self):
        noise = self.standardised(seed=11)
        assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
        for count in (0, 1, 2, 3):
            drawn = noise[self.counts == count]
            assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
            assert abs(drawn.var() - 1) < 4 * np.sqrt(2 / drawn.size)

    def test_they_are_independent_over_genes_cells_and_seeds(self):
        noise = self.standardised(seed=11)
        others = [noise[1:], noise[:, 1:], np.roll(noise, 4, axis=0), self.standardised(seed=12)]
        for other in others:
            first = noise[: other.shape[0], : other.shape[1]]
            assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(first.size)

    def test_normalised_ones_hold_a_million_and_share_the_offset_with_the_mean(self):
        found = nd.lcpm(self.counts, varscale=0.7, seed=3)
        draw, mean = dask.compute(found.lcpm, found.mean)
        assert_close(np.exp(draw).sum(axis=0), np.full(draw.shape[1], 1e6), 1e-12)
        raw = nd.lcpm(self.counts, normalize=False, varscale=0.7, seed=3)
        assert_close(draw - mean, dask.compute(raw.lcpm - raw.mean)[0], 1e-12)

    def test_a_seed_gives_the_same_bits_for_every_chunking_and_kind(self):
        expected = nd.lcpm(self.counts, normalize=False, varscale=0.7, seed=5).lcpm.compute()
        for chunks in (((150,), (1, 99, 100)), ((1, 2, 3, 4, 140), (200,)), ((75, 75), (67, 133))):
            for kind in ("dask", "csr_array"):
                reads = laid_out(self.counts, kind, chunks)
                found = nd.lcpm(reads, normalize=False, varscale=0.7, seed=5).lcpm.compute()
                np.testing.assert_array_equal(found, expected)

    def test_no_seed_gives_other_numbers_every_time(self):
        assert np.abs(self.standardised(None) - self.standardised(None)).max() > 1

    def test_the_scale_goes_to_zero_smoothly(self):
        found = nd.lcpm(self.counts, varscale=1e-20, seed=1)
        assert_close(found.lcpm, nd.lcpm(self.counts).lcpm.compute(), 1e-9)


class TestScalingFactor:
    def test_default_is_the_share_of_cells_without_the_gene_over_the_largest(self, counts, layout):
        share = (counts == 0).mean(axis=1)
        assert_close(nd.scaling_factor(layout(counts)), share / share.max(), 1e-15)

    def test_bounds_may_be_numbers(self, counts, layout):
        share = (counts == 0).mean(axis=1)
        assert_close(nd.scaling_factor(layout(counts), v0=0.25, v1=0.75), (share - 0.25) / 0.5, 1e-15)

    def test_equal_bounds(self, layout):
        counts = np.array([[1, 0, 2], [0, 3, 1], [4, 1, 0]])
        with pytest.raises(ValueError, match=r"expected v0 and v1 to differ, found 0\.333\d* for both; all genes may"):
            nd.scaling_factor(layout(counts), v0="min").compute()

    @pytest.mark.parametrize(
        ("varname", "found"), [("lognt0mean", "-inf for gene 0"), ("log1-nt0mean", "-inf for gene 2")]
    )
    def test_a_gene_whose_logarithm_is_not_finite(self, layout, varname, found):
        counts = np.array([[1, 1, 2], [0, 3, 1], [0, 0, 0]])
        with pytest.raises(ValueError, match=f"expected a finite {varname} for every gene, found {found}"):
            nd.scaling_factor(layout(counts), varname).compute()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nt0men",), "varname 'nt0men' is not one of 'logtpropmean', "),
            (("nt0mean", "mean"), "v0 'mean' is not one of 'min', 'max'"),
            (("nt0mean", 0, "maximum"), "v1 'maximum' is not one of 'min', 'max'; did you mean 'max'?"),
        ],
    )
    def test_unknown_names(self, counts, arguments, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            nd.scaling_factor(counts, *arguments)


class TestBadInput:
    @pytest.mark.parametrize(("value", "shown"), [(-2, "-2"), (1.5, r"1\.5"), (np.nan, "nan"), (np.inf, "inf")])
    @pytest.mark.parametrize("field", ["lcpm", "mean", "var", "cov"])
    def test_values_that_are_no_counts(self, layout, value, shown, field):
        counts = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
        counts[2, 1] = value
        with pytest.raises(ValueError, match=f"expected counts.*found {shown}"):
            getattr(nd.lcpm(layout(counts)), field).compute()
        with pytest.raises(ValueError, match=f"expected counts.*found {shown}"):
            nd.scaling_factor(layout(counts)).compute()

    def test_a_cell_without_counts(self, layout):
        counts = np.array([[1, 0, 3], [4, 0, 6], [7, 0, 9]])
        with pytest.raises(ValueError, match=r"expected counts in every cell, found none in cell 1 \(counted from 0\)"):
            nd.lcpm(layout(counts)).cov.compute()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"varscale": -1}, ValueError, "varscale must be 0 or more, not -1"),
            ({"varscale": np.nan}, ValueError, "varscale must be 0 or more, not nan"),
            ({"ntot": 0}, ValueError, "ntot must be a positive number, not 0"),
            ({"ntot": "many"}, TypeError, "ntot must be a number, not 'many'"),
        ],
    )
    def test_options(self, counts, options, error, message):
        with pytest.raises(error, match=message):
            nd.lcpm(counts, **options)

    def test_a_total_below_a_count(self, layout):
        """Normalisr stops at an assertion; the mean is defined all the same."""
        counts = np.array([[1, 2, 3], [4, 50, 6]])
        found = nd.lcpm(layout(counts), ntot=49, varscale=1, seed=0)
        for array in (found.lcpm, found.var):
            with pytest.raises(
                ValueError, match="expected a total ntot of at least every count, found 49 and a count of 50"
            ):
                array.compute()
        assert np.isfinite(nd.lcpm(layout(counts), ntot=49).lcpm.compute()).all()

    @pytest.mark.parametrize("function", [nd.lcpm, nd.scaling_factor])
    def test_what_is_no_matrix(self, function: Any):
        with pytest.raises(ValueError, match=r"with 2 dimensions \(rows, cells\), found 1"):
            function(np.arange(3))
        with pytest.raises(TypeError, match=r"as a NumPy, SciPy sparse, Dask or Zarr array, found DataFrame"):
            function(pd.DataFrame({"cell": [1, 2]}))
        with pytest.raises(TypeError, match=r"found str; for a count store use open_counts\(path\)\.matrix"):
            function("counts.zarr")
