"""Results unpack in Normalisr's order, compute in one go, and keep the rest as attributes."""

import dask
import dask.array as da
import numpy as np
import pytest

import normalisr_dask as nd
from normalisr_dask.results import Coexpression, DifferentialExpression, LogCpm, Normalised, NormalisedWithExtra
from normalisr_dask.testing import count_computes

FIELDS = ("pvalue", "gamma", "alpha", "varg", "vart", "se", "dof", "log10_pvalue")


def differential(**changes) -> DifferentialExpression:
    return DifferentialExpression(**{name: da.full(2, number) for number, name in enumerate(FIELDS)} | changes)


def test_named_tuples_unpack_in_normalisrs_order():
    assert LogCpm._fields == ("lcpm", "mean", "var", "cov")
    assert Normalised._fields == ("dtn", "dcn")
    assert NormalisedWithExtra._fields == ("dtn", "dcn", "dextran")


class TestDifferentialExpression:
    def test_five_unpack_and_index(self):
        result = differential()
        assert len(result) == 5
        assert all(found is getattr(result, name) for found, name in zip(result, FIELDS, strict=False))
        assert result[1] is result.gamma
        assert result[-1] is result.vart
        assert result[:2] == (result.pvalue, result.gamma)

    def test_computing_it_computes_every_field_together(self):
        with count_computes() as counter:
            (found,) = dask.compute(differential())
        assert counter.computes == 1
        assert isinstance(found, DifferentialExpression)
        for number, name in enumerate(FIELDS):
            np.testing.assert_array_equal(getattr(found, name), [number, number])

    def test_what_was_not_asked_for_stays_none(self):
        (found,) = dask.compute(differential(alpha=None))
        assert found.alpha is None
        assert found[2] is None

    def test_it_cannot_be_changed(self):
        with pytest.raises(AttributeError, match="cannot assign to field 'gamma'"):
            differential().gamma = da.ones(1)


def test_three_of_coexpression_unpack():
    result = Coexpression(*(da.full(2, number) for number in range(4)))
    assert len(result) == 3
    assert list(map(id, result)) == [id(result.pvalue), id(result.dot), id(result.var)]
    assert result[-1] is result.var
    (found,) = dask.compute(result)
    np.testing.assert_array_equal(found.log10_pvalue, [3, 3])


def test_steps_return_them():
    counts = np.array([[1, 2, 0, 4], [3, 0, 5, 1], [0, 2, 2, 7]])
    log_cpm = nd.lcpm(counts)
    assert isinstance(log_cpm, LogCpm)
    covariates = np.ones((1, 4))
    normalised = nd.normvar(log_cpm.lcpm, covariates, np.ones(4), np.ones(3))
    assert isinstance(normalised, Normalised)
    extra = nd.normvar(log_cpm.lcpm, covariates, np.ones(4), np.ones(3), dextra=np.ones((1, 4)))
    assert isinstance(extra, NormalisedWithExtra)
    assert isinstance(nd.coex(normalised.dtn, normalised.dcn), Coexpression)
    assert isinstance(nd.de(np.array([[0, 1, 0, 1]]), normalised.dtn, normalised.dcn), DifferentialExpression)
