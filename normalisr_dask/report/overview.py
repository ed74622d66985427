"""The sections on the run itself: what was run, what each stage took, and what it warned of."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from normalisr_dask.report.section import Section
from normalisr_dask.settings import LinearModelSettings, RunSettings
from normalisr_dask.storage.manifest import Manifest

#: Settings that say where files are, and those that are arguments, not options.
NOT_SHOWN = {"output"}
ARGUMENTS = {"store": "STORE", "data": "DATA"}


def settings_section(manifest: Manifest, kind: type[RunSettings] | type[LinearModelSettings]) -> Section:
    """Make the section on what was run: settings, versions, inputs.

    Parameters
    ----------
    manifest
        Of the run.
    kind
        Whose settings the manifest has.
    """
    content = manifest.content
    defaults = {field.name: field.default for field in fields(kind)}
    rows = [
        (ARGUMENTS.get(name, f"--{name.replace('_', '-')}"), _shown(value), not _is_default(defaults.get(name), value))
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


def _is_default(default: Any, value: Any) -> bool:
    return value == (list(default) if isinstance(default, tuple) else default)


def _facts_of(value: Any) -> str:
    """Write the fingerprint of an input in one line."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {str(fact)[:16]}" for name, fact in value.items())


def stages_section(manifest: Manifest, titles: Mapping[str, str]) -> Section:
    """Make the section on the time and the memory of every stage.

    Parameters
    ----------
    manifest
        Of the run.
    titles
        What to call each stage, in order.
    """
    stages = {name: manifest.stage(name) for name in titles if manifest.is_done(name)}
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
