"""Plots of AnnData: what is drawn, where, and what is refused."""

import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes

import normalisr_dask as nd

PLOTS = {
    "volcano": lambda adata, **options: nd.pl.volcano(adata, "type 1", **options),
    "qq": lambda adata, **options: nd.pl.qq(adata, "type 1", **options),
    "qq of all": lambda adata, **options: nd.pl.qq(adata, **options),
    "variance_fit": lambda adata, **options: nd.pl.variance_fit(adata, **options),
    "degree": lambda adata, **options: nd.pl.degree(adata, **options),
}


@pytest.fixture(scope="module")
def samples() -> anndata.AnnData:
    random = np.random.default_rng(0)
    mean = random.uniform(2, 10, 80)
    obs = pd.DataFrame({"treated": list("aabbaabb")}, index=[f"sample{number}" for number in range(8)])
    adata = anndata.AnnData(mean + random.normal(size=(8, 80)) * np.exp(-mean / 6), obs=obs)
    nd.tl.vooma_lm_fit(adata, "~ treated")
    return adata


def drawn(axes: Axes) -> np.ndarray:
    """Return the pixels of the figure."""
    axes.figure.canvas.draw()
    return np.asarray(axes.figure.canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_draws_into_axes_of_its_own_or_those_given(name: str, processed: anndata.AnnData) -> None:
    axes = PLOTS[name](processed)
    assert drawn(axes).std() > 5
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    mine = pyplot.figure().subplots()
    assert PLOTS[name](processed, ax=mine) is mine
    n_figures = len(pyplot.get_fignums())
    PLOTS[name](processed, ax=mine)
    assert len(pyplot.get_fignums()) == n_figures


def test_trend_shows_genes_and_line(samples: anndata.AnnData) -> None:
    axes = nd.pl.trend(samples)
    assert axes.collections[0].get_offsets().shape == (80, 2)
    assert len(axes.lines) == 1
    assert drawn(axes).std() > 5


def test_volcano_names_the_genes_with_the_smallest_p_values(processed: anndata.AnnData) -> None:
    axes = nd.pl.volcano(processed, "type 1", n_labels=3, gene_symbols="symbol")
    top = nd.get.de_df(processed, "type 1")["gene"][:3]
    assert [text.get_text() for text in axes.texts] == [gene.upper() for gene in top]
    n_hits = (nd.get.de_df(processed, "type 1")["qvalue"] <= 0.05).sum()
    assert [len(dots.get_offsets()) for dots in axes.collections] == [
        processed.var["normalisr_kept"].sum() - n_hits,
        n_hits,
    ]


def test_variance_fit_marks_outliers(processed: anndata.AnnData) -> None:
    axes = nd.pl.variance_fit(processed)
    n_kept, n_fitted = processed.obs["normalisr_kept"].sum(), processed.obs["qc_pass"].sum()
    assert [len(dots.get_offsets()) for dots in axes.collections] == [n_kept, n_fitted - n_kept]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda adata: nd.pl.volcano(adata, "typ 1"), "did you mean 'type 1'"),
        (lambda adata: nd.pl.volcano(adata, "type 1", key="other"), "run nd.tl.de first"),
        (lambda adata: nd.pl.qq(adata, "typ 1"), "did you mean 'type 1'"),
        (lambda adata: nd.pl.variance_fit(adata, key="other"), "run nd.pp.normalise first: there is no column"),
        (lambda adata: nd.pl.degree(adata, key="other"), "run nd.tl.coex first: there is no column 'other_degree'"),
        (lambda adata: nd.pl.trend(adata), r"there is no trend under uns\['pylimma_trend'\].*run nd.tl.vooma_lm_fit"),
    ],
)
def test_bad_input_is_refused(call, message: str, processed: anndata.AnnData) -> None:
    with pytest.raises(ValueError, match=message):
        call(processed)


@pytest.mark.slow
def test_without_matplotlib_only_plots_are_refused() -> None:
    program = (
        "import sys, normalisr_dask as nd\n"
        "print('anndata' in sys.modules)\n"  # nothing is loaded before it is used
        "sys.modules['matplotlib'] = None\n"
        "import anndata, numpy as np\n"
        "adata = anndata.AnnData(np.ones((4, 3)))\n"
        "nd.pp.qc(adata, min_gene_cells=1, min_cell_reads=1, min_cell_genes=1)\n"
        "adata.var['coex_degree'] = [0, 1, 2]\n"
        "try: nd.pl.degree(adata)\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "False",
        "plots need Matplotlib, which is not installed: pip install 'normalisr-dask[plot]'",
    ]
