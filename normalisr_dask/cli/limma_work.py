"""What ``pseudobulk`` and ``vooma`` do."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem

from normalisr_dask.cli.computing import computing, settings_of
from normalisr_dask.cli.display import print_facts
from normalisr_dask.cli.options import ClusterOptions
from normalisr_dask.pseudobulk import pseudobulk as sum_over_cells
from normalisr_dask.results import LinearFit
from normalisr_dask.steps.contrasts import contrasts_fit, make_contrasts
from normalisr_dask.steps.empirical_bayes import e_bayes
from normalisr_dask.steps.expression_input import read_expression
from normalisr_dask.steps.linear_models import storable
from normalisr_dask.steps.top_tables import top_table
from normalisr_dask.steps.trend_plot import save_trend
from normalisr_dask.steps.vooma import vooma_lm_fit
from normalisr_dask.storage.disk_space import disk_full_errors
from normalisr_dask.storage.outputs import check_outside_stores
from normalisr_dask.validation import check_choice, listing

Q_SHOWN = 0.05
#: Said explicitly, since anndata warns that its defaults will change.
ZARR_SETTINGS: dict[str, Any] = {"zarr_write_format": 3, "auto_shard_zarr_v3": False}


def pseudobulk(store: str, output: str, by: str, cluster: ClusterOptions, *, min_cells: int, overwrite: bool) -> None:
    """Write pseudobulk samples of a count store, and tell what they are."""
    target = Path(output)
    check_choice(target.suffix, (".h5ad", ".zarr"), "the suffix of OUT")
    columns = [name.strip() for name in by.split(",") if name.strip()]
    with _published(target, overwrite=overwrite) as partial:
        with computing(settings_of(cluster)):
            samples = sum_over_cells(store, columns, min_cells=min_cells)
        if target.suffix == ".h5ad":
            samples.write_h5ad(partial)
        else:
            _write_zarr(partial, samples)
    sizes = samples.obs["n_cells"]
    print_facts(
        "Pseudobulk samples",
        {
            "samples": f"{samples.n_obs:,} by {by}",
            "genes": f"{samples.n_vars:,}",
            "cells": f"{sizes.sum():,}; of a sample {sizes.min():,} to {sizes.max():,}, median {sizes.median():g}",
            "columns": ", ".join(samples.obs.columns),
            "file": output,
        },
    )


def vooma(
    data: str,
    output: str,
    design: str,
    cluster: ClusterOptions,
    *,
    block: str | None,
    sample_weights: bool,
    contrasts: Sequence[str],
    layer: str | None,
    trend: bool,
    robust: bool,
    overwrite: bool,
) -> None:
    """Fit, test, write tables, fit and picture, and tell how many genes differ."""
    if not Path(data).exists():
        msg = f"there is no file or store at {data}"
        raise FileNotFoundError(msg)
    expressions = _named_contrasts(contrasts)
    target = Path(output)
    with _published(target, overwrite=overwrite) as partial:
        samples = _samples(data, layer)
        if block is not None:
            check_choice(block, list(samples.columns), "--block")
        with computing(settings_of(cluster)):
            fit: Any = vooma_lm_fit(
                data,
                design,
                block=None if block is None else samples[block],
                sample_weights=sample_weights,
                save_plot=True,
                keep_elist=False,
                layer=layer,
            )
        fit["coef_names"] = plain_names(fit["coef_names"])
        tested = e_bayes(_contrasted(fit, expressions), trend=trend, robust=robust)
        table = _long_table(tested, leave_out_intercept=not contrasts)
        partial.mkdir(parents=True)
        table.to_parquet(partial / "top_table.parquet", index=False)
        table.to_csv(partial / "top_table.tsv", sep="\t", index=False)
        _write_fit(tested, samples, partial / "fit.zarr")
        save_trend(fit, partial / "trend.png")
    _print_outcome(fit, table, samples, output)


def _samples(data: str, layer: str | None) -> pd.DataFrame:
    """Return the table of samples of the data, whose file is named in what is wrong with it."""
    try:
        samples = read_expression(data, layer).samples
    except (KeyError, TypeError, ValueError) as error:
        found = str(error.args[0])
        msg = found if data in found else f"{data}: {found}"
        raise ValueError(msg) from error
    if samples is None:
        msg = f"{data} is no AnnData, so there are no samples to design with; give an .h5ad file or AnnData-Zarr store"
        raise ValueError(msg)
    return samples


def plain_names(names: Sequence[str]) -> list[str]:
    """Return names of coefficients that contrasts can use: ``group[T.b]`` becomes ``group_b``.

    Raises
    ------
    ValueError
        If two become the same.
    """
    plain = [re.sub(r"\W+", "_", name.replace("[T.", "[")).strip("_") or "_" for name in names]
    plain = [name if name.isidentifier() else f"_{name}" for name in plain]
    repeated = sorted({name for name in plain if plain.count(name) > 1})
    if repeated:
        msg = f"two coefficients would have the name {listing(repeated)} without signs; rename labels of the samples"
        raise ValueError(msg)
    return plain


def _named_contrasts(contrasts: Sequence[str]) -> dict[str, str]:
    """Return the expression of each contrast by its name, which is the expression itself where it has none."""
    expressions: dict[str, str] = {}
    for text in contrasts:
        before, equals, after = (part.strip() for part in text.partition("="))
        name, expression = (before, after) if equals else (before, before)
        if not name or not expression:
            msg = f"--contrast {text!r} lacks a name or an expression: expected 'NAME=treated - control' or no NAME="
            raise ValueError(msg)
        if name in expressions:
            msg = f"two contrasts (--contrast) have the name {name!r}; give each its own, as NAME={expression}"
            raise ValueError(msg)
        expressions[name] = expression
    return expressions


def _contrasted(fit: LinearFit, expressions: Mapping[str, str]) -> Any:
    if not expressions:
        return fit
    levels = fit["coef_names"]
    # one by one: as keywords, contrasts could not have the names of make_contrasts' own parameters
    columns = {name: make_contrasts(text, levels=levels).iloc[:, 0] for name, text in expressions.items()}
    return contrasts_fit(fit, pd.DataFrame(columns))


def _long_table(fit: Any, *, leave_out_intercept: bool) -> pd.DataFrame:
    """Return the tables of all contrasts below one another, each sorted by P-value."""
    names = fit.get("contrast_names") or fit["coef_names"]
    known = ~np.isnan(fit["coefficients"]).all(axis=0)
    chosen = [j for j, name in enumerate(names) if known[j] and not (leave_out_intercept and name == "Intercept")]
    if not chosen:
        chosen = list(np.flatnonzero(known))
    tables = [
        top_table(fit, coef=int(j), number=np.inf, sort_by="p", confint=True).reset_index().assign(contrast=names[j])
        for j in chosen
    ]
    whole = pd.concat(tables, ignore_index=True)
    return whole[["contrast", *(name for name in whole if name != "contrast")]]


def _write_fit(fit: Any, samples: pd.DataFrame, path: Path) -> None:
    """Write the fit as a Zarr group that ``anndata.io.read_elem`` reads as a dict."""
    entries = storable(fit) | {"samples": samples.index.to_numpy(dtype=str)}
    entries["genes"] = np.asarray(entries["genes"], dtype=str)
    for name in ("coef_names", "contrast_names"):
        if name in entries:
            entries[name] = np.asarray(entries[name], dtype=str)
    _write_zarr(path, entries)


def _write_zarr(path: Path, element: Any) -> None:
    """Write AnnData or a dict as a Zarr store."""
    with anndata.settings.override(**ZARR_SETTINGS):
        write_elem(zarr.open_group(path, mode="w", zarr_format=3), "/", element)


def _print_outcome(fit: Any, table: pd.DataFrame, samples: pd.DataFrame, output: str) -> None:
    facts = {
        "genes": f"{len(fit['sigma']):,}",
        "samples": f"{len(samples):,}",
        "coefficients": ", ".join(fit["coef_names"]),
    }
    if "correlation" in fit:
        facts["correlation within blocks"] = f"{fit['correlation']:.3f}"
    if "targets" in fit:
        weights = fit["targets"]["sample_weights"]
        facts["sample weights"] = f"{weights.min():.2g} ({samples.index[int(weights.argmin())]}) to {weights.max():.2g}"
    for name, rows in table.groupby("contrast", sort=False):
        significant = rows["adj_p_value"] <= Q_SHOWN
        n_up, n_down = ((significant & (rows["log_fc"] * sign > 0)).sum() for sign in (1, -1))
        facts[f"genes with Q ≤ {Q_SHOWN:g} for {name}"] = f"{n_up:,} up, {n_down:,} down"
    facts["files"] = f"{output}: top_table.parquet, top_table.tsv, fit.zarr, trend.png"
    print_facts("Linear models", facts)


@contextmanager
def _published(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield where to write before the output is whole; refuse to replace what nobody allowed to."""
    if target.exists() and not overwrite:
        msg = f"{target} is already there; give another name, or overwrite it (--overwrite)"
        raise FileExistsError(msg)
    folder = target.absolute().parent
    if not folder.is_dir():
        msg = f"there is no folder {folder} to write {target.name} into"
        raise FileNotFoundError(msg)
    check_outside_stores(target)
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    _remove(partial)
    try:
        with disk_full_errors(folder, "nothing was written; make room and run the same command again"):
            yield partial
            _remove(target)
            partial.rename(target)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
