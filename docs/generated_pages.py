"""Parts of pages that follow from the code or from results: command line, result store, benchmarks."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from normalisr_dask.schema import STAGES

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent / "benchmarks"


def write(folder: Path) -> None:
    """Write all parts, as Markdown that pages include."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "command_line": command_line(),
        "result_store": result_store(),
        "benchmarks": benchmarks(HERE / "benchmarks"),
    }
    for name, text in parts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def command_line() -> str:
    """Return the help of all commands, as Typer writes it."""
    command = [sys.executable, "-m", "typer", "normalisr_dask.cli.app", "utils", "docs", "--name", "normalisr-dask"]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


def result_store() -> str:
    """Return what every group of the result store holds."""
    rows = (
        (f"`{stage}`", f"`{name}`", ", ".join(variable.dims), variable.dtype, variable.meaning)
        for stage, variables in STAGES.items()
        for name, variable in variables.items()
    )
    return table(("group", "array", "dimensions", "dtype", "meaning"), rows)


def benchmarks(folder: Path) -> str:
    """Return a section for every file of results, with what its script says of itself."""
    return "\n".join(section_of(path) for path in sorted(folder.glob("*.json"))) or "There are no results yet.\n"


def section_of(path: Path) -> str:
    """Return the section of one file: what was measured, with what, and the results."""
    script = BENCHMARKS / f"{path.stem}.py"
    about = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    results = json.loads(path.read_text(encoding="utf-8"))
    tables = "\n".join(tables_of({"results": results} if isinstance(results, list) else results))
    return f"## {path.stem}\n\n{about} (`benchmarks/{script.name}`)\n\n{tables}"


def tables_of(results: dict[str, Any]) -> Iterator[str]:
    """Yield a table of the single values, and one for each group of cases, which stand beside each other."""
    groups = {name: cases_of(value) for name, value in results.items()}
    single = [(name, shown(value)) for name, value in results.items() if groups[name] is None]
    if single:
        yield table(("", "value"), single)
    for name, cases in groups.items():
        if cases is not None:
            quantities = dict.fromkeys(quantity for case in cases.values() for quantity in case)
            rows = ((quantity, *(shown(case.get(quantity)) for case in cases.values())) for quantity in quantities)
            yield f"### {name}\n\n{table(('', *cases), rows)}"


def cases_of(value: Any) -> dict[str, dict[str, Any]] | None:
    """Return cases and what was measured of each, from a dictionary or a list of them; None for anything else."""
    if isinstance(value, list) and value and all(isinstance(record, dict) for record in value):
        cases = {str(next(iter(record.values()))): record for record in value}
        value = cases if len(cases) == len(value) else dict(enumerate(value, 1))
    if not isinstance(value, dict):
        return None
    by_case = value if all(isinstance(case, dict) for case in value.values()) else {"value": value}
    return {str(case): dict(flattened(measured)) for case, measured in by_case.items()}


def flattened(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what is in nested dictionaries, with the way there as its name."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{name}: {inner}", leaf) for inner, leaf in flattened(value))
        else:
            yield name, value


def shown(value: Any) -> str:
    """Return a value as people read it: three digits, thousands apart, nothing for what is missing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return (
            str(len(value)) if any(isinstance(entry, list | dict) for entry in value) else ", ".join(map(shown, value))
        )
    return str(value)


def table(columns: Any, rows: Any) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
