"""vooma_lm_fit on Dask, Zarr and AnnData: what is lazy, equal results, what is written where."""

import warnings
from pathlib import Path
from typing import Any

import anndata
import dask
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from limma_fixtures import flat

from normalisr_dask import (
    array_weights,
    contrasts_fit,
    decide_tests,
    duplicate_correlation,
    e_bayes,
    lm_fit,
    top_table,
    treat,
    vooma,
    vooma_lm_fit,
)

N_GENES, N_SAMPLES = 90, 18
BLOCK = np.repeat(np.arange(6), 3)
GROUP = np.tile(["a", "b", "c"], 6)
DESIGN = np.column_stack([np.ones(N_SAMPLES), GROUP == "b", GROUP == "c"]).astype(float)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "block": {"block": BLOCK},
    "sample weights": {"sample_weights": True},
    "both": {"block": BLOCK, "sample_weights": True, "save_plot": True},
    "groups": {"var_group": GROUP},
}


@pytest.fixture(scope="module")
def expression() -> np.ndarray:
    random = np.random.default_rng(7)
    values = random.normal(6, 2, (N_GENES, 1)) + random.normal(0, 0.6, (N_GENES, 6))[:, BLOCK]
    values = values + random.normal(0, 1, (N_GENES, N_SAMPLES)) * random.uniform(0.5, 2, N_SAMPLES)
    values[random.random(values.shape) < 0.02] = np.nan
    values.flags.writeable = False
    return values


@pytest.fixture(scope="module")
def adata(expression: np.ndarray) -> anndata.AnnData:
    obs = pd.DataFrame({"group": GROUP, "donor": pd.Categorical(BLOCK.astype(str))})
    obs.index = [f"sample{number}" for number in range(N_SAMPLES)]
    return anndata.AnnData(expression.T.copy(), obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(N_GENES)]))


def assert_equal_fits(found, expected, tolerance: float = 1e-12) -> None:
    found, expected = dict(flat(found)), dict(flat(expected))
    assert set(found) == set(expected)
    for name, value in expected.items():
        if isinstance(value, np.ndarray | float) and np.asarray(value).dtype.kind == "f":
            result = np.asarray(found[name])
            assert result.shape == np.shape(value)
            scale = np.nanmax(np.abs(value))
            np.testing.assert_allclose(result, value, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("chunks", [(7, 5), (90, 18), (40, 1)])
def test_lazy_fits_equal_those_in_memory(expression: np.ndarray, options: dict, chunks: tuple[int, int]) -> None:
    lazy = vooma_lm_fit(da.from_array(expression, chunks=chunks), DESIGN, **options)
    assert isinstance(lazy["EList"]["weights"], da.Array)
    assert isinstance(lazy["EList"]["E"], da.Array)
    assert isinstance(lazy["coefficients"], np.ndarray)
    assert_equal_fits(lazy, vooma_lm_fit(expression, DESIGN, **options))


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), columns=st.integers(1, 18), which=st.integers(0, 4))
def test_chunks_of_genes_change_nothing(sizes: list[int], columns: int, which: int) -> None:
    n_genes = max(sum(sizes), 4)
    sizes = [*sizes, n_genes - sum(sizes)] if sum(sizes) < n_genes else sizes
    random = np.random.default_rng(sum(sizes))
    values = random.normal(5, 2, (n_genes, 1)) + random.normal(size=(n_genes, N_SAMPLES))
    options = list(OPTIONS.values())[which]
    lazy = vooma_lm_fit(da.from_array(values, chunks=(tuple(sizes), columns)), DESIGN, **options)
    assert_equal_fits(lazy, vooma_lm_fit(values, DESIGN, **options))


def test_every_option_may_be_lazy(expression: np.ndarray) -> None:
    random = np.random.default_rng(1)
    prior, predictor = random.uniform(0.5, 2, expression.shape), random.normal(size=expression.shape)
    options = {"prior_weights": prior, "predictor": predictor, "block": BLOCK}
    expected = vooma_lm_fit(expression, DESIGN, **options)
    lazy_options = options | {
        "prior_weights": da.from_array(prior, chunks=(30, 9)),
        "predictor": da.from_array(predictor, chunks=(11, 18)),
    }
    assert_equal_fits(vooma_lm_fit(da.from_array(expression, chunks=(20, 6)), DESIGN, **lazy_options), expected)
    for weights in (prior[:, 0], prior[0], 2.0):
        assert_equal_fits(
            vooma_lm_fit(da.from_array(expression, chunks=(20, 6)), DESIGN, prior_weights=weights),
            vooma_lm_fit(expression, DESIGN, prior_weights=weights),
        )


@pytest.mark.parametrize("weights", [None, "matrix"])
@pytest.mark.parametrize("method", ["auto", "reml", "genebygene"])
def test_lazy_pieces_equal_those_in_memory(expression: np.ndarray, method: str, weights: str | None) -> None:
    lazy = da.from_array(expression, chunks=(25, 4))
    matrix = None if weights is None else np.random.default_rng(2).uniform(0.5, 2, expression.shape)
    np.testing.assert_allclose(
        array_weights(lazy, DESIGN, weights=matrix, method=method),
        array_weights(expression, DESIGN, weights=matrix, method=method),
        rtol=1e-11,
    )
    assert_equal_fits(lm_fit(lazy, DESIGN, weights=matrix), lm_fit(expression, DESIGN, weights=matrix))
    assert_equal_fits(vooma(lazy, DESIGN), vooma(expression, DESIGN))
    assert_equal_fits(
        duplicate_correlation(lazy, DESIGN, block=BLOCK, weights=matrix),
        duplicate_correlation(expression, DESIGN, block=BLOCK, weights=matrix),
    )


def test_weights_stay_uncomputed_until_asked_for(expression: np.ndarray) -> None:
    lazy = vooma_lm_fit(da.from_array(expression, chunks=(30, 18)), DESIGN)
    assert lazy["EList"]["weights"].numblocks == (3, 1)
    in_memory = vooma_lm_fit(expression, DESIGN)
    np.testing.assert_allclose(lazy["EList"]["weights"].compute(), in_memory["EList"]["weights"], rtol=1e-12)


class CountedRows:
    """An array that counts how often its values are read, as multiples of the whole."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.n_read = values, 0
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, place):
        block = self.values[place]
        self.n_read += block.size
        return block

    @property
    def passes(self) -> float:
        return self.n_read / self.values.size


@pytest.mark.parametrize(("name", "passes"), [("plain", 2), ("block", 5), ("sample weights", 5), ("both", 7)])
def test_data_are_read_as_often_as_documented(expression: np.ndarray, name: str, passes: int) -> None:
    counted = CountedRows(expression)
    lazy = da.from_array(counted, chunks=(30, N_SAMPLES), meta=np.empty((0, 0)))
    with dask.config.set(scheduler="synchronous"):
        fit = vooma_lm_fit(lazy, DESIGN, **OPTIONS[name])
        assert counted.passes == passes
        fit["EList"]["weights"].compute()
    assert counted.passes == passes  # weights are made of coefficients and trend alone


def test_workers_give_what_threads_give(expression: np.ndarray, client: Client) -> None:
    lazy = da.from_array(expression, chunks=(30, 18))
    on_workers = vooma_lm_fit(lazy, DESIGN, block=BLOCK, sample_weights=True)
    with dask.config.set(scheduler="synchronous"):
        here = vooma_lm_fit(lazy, DESIGN, block=BLOCK, sample_weights=True)
    np.testing.assert_array_equal(on_workers["coefficients"], here["coefficients"])
    np.testing.assert_array_equal(on_workers["EList"]["weights"].compute(), here["EList"]["weights"].compute())


def test_zarr_arrays_and_stores_are_read_lazily(expression: np.ndarray, adata, tmp_path: Path) -> None:
    expected = vooma_lm_fit(expression, DESIGN, block=BLOCK)
    array = zarr.create_array(tmp_path / "y.zarr", data=expression, chunks=(20, 5))
    for given_array in (array, tmp_path / "y.zarr", str(tmp_path / "y.zarr")):
        assert_equal_fits(vooma_lm_fit(given_array, DESIGN, block=BLOCK), expected)
    group = zarr.create_group(tmp_path / "elist.zarr")
    group.create_array("E", data=expression, chunks=(20, 5))
    assert_equal_fits(vooma_lm_fit(group, DESIGN, block=BLOCK), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's advice on the format
        adata.write_zarr(tmp_path / "adata.zarr")
    stored = vooma_lm_fit(tmp_path / "adata.zarr", "~ group", block=BLOCK)
    assert stored["genes"][:2] == ["g0", "g1"]
    assert stored["coef_names"] == ["Intercept", "group[T.b]", "group[T.c]"]
    assert isinstance(stored["EList"]["E"], da.Array)
    np.testing.assert_allclose(stored["coefficients"], expected["coefficients"], rtol=1e-10)


@pytest.mark.parametrize("form", ["memory", "lazy", "sparse", "layer"])
def test_anndata_gets_weights_fit_and_facts(expression: np.ndarray, adata, form: str) -> None:
    filled = np.where(np.isnan(expression), 0.0, expression)
    changed = adata.copy()
    changed.X = filled.T.copy()
    layer = None
    if form == "lazy":
        changed.X = da.from_array(filled.T, chunks=(5, 20))
    if form == "sparse":
        changed.X = scipy.sparse.csr_array(filled.T)
    if form == "layer":
        changed.layers["logs"], layer = changed.X, "logs"
        changed.X = np.zeros_like(filled.T)
    result = vooma_lm_fit(
        changed, "~ group", block=changed.obs["donor"], sample_weights=True, save_plot=True, layer=layer
    )
    assert result is None
    expected = vooma_lm_fit(filled, DESIGN, block=BLOCK, sample_weights=True, save_plot=True)
    assert isinstance(changed.layers["vooma_weights"], da.Array if form == "lazy" else np.ndarray)
    np.testing.assert_allclose(np.asarray(changed.layers["vooma_weights"]).T, expected["EList"]["weights"], rtol=1e-10)
    fit = changed.uns["pylimma"]
    assert type(fit) is dict
    assert not {"EList", "voom_xy", "voom_line", "targets", "span"} & set(fit)
    assert all(value is not None for value in fit.values())
    assert fit["genes"][:2] == ["g0", "g1"]
    np.testing.assert_allclose(fit["coefficients"], expected["coefficients"], rtol=1e-10)
    facts = changed.uns["vooma"]
    assert set(facts) == {"span", "sample_weights", "voom_xy", "voom_line"}
    np.testing.assert_allclose(facts["sample_weights"], expected["targets"]["sample_weights"], rtol=1e-10)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_anndata_comes_back_from_disk(adata, tmp_path: Path, suffix: str) -> None:
    changed = adata.copy()
    vooma_lm_fit(changed, "~ group", block=changed.obs["donor"], save_plot=True, key="fit", voom_key="trend")
    path = tmp_path / f"fit.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(changed, f"write_{suffix}")(path)
        back = anndata.read_h5ad(path) if suffix == "h5ad" else anndata.read_zarr(path)
    for one in (changed, back):
        assert contrasts_fit(one, np.array([0.0, 1.0, -1.0]), key="fit") is None
        assert e_bayes(one, key="fit") is None
    assert changed.uns["trend"]["voom_xy"]["x"].shape == (N_GENES,)
    pd.testing.assert_frame_equal(top_table(back, key="fit"), top_table(changed, key="fit"))
    np.testing.assert_array_equal(decide_tests(back, key="fit"), decide_tests(changed, key="fit"))
    assert treat(back, key="fit") is None
    assert back.uns["fit"]["treat_lfc"] == pytest.approx(np.log2(1.2))


def test_a_view_becomes_a_copy(adata) -> None:
    view = adata[:, :50]
    with pytest.warns(anndata.ImplicitModificationWarning):
        vooma_lm_fit(view, "~ group")
    assert view.layers["vooma_weights"].shape == (N_SAMPLES, 50)
    assert "pylimma" not in adata.uns


def test_backed_anndata_is_read_in_blocks(adata, tmp_path: Path) -> None:
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    vooma_lm_fit(backed, "~ group", sample_weights=True)
    in_memory = adata.copy()
    vooma_lm_fit(in_memory, "~ group", sample_weights=True)
    np.testing.assert_allclose(
        backed.uns["pylimma"]["coefficients"], in_memory.uns["pylimma"]["coefficients"], rtol=1e-12, atol=1e-12
    )
    assert isinstance(backed.layers["vooma_weights"], da.Array)
    backed.file.close()


@pytest.mark.parametrize("function", [vooma_lm_fit, vooma])
def test_a_view_of_backed_anndata_is_refused_at_once(adata, tmp_path: Path, function) -> None:
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"found a view of .*a\.h5ad on disk; give view\.to_memory\(\)"):
        function(backed[:8])
    assert array_weights(backed[:8]).shape == (8,)  # nothing is written
    backed.file.close()


@pytest.mark.parametrize("name", ["a.h5ad", "a.zarr"])
def test_what_stored_anndata_lacks_is_named(adata, tmp_path: Path, name: str) -> None:
    stored = anndata.AnnData(obs=adata.obs, var=adata.var, layers={"logs": adata.X, "other": adata.X})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's advice on the format
        stored.write_h5ad(tmp_path / name) if name == "a.h5ad" else stored.write_zarr(tmp_path / name)
    with pytest.raises(ValueError, match=r"no layer 'x' in the AnnData object; it has \['logs', 'other'\]"):
        vooma_lm_fit(tmp_path / name, layer="x")
    with pytest.raises(KeyError, match=r"no layer 'w' with weights in the AnnData object; it has \['logs', 'other'\]"):
        lm_fit(tmp_path / name, weights_layer="w")
    with pytest.raises(TypeError, match="the AnnData object has no X; name a layer"):
        vooma_lm_fit(tmp_path / name)
    assert vooma_lm_fit(tmp_path / name, layer="logs")["sigma"].shape == (N_GENES,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("genes.tsv", r"genes\.tsv is neither an \.h5ad file nor a Zarr store, or a damaged one; a table of text"),
        ("text.h5ad", r"text\.h5ad is no h5ad file, or a damaged one: HDF5 cannot open it"),
        ("other.h5ad", r"other\.h5ad is not AnnData: it lacks obs or var"),
        ("other.zarr", r"other\.zarr is not AnnData: it lacks obs or var"),
        ("damaged.zarr", r"damaged\.zarr is neither an \.h5ad file nor a Zarr store, or a damaged one"),
    ],
)
def test_what_is_no_anndata_is_named(tmp_path: Path, name: str, message: str) -> None:
    for text in ("genes.tsv", "text.h5ad"):
        (tmp_path / text).write_text("gene\tsample\n")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["matrix"] = np.ones((3, 4))
    zarr.create_group(tmp_path / "other.zarr", attributes={"encoding-type": "anndata"})
    zarr.create_group(tmp_path / "damaged.zarr")
    (tmp_path / "damaged.zarr" / "zarr.json").write_text("{")
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ValueError, match=message):
            vooma_lm_fit(path)


@pytest.mark.parametrize("name", ["nothing.h5ad", "nothing.zarr", "nothing"])
def test_paths_without_a_file_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"there is no file.*{name}$"):
        vooma_lm_fit(tmp_path / name)


@pytest.mark.parametrize("function", [vooma_lm_fit, vooma, lm_fit, array_weights])
@pytest.mark.parametrize("number", [3, 2.5, np.array(1.0), da.ones(())])
def test_a_number_is_no_matrix(function, number) -> None:
    with pytest.raises(TypeError, match="expected a matrix of numbers, genes × samples, found 0 dimensions"):
        function(number)


def test_vooma_and_lm_fit_meet_in_layers(adata) -> None:
    changed = adata.copy()
    vooma(changed, "~ group")
    lm_fit(changed, layer="vooma_E")
    expected = adata.copy()
    vooma_lm_fit(expected, "~ group")
    np.testing.assert_array_equal(changed.uns["pylimma"]["coefficients"], expected.uns["pylimma"]["coefficients"])


def test_what_anndata_lacks_is_named(adata) -> None:
    with pytest.raises(ValueError, match="no layer 'x' in the AnnData object"):
        vooma_lm_fit(adata, layer="x")
    with pytest.raises(KeyError, match="no layer 'w' with weights"):
        lm_fit(adata, weights_layer="w")
    with pytest.raises(ValueError, match=r"no fit in uns\['pylimma'\]"):
        e_bayes(adata)
    with pytest.raises(ValueError, match="does not fit the table of samples"):
        vooma_lm_fit(adata, "~ nothing")
