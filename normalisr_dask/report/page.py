"""The page: its sections, put into the template and written as one file that asks for no other."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from normalisr_dask.gene_set_levels import level_titles
from normalisr_dask.pipeline import TITLES
from normalisr_dask.report.coexpression import coexpression_section
from normalisr_dask.report.differential import differential_section
from normalisr_dask.report.linear_models import contrasts_section, model_section
from normalisr_dask.report.normalisation import normalisation_section
from normalisr_dask.report.overview import settings_section, stages_section
from normalisr_dask.report.quality import quality_section
from normalisr_dask.report.section import FinishedFit, FinishedRun, Section
from normalisr_dask.settings import LinearModelSettings, RunSettings
from normalisr_dask.storage.linear_fits import FIT, STAGE, TOP_TABLE, TOP_TABLE_TEXT, read_linear_fit
from normalisr_dask.storage.locations import whole_file
from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.wording import amount, duration, effect, p_value, to_the_minute

#: Of a run, in the order of the page. A section of a stage that a run does not have is None.
SECTIONS: tuple[Callable[[FinishedRun], Section | None], ...] = (
    quality_section,
    normalisation_section,
    differential_section,
    coexpression_section,
)
NEEDED_STAGES = ("qc", "normalisation")
FILES_OF_RUN = ("results.zarr", "de.parquet", "coex_edges.parquet", "manifest.json")
FILES_OF_FIT = (FIT, TOP_TABLE, TOP_TABLE_TEXT, "manifest.json")


def write(output: Path, name: str) -> Path:
    """Write the page of the results in a folder; see :func:`normalisr_dask.report.write_report`.

    Parameters
    ----------
    output
        The output folder.
    name
        Of the file to write there.
    """
    manifest = Manifest.read(output)
    text = _page_of_fit(output, manifest) if manifest.is_done(STAGE) else _page_of_run(output, manifest)
    path = output / name
    with whole_file(path, several_writers=True) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def _page_of_run(output: Path, manifest: Manifest) -> str:
    """Return the page of a run."""
    run = FinishedRun(ResultStore(output), manifest)
    not_done = [stage for stage in NEEDED_STAGES if not run.has(stage)]
    if not_done:
        is_or_are = "is" if len(not_done) == 1 else "are"
        msg = (
            f"the run in {output} is not done: {' and '.join(not_done)} {is_or_are} missing; "
            "run the same command again, then ask for the report"
        )
        raise ValueError(msg)
    sections = [section for make in SECTIONS if (section := make(run)) is not None]
    titles = TITLES | level_titles(run.settings.get("go_levels", 0))
    about = [settings_section(manifest, RunSettings), stages_section(manifest, titles)]
    return _rendered([*sections, *about], manifest, run.settings["store"], FILES_OF_RUN)


def _page_of_fit(output: Path, manifest: Manifest) -> str:
    """Return the page of linear models."""
    fit = FinishedFit(read_linear_fit(output), manifest)
    sections = [
        model_section(fit),
        contrasts_section(fit),
        settings_section(manifest, LinearModelSettings),
        stages_section(manifest, {STAGE: "Linear models"}),
    ]
    return _rendered(sections, manifest, fit.settings["data"], FILES_OF_FIT)


def _rendered(sections: Sequence[Section], manifest: Manifest, source: str, files: Sequence[str]) -> str:
    """Put sections into the template; the page has the name of what the results were made from."""
    facts: dict[str, str] = {}
    data: dict[str, Any] = {}
    for section in sections:
        facts |= section.facts
        data |= section.data
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=source.rstrip("/").rpartition("/")[-1],
            version=manifest.content["versions"]["normalisr-dask"],
            started=manifest.content.get("started"),  # absent from runs of before these were recorded
            finished=manifest.content.get("finished"),
            sections=sections,
            facts=facts,
            cautions=[caution for section in sections for caution in section.cautions],
            data=data,
            files=files,
        )
    )


def _environment() -> Environment:
    """Return what finds the templates; all text from elsewhere is escaped."""
    environment = Environment(
        loader=PackageLoader("normalisr_dask.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write_as in (amount, duration, effect, p_value, to_the_minute):
        environment.filters[write_as.__name__] = write_as
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    return environment
