"""What the package imports is declared, and what is declared has its reason in docs/dependencies.md."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _names_and_bounds(requirements: list[str]) -> set[tuple[str, str]]:
    """Split "name[extra]>=1.0" into the name with its extras and the bound, without ">="."""
    parts = [re.fullmatch(r"([\w.-]+(?:\[[\w,]+\])?)(>=|==)([\w.]+)", requirement) for requirement in requirements]
    assert all(parts), f"each requirement needs one lower bound or a pin: {requirements}"
    return {(part[1], part[3] if part[2] == ">=" else part[2] + part[3]) for part in parts if part}


def test_each_dependency_and_bound_has_its_reason(project: dict) -> None:
    declared = _names_and_bounds(project["dependencies"]).union(
        *(_names_and_bounds(extra) for extra in project["optional-dependencies"].values())
    )
    rows = re.findall(
        r"^\| (\S+)(?: \(.*?\))? \| (\S+) \| .+ \| .+ \|$", (ROOT / "docs/dependencies.md").read_text(), re.M
    )
    assert set(rows) - {("package", "bound")} == declared


def _modules(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0].replace("-", "_").lower() for requirement in requirements}


def test_every_library_that_the_package_imports_is_declared(project: dict) -> None:
    core = _modules(project["dependencies"]) | sys.stdlib_module_names | {"normalisr_dask"}
    undeclared = set()
    for path in sorted((ROOT / "normalisr_dask").rglob("*.py")):
        of_report = "report" in path.relative_to(ROOT / "normalisr_dask").parts[:-1]  # loaded where its extra is there
        known = core | _modules(project["optional-dependencies"]["report"]) if of_report else core
        # imports at module level; those in "try" belong to extras
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            else:
                names = []
            undeclared |= {
                f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in names if name.split(".")[0] not in known
            }
    assert not undeclared, f"declare these in pyproject.toml and docs/dependencies.md: {sorted(undeclared)}"
