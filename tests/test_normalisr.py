"""``normalisr_dask.normalisr`` in place of ``normalisr.normalisr``: its signatures, and scripts that need no change."""

import inspect

import dask.array as da
import numpy as np
import oracles
import pytest
import scipy.sparse
from comparing import assert_close, assert_same_p_values
from layouts import laid_out

import normalisr_dask.normalisr as norm
from normalisr_dask.testing import simulate_counts

FUNCTIONS = sorted(name for name, _ in inspect.getmembers(oracles.published, inspect.isfunction))

#: What normalisr's manual says of the keywords that its signatures hide behind ``**ka``, with their defaults.
KEYWORDS = {
    "de": {"nth": 1, "single": 0, "lowmem": True, "dimreduce": 0, "method": "auto", "mpc": 0, "qr": 0, "tol": 1e-8},
    "coex": {"nth": 1, "dimreduce": 0},
    "gotop": {"nmin": 5, "conversion": None},
}

SCRIPT = """
import numpy as np
import {package}.normalisr as norm

reads = np.load(folder / "reads.npy")
design = np.load(folder / "design.npy")
genes, cells = norm.qc_reads(reads, 30, 20, 0.1, 300, 60, 0.3)
reads, design = reads[genes][:, cells], design[:, cells]
expression, _, _, covariates = norm.lcpm(reads, nth=1)
expression[0] += 0  # arrays can be written to
scale = norm.scaling_factor(reads)
covariates = np.concatenate([covariates, [np.arange(len(cells)) % 2]], axis=0)
covariates = norm.normcov(covariates)
weights = norm.compute_var(expression, covariates)
kept = norm.qc_outlier(weights)
expression, covariates, design = expression[:, kept], covariates[:, kept], design[:, kept]
expression, covariates = norm.normvar(expression, covariates, weights[kept], scale, nth=1)
for single in (0, 1, 4):
    results[f"de_pv {{single}}"], *others = norm.de(design, expression, covariates, single=single, nth=1)
    results[f"de {{single}}"] = np.concatenate([others[0].ravel(), others[2], others[3].ravel()])
ans = norm.coex(expression, covariates, nth=1)
results["coex_pv"] = ans[0]
correlation = (ans[1] / np.sqrt(ans[2])).T / np.sqrt(ans[2])
net = norm.binnet(ans[0], 0.2)
net[np.arange(3), np.arange(3)] = False
results["coex"] = correlation
results["degree"] = net.sum(axis=1).astype(float)
results["covariates"] = norm.pccovt(expression, covariates, np.arange(len(genes)).astype(str), ["3", "5", "7"])
np.savez(folder / "{package}.npz", **results)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    simulated = simulate_counts(120, 300, seed=1, median_depth=900, decades=2.0, n_cell_types=2)
    np.save(folder / "reads.npy", simulated.counts.toarray().astype(np.int64))
    np.save(
        folder / "design.npy", (np.random.default_rng(2).integers(0, 6, 300) == np.arange(4)[:, None]).astype(float)
    )
    return folder


def test_the_names_are_normalisrs():
    assert sorted(norm.__all__) == FUNCTIONS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_normalisrs(name):
    theirs = inspect.signature(getattr(oracles.published, name)).parameters
    ours = inspect.signature(getattr(norm, name)).parameters
    named = [parameter for parameter in theirs.values() if parameter.kind is not parameter.VAR_KEYWORD]
    for expected, found in zip(named, ours.values(), strict=False):
        assert (found.name, found.kind, found.default) == (expected.name, expected.kind, expected.default)
    for keyword, default in KEYWORDS.get(name, {}).items():
        assert ours[keyword].default == default
    if len(named) == len(theirs):
        assert len(ours) == len(theirs)


def run_script(package: str, folder) -> dict[str, np.ndarray]:
    with oracles.quiet():
        exec(SCRIPT.format(package=package), {"folder": folder, "results": {}})
    with np.load(folder / f"{package}.npz") as saved:
        return dict(saved)


def test_a_script_runs_with_the_import_changed_and_nothing_else(folder):
    expected, found = (run_script(package, folder) for package in ("normalisr", "normalisr_dask"))
    assert list(found) == list(expected)
    sign = np.sign(found["covariates"][-1] @ expected["covariates"][-1])
    expected["covariates"][-1] *= sign  # of a principal component, which normalisr leaves to chance
    for name, values in expected.items():
        if "pv" in name:
            assert_same_p_values(found[name], values)
        else:
            assert_close(found[name], values, 1e-7)


def test_what_is_in_memory_comes_back_in_memory_and_may_be_changed(folder):
    reads = np.load(folder / "reads.npy")
    dense, sparse = norm.lcpm(reads), norm.lcpm(scipy.sparse.csr_array(reads))
    assert dense.mean is None
    assert dense.var is None
    full = norm.lcpm(reads, lowmem=False)
    covariates = norm.normcov(dense.cov)
    weights = norm.compute_var(dense.lcpm, covariates)
    normalised = norm.normvar(dense.lcpm, covariates, weights, norm.scaling_factor(reads), dextra=reads[:2])
    arrays = [dense.lcpm, sparse.lcpm, dense.cov, full.mean, full.var, covariates, weights, *normalised]
    arrays += [norm.normcov(np.empty((0, 4))), norm.normcov(dense.cov, c=False)]
    for array in arrays:
        assert isinstance(array, np.ndarray)
        assert array.flags.writeable
        assert not np.shares_memory(array, reads)
    assert_close(sparse.lcpm, dense.lcpm, 1e-12)


def test_what_does_not_unpack_stays_lazy(folder):
    reads, design = np.load(folder / "reads.npy"), np.load(folder / "design.npy")
    tested = norm.de(design, norm.lcpm(reads).lcpm, np.ones((1, 300)))
    assert tested.alpha is None
    assert all(isinstance(array, np.ndarray) for array in tested if array is not None)
    assert isinstance(tested.log10_pvalue, da.Array)
    assert_close(10**tested.log10_pvalue, tested.pvalue, 1e-9)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_what_may_not_fit_in_memory_stays_lazy(folder, kind):
    reads = np.load(folder / "reads.npy")
    given = laid_out(reads, kind, ((60, 60), (100, 100, 100)))
    result = norm.lcpm(given)
    assert all(isinstance(array, da.Array) for array in result)
    assert isinstance(norm.compute_var(result.lcpm, dc=np.ones((1, 300))), da.Array)
    assert_close(result.lcpm, norm.lcpm(reads).lcpm, 1e-12)


def test_errors_come_at_once(folder):
    with pytest.raises(ValueError, match="constant"):
        norm.normcov(np.ones((1, 5)))
    with pytest.raises(TypeError, match="bounds"):
        norm.qc_reads(np.load(folder / "reads.npy"), bounds=1)
