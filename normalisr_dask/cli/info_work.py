"""What ``info`` does: it tells what is in a count store, or in the output folder of ``run`` or ``vooma``."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from normalisr_dask.cli.display import print_facts
from normalisr_dask.cli.messages import PROGRAM
from normalisr_dask.cli.store_work import print_store
from normalisr_dask.report import REPORT
from normalisr_dask.schema import is_of_level, stage_of_level
from normalisr_dask.settings import LinearModelSettings, RunSettings
from normalisr_dask.storage.count_store import is_store, open_count_store
from normalisr_dask.storage.linear_fits import FIT, TOP_TABLE
from normalisr_dask.storage.linear_fits import STAGE as LINEAR_MODELS
from normalisr_dask.storage.locations import as_path, has_file
from normalisr_dask.storage.manifest import MANIFEST, Manifest
from normalisr_dask.storage.result_store import RESULTS
from normalisr_dask.storage.result_tables import DE_TABLE, EDGE_TABLE, edge_table, enrichment_table
from normalisr_dask.storage.url_errors import url_errors
from normalisr_dask.validation import listing
from normalisr_dask.wording import amount, duration

Settings = RunSettings | LinearModelSettings

#: What an output may hold, in the order in which one looks at it.
TABLES = {
    REPORT: "figures and tables of all this, for any browser",
    DE_TABLE: "every grouping and gene",
    TOP_TABLE: "every contrast and gene",
    EDGE_TABLE: "pairs of genes in the network",
}


def info(path: str) -> None:
    """Tell what is at a path."""
    with url_errors(path):
        location = as_path(path)
        is_output = has_file(location / MANIFEST)
        if not is_output:
            _refuse_what_is_neither(location)
    if is_output:
        _print_output(path, Manifest.read(path))
    else:
        print_store(open_count_store(path))


def _refuse_what_is_neither(location: Path) -> None:
    """Say what to ask for in place of what is neither store nor output; opening it says whether anything is there.

    Raises
    ------
    ValueError
        If there is something else.
    """
    if has_file(location.parent / MANIFEST):
        whole = location.parent
        msg = f"{location} is a part of the output {whole}; ask for all of it: {PROGRAM} info {whole}"
        raise ValueError(msg)
    if is_store(location) or not location.exists():
        return
    near = list(_stores_and_outputs(location)) if location.is_dir() else []
    way_out = f"in it are {listing(near)}" if near else f"`{PROGRAM} ingest` makes a store of counts"
    msg = f"{location} is neither a count store nor the output of a run; {way_out}"
    raise ValueError(msg)


def _stores_and_outputs(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if is_store(path) or has_file(path / MANIFEST):
            yield path.name


def _print_output(path: str, manifest: Manifest) -> None:
    """Print which stages of an output are done, what is in it, and what made it."""
    content = manifest.content
    settings = _settings(content["settings"])
    stages = _stages(settings, manifest)
    missing = [stage for stage in stages if not manifest.is_done(stage)]
    state = "unfinished" if missing else "finished"
    print_facts(f"Output {path}, {state}", {stage: _stage(stage, manifest) for stage in stages})
    warned = [*content.get("warnings", ())]
    warned += [text for stage in manifest.stages() for text in manifest.stage(stage).get("warnings", ())]
    _print_lines("Warnings", *warned)
    print_facts("Files", _files(path, stages))
    made_by = "Made by, and to go on with" if missing else "Made by"
    _print_lines(f"{made_by} (paths as they were given there)", command_line(settings, path))
    _print_lines("Versions", ", ".join(f"{name} {number}" for name, number in content["versions"].items()))


def _print_lines(title: str, *lines: str) -> None:
    if lines:
        print(title, *(f"  {' '.join(line.split())}" for line in lines), sep="\n")


def _settings(stored: Mapping[str, Any]) -> Settings:
    """Return the settings of a manifest, as far as this version has them."""
    kind: type[Any] = LinearModelSettings if "design" in stored else RunSettings
    names = [field.name for field in fields(kind)]
    missing = [name for name in names[:2] if name not in stored]
    if missing:
        msg = f"{MANIFEST} is damaged: its settings lack {listing(missing)}; remove the folder and run again"
        raise ValueError(msg)
    values = {name: stored[name] for name in names if name in stored}
    # JSON has no tuples
    settings: Settings = kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )
    return settings


def command_line(settings: Settings, output: str) -> str:
    """Return the command that has these settings, ready to be pasted into a shell.

    Parameters
    ----------
    settings
        Of a run or of linear models.
    output
        Folder of linear models, whose settings do not hold it.
    """
    if isinstance(settings, RunSettings):
        words = ["run", settings.store, "-o", settings.output]
    else:
        words = ["vooma", settings.data, "-o", output, "--design", settings.design]
    for field in fields(settings)[2:]:
        value, option = getattr(settings, field.name), f"--{field.name.replace('_', '-')}"
        if value == field.default:
            continue
        if value is True:
            words.append(option)
        elif field.name == "contrast":
            words += [word for contrast in value for word in (option, contrast)]
        elif field.name == "go":
            words += [option, *value]
        else:
            words += [option, ",".join(value) if isinstance(value, tuple) else str(value)]
    return f"{PROGRAM} {shlex.join(words)}"


def _stages(settings: Settings, manifest: Manifest) -> list[str]:
    """Return the stages that are done or asked for, in order."""
    if isinstance(settings, LinearModelSettings):
        return [LINEAR_MODELS]
    stores_pairs = settings.coex_store == "all"
    asked = {
        "qc": True,
        "normalisation": True,
        "de": settings.groupings is not None or settings.groupby is not None,
        "calibration": settings.permutations > 0,
        "coex": settings.coex and stores_pairs,
        "edges": settings.coex,
    }
    for level in range(settings.go_levels + 1 if settings.go else 0):
        gene_set = stage_of_level("go", level)
        if level:
            asked |= {stage_of_level("coex", level): stores_pairs, stage_of_level("edges", level): True}
        asked[gene_set] = True
        if manifest.is_done(gene_set) and manifest.stage(gene_set)["term"] is None:
            break  # there is nothing more to remove
    asked |= {stage: False for stage in manifest.stages() if is_of_level(stage) and stage not in asked}
    return [stage for stage, is_asked in asked.items() if is_asked or manifest.is_done(stage)]


def _stage(stage: str, manifest: Manifest) -> str:
    """Describe what a stage has found and taken."""
    if not manifest.is_done(stage):
        return "not done yet"
    details = manifest.stage(stage)
    return f"{details['note']}; {duration(details['seconds'])}, up to {amount(details['peak_worker_bytes'])} a worker"


def _files(output: str, stages: list[str]) -> dict[str, str]:
    """Describe what there is to look at in an output, and how to open its arrays."""
    folder = as_path(output)
    levels = range(sum(stage.startswith("go") for stage in stages))
    of_levels = {edge_table(level): f"the same, {level} gene sets removed" for level in levels[1:]}
    of_levels |= {enrichment_table(level): f"terms of the network, {level} gene sets removed" for level in levels}
    found = {
        name: f"{meaning} ({amount((folder / name).stat().st_size)})"
        for name, meaning in (TABLES | of_levels).items()
        if has_file(folder / name)
    }
    if REPORT not in found:
        found = {REPORT: f"not there; {PROGRAM} report {shlex.quote(output)} writes it"} | found
    if (folder / FIT).exists():
        return found | {FIT: f"the fit: anndata.io.read_elem(zarr.open_group({str(folder / FIT)!r}))"}
    arrays = f"xarray.open_zarr({str(folder / RESULTS)!r}, group={'de' if 'de' in stages else 'qc'!r})"
    return found | {RESULTS: f"all arrays, a group for each stage: {arrays}"}
