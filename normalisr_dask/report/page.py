"""The page: its sections, put into the template and written as one file that asks for no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from normalisr_dask.report.coexpression import coexpression_section
from normalisr_dask.report.differential import differential_section
from normalisr_dask.report.normalisation import normalisation_section
from normalisr_dask.report.overview import settings_section, stages_section
from normalisr_dask.report.quality import quality_section
from normalisr_dask.report.section import FinishedRun, Section
from normalisr_dask.storage.locations import whole_file
from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.wording import amount, duration, effect, p_value

#: In the order of the page. A section of a stage that a run does not have is None.
SECTIONS: tuple[Callable[[FinishedRun], Section | None], ...] = (
    quality_section,
    normalisation_section,
    differential_section,
    coexpression_section,
    settings_section,
    stages_section,
)
NEEDED_STAGES = ("qc", "normalisation")


def write(output: Path, name: str) -> Path:
    """Write the page of the run in a folder; see :func:`normalisr_dask.report.write_report`.

    Parameters
    ----------
    output
        The output folder.
    name
        Of the file to write there.
    """
    run = FinishedRun(ResultStore(output), Manifest.read(output))
    not_done = [stage for stage in NEEDED_STAGES if not run.has(stage)]
    if not_done:
        is_or_are = "is" if len(not_done) == 1 else "are"
        msg = (
            f"the run in {output} is not done: {' and '.join(not_done)} {is_or_are} missing; "
            "run the same command again, then ask for the report"
        )
        raise ValueError(msg)
    path = output / name
    with whole_file(path, several_writers=True) as draft:
        draft.write_text(render(run), encoding="utf-8")
    return path


def render(run: FinishedRun) -> str:
    """Return the page of a run, HTML.

    Parameters
    ----------
    run
        With the stages ``qc`` and ``normalisation``.
    """
    sections = [section for make in SECTIONS if (section := make(run)) is not None]
    facts: dict[str, str] = {}
    data: dict[str, Any] = {}
    for section in sections:
        facts |= section.facts
        data |= section.data
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=run.settings["store"].rstrip("/").rpartition("/")[-1],
            version=run.manifest.content["versions"]["normalisr-dask"],
            sections=sections,
            facts=facts,
            cautions=[caution for section in sections for caution in section.cautions],
            data=data,
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
    environment.filters |= {"amount": amount, "duration": duration, "effect": effect, "p_value": p_value}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    return environment
