"""The commands pseudobulk and vooma, from a count store to tables."""

import re
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from anndata.io import read_elem
from typer.testing import CliRunner

from normalisr_dask import contrasts_fit, e_bayes, make_contrasts, top_table, vooma_lm_fit
from normalisr_dask.cli.app import app
from normalisr_dask.cli.limma_work import plain_names
from normalisr_dask.storage.count_store_writer import CountStoreWriter

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
SMALL_CLUSTER = ("--workers", "1", "--memory-limit", "2GB")
N_PLANTED = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 1,600 cells of eight donors and two cell types; ten genes doubled in treated T cells."""
    folder = tmp_path_factory.mktemp("limma")
    random = np.random.default_rng(0)
    donor, cell_type = random.integers(0, 8, 1600), random.choice(["T", "B"], 1600)
    treated = donor >= 4
    means = random.gamma(2, 1, 200)[:, None] * random.lognormal(0, 0.2, (200, 8))[:, donor]
    means[:N_PLANTED, treated & (cell_type == "T")] *= 3
    counts = scipy.sparse.csr_array(random.poisson(means).T.astype(np.uint32))
    obs = pd.DataFrame(
        {"donor": [f"d{d}" for d in donor], "cell_type": cell_type, "arm": np.where(treated, "treated", "control")},
        index=[f"cell{number}" for number in range(1600)],
    )
    var = pd.DataFrame(index=[f"gene{number}" for number in range(200)])
    with CountStoreWriter(folder / "counts.zarr", obs=obs, var=var) as writer:
        writer.append(np.diff(counts.indptr), counts.indices, counts.data)
        writer.finalise()
    return folder


def normalisr_dask(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def samples(folder: Path) -> Path:
    path = folder / "samples.h5ad"
    done = normalisr_dask("pseudobulk", folder / "counts.zarr", path, "--by", "donor,cell_type", *SMALL_CLUSTER)
    assert done.returncode == 0, done.stderr
    assert "16 by donor,cell_type" in done.stdout
    return path


def test_samples_are_written(samples: Path) -> None:
    written = anndata.read_h5ad(samples)
    assert written.shape == (16, 200)
    assert list(written.obs) == ["donor", "cell_type", "arm", "n_cells", "total_count"]
    assert written.layers["counts"].sum() == written.obs["total_count"].sum()


def test_samples_may_be_a_store(samples: Path, folder: Path) -> None:
    words = ("pseudobulk", folder / "counts.zarr", folder / "samples.zarr", "--by", "donor, cell_type", *SMALL_CLUSTER)
    done = CliRunner().invoke(app, list(map(str, words)))
    assert (done.exit_code, done.stderr) == (0, "")
    np.testing.assert_array_equal(anndata.read_zarr(folder / "samples.zarr").X, anndata.read_h5ad(samples).X)


def test_tables_fit_and_picture_are_written(samples: Path, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    done = normalisr_dask(
        *("vooma", samples, "--design", "~ 0 + cell_type:arm", "--block", "donor", "-o", folder / "out"),
        *("--contrast", "T=cell_type_T_arm_treated - cell_type_T_arm_control", "--sample-weights"),
        *("--contrast", "cell_type_B_arm_treated - cell_type_B_arm_control", *SMALL_CLUSTER),
    )
    assert done.returncode == 0
    assert re.fullmatch(r"Report: done in [\d.]+ s\n", done.stderr)
    assert "correlation within blocks" in done.stdout
    table = pd.read_parquet(folder / "out" / "top_table.parquet")
    assert list(table.columns[:4]) == ["contrast", "gene", "log_fc", "ci_l"]
    first = table[table["contrast"] == "T"]
    assert len(first) == 200
    assert set(first["gene"][:N_PLANTED]) == {f"gene{number}" for number in range(N_PLANTED)}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "out" / "top_table.tsv", sep="\t"), table)
    assert (folder / "out" / "trend.png").read_bytes()[1:4] == b"PNG"
    fit = read_elem(zarr.open_group(folder / "out" / "fit.zarr", mode="r"))

    adata = anndata.read_h5ad(samples)
    expected = vooma_lm_fit(
        adata.to_df().T,
        np.asarray(fit["design"]),
        block=adata.obs["donor"],
        sample_weights=True,
    )
    expected["coef_names"] = [str(name) for name in fit["coef_names"]]
    contrast = make_contrasts("cell_type_T_arm_treated - cell_type_T_arm_control", levels=expected["coef_names"])
    by_hand = top_table(e_bayes(contrasts_fit(expected, contrast)), number=200, sort_by="p")
    np.testing.assert_allclose(first["p_value"], by_hand["p_value"], rtol=1e-8)
    assert first["gene"].tolist() == by_hand.index.tolist()


def test_every_coefficient_is_tested_by_default(samples: Path, folder: Path) -> None:
    done = CliRunner().invoke(
        app,
        [str(word) for word in ("vooma", samples, "--design", "~ arm + cell_type", "-o", folder / "all")]
        + ["--trend", "--robust", *SMALL_CLUSTER],
    )
    assert done.exit_code == 0, done.stderr
    table = pd.read_parquet(folder / "all" / "top_table.parquet")
    assert table["contrast"].unique().tolist() == ["arm_treated", "cell_type_T"]


def test_contrasts_may_have_any_names_and_be_equal(samples: Path, folder: Path) -> None:
    names = ["levels", "contrasts", "contrasts_args", "T cells", "2*arm_treated"]
    done = CliRunner().invoke(
        app,
        [str(word) for word in ("vooma", samples, "--design", "~ arm", "-o", folder / "named")]
        + [f"--contrast={name} = arm_treated" for name in names[:-1]]
        + [f"--contrast={names[-1]}", *SMALL_CLUSTER],
    )
    assert done.exit_code == 0, done.stderr
    table = pd.read_parquet(folder / "named" / "top_table.parquet").set_index(["contrast", "gene"])["log_fc"]
    assert table.index.get_level_values(0).unique().tolist() == names
    effects = table.unstack(0)
    for name in names[:-1]:
        np.testing.assert_allclose(effects[names[-1]], 2 * effects[name], rtol=1e-12)


def test_names_of_coefficients_lose_their_signs() -> None:
    names = ["Intercept", "g[T.b]", "C(x, Treatment)[T.1]", "g[b]:t[T.2]", "1st"]
    assert plain_names(names) == ["Intercept", "g_b", "C_x_Treatment_1", "g_b_t_2", "_1st"]
    with pytest.raises(ValueError, match=r"would have the name 'g_a'"):
        plain_names(["g[a]", "g_a"])
