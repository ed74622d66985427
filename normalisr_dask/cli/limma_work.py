"""What ``pseudobulk`` and ``vooma`` do."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normalisr_dask.cli.computing import computing, settings_of
from normalisr_dask.cli.display import print_facts
from normalisr_dask.cli.options import ClusterOptions
from normalisr_dask.cli.report_work import report_of_run
from normalisr_dask.pipeline import HIT_QVALUE
from normalisr_dask.progress import recorded_warnings
from normalisr_dask.pseudobulk import pseudobulk as sum_over_cells
from normalisr_dask.results import LinearFit
from normalisr_dask.settings import LinearModelSettings
from normalisr_dask.stage_use import measured
from normalisr_dask.steps.contrasts import contrasts_fit, make_contrasts
from normalisr_dask.steps.empirical_bayes import e_bayes
from normalisr_dask.steps.expression_input import read_expression
from normalisr_dask.steps.linear_models import storable
from normalisr_dask.steps.top_tables import top_table
from normalisr_dask.steps.trend_plot import save_trend
from normalisr_dask.steps.vooma import vooma_lm_fit
from normalisr_dask.storage.disk_space import disk_full_errors
from normalisr_dask.storage.linear_fits import (
    FIT,
    STAGE,
    TOP_TABLE,
    TOP_TABLE_TEXT,
    write_linear_fit,
    write_zarr_element,
)
from normalisr_dask.storage.manifest import Manifest, fingerprint
from normalisr_dask.storage.outputs import check_outside_stores
from normalisr_dask.validation import check_choice, listing


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
            write_zarr_element(partial, samples)
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
    settings: LinearModelSettings, output: str, cluster: ClusterOptions, *, overwrite: bool, report: bool
) -> None:
    """Fit, test, write tables, fit, picture and report, and tell how many genes differ."""
    if not Path(settings.data).exists():
        msg = f"there is no file or store at {settings.data}"
        raise FileNotFoundError(msg)
    expressions = _named_contrasts(settings.contrast)
    target = Path(output)
    with _published(target, overwrite=overwrite) as partial:
        samples = _samples(settings.data, settings.layer)
        if settings.block is not None:
            check_choice(settings.block, list(samples.columns), "--block")
        with recorded_warnings() as warned, computing(settings_of(cluster)) as client, measured(client) as use:
            fit: Any = vooma_lm_fit(
                settings.data,
                settings.design,
                block=None if settings.block is None else samples[settings.block],
                sample_weights=settings.sample_weights,
                save_plot=True,
                keep_elist=False,
                layer=settings.layer,
            )
            fit["coef_names"] = plain_names(fit["coef_names"])
            tested: Any = e_bayes(_contrasted(fit, expressions), trend=settings.trend, robust=settings.robust)
            table = _long_table(tested, leave_out_intercept=not settings.contrast)
        hits = _hits(table)
        manifest = Manifest.begin(partial, asdict(settings), {"data": _facts_of_data(settings.data, fit, samples)})
        note = f"{len(hits):,} tested: {listing(list(hits), shown=3)}"
        manifest.record(STAGE, use | {"note": note, "warnings": warned, "hits": hits})
        write_linear_fit(partial, storable(tested) | {"samples": samples.index.to_numpy()}, table)
        save_trend(fit, partial / "trend.png")
    _print_outcome(fit, hits, samples, output)
    if report:
        report_of_run(output)


def _facts_of_data(data: str, fit: LinearFit, samples: pd.DataFrame) -> dict[str, Any]:
    """Return by what the data are known again."""
    return {"genes": len(fit["sigma"]), "samples": len(samples)} | (fingerprint(data) if Path(data).is_file() else {})


def _hits(table: pd.DataFrame) -> dict[str, list[int]]:
    """Return the number of significant genes up and down, by contrast."""
    hits = {}
    for name, rows in table.groupby("contrast", sort=False):
        significant = rows["adj_p_value"] <= HIT_QVALUE
        hits[str(name)] = [int((significant & (rows["log_fc"] * sign > 0)).sum()) for sign in (1, -1)]
    return hits


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


def _print_outcome(fit: Any, hits: Mapping[str, Sequence[int]], samples: pd.DataFrame, output: str) -> None:
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
    for name, (n_up, n_down) in hits.items():
        facts[f"genes with Q ≤ {HIT_QVALUE:g} for {name}"] = f"{n_up:,} up, {n_down:,} down"
    facts["files"] = f"{output}: {TOP_TABLE}, {TOP_TABLE_TEXT}, {FIT}, trend.png"
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
