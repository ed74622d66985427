"""The sections on the run itself: what was run, what each stage took, and what it warned of."""

from dataclasses import fields
from typing import Any

from normalisr_dask.gene_set_levels import level_titles
from normalisr_dask.pipeline import TITLES
from normalisr_dask.report.section import FinishedRun, Section
from normalisr_dask.settings import RunSettings

#: Settings that say where files are, and those that name inputs.
NOT_SHOWN = {"output"}
DEFAULTS = {field.name: field.default for field in fields(RunSettings)}


def settings_section(run: FinishedRun) -> Section:
    """Make the section on what was run: settings, versions, inputs.

    Parameters
    ----------
    run
        Any run.
    """
    content = run.manifest.content
    rows = [
        (f"--{name.replace('_', '-')}" if name != "store" else "STORE", _shown(value), not _is_default(name, value))
        for name, value in content["settings"].items()
        if name not in NOT_SHOWN
    ]
    return Section(
        "settings",
        "What was run",
        {
            "rows": sorted(rows, key=lambda row: not row[2]),
            "versions": content["versions"],
            "inputs": [(name, _facts_of(value)) for name, value in content["inputs"].items()],
        },
        cautions=tuple(content.get("warnings", ())),
    )


def _shown(value: Any) -> str:
    if value is None or value == [] or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_default(name: str, value: Any) -> bool:
    default = DEFAULTS.get(name)
    return value == (list(default) if isinstance(default, tuple) else default)


def _facts_of(value: Any) -> str:
    """Write the fingerprint of an input in one line."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {str(fact)[:16]}" for name, fact in value.items())


def stages_section(run: FinishedRun) -> Section:
    """Make the section on the time and the memory of every stage.

    Parameters
    ----------
    run
        Any run.
    """
    titles = TITLES | level_titles(run.settings.get("go_levels", 0))
    stages = {name: run.manifest.stage(name) for name in titles if run.manifest.is_done(name)}
    longest = max((details["seconds"] for details in stages.values()), default=0.0) or 1.0
    return Section(
        "stages",
        "Time and memory",
        {
            "rows": [
                (
                    titles[name],
                    details["seconds"],
                    details["seconds"] / longest,
                    details["peak_worker_bytes"],
                    details["peak_client_bytes"],
                    details["note"],
                )
                for name, details in stages.items()
            ],
            "seconds": sum(details["seconds"] for details in stages.values()),
        },
        cautions=tuple(warning for details in stages.values() for warning in details.get("warnings", ())),
    )
