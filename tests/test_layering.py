"""The plan of the house, read from the source: who may import whom, who may compute, and a few habits.

docs/architecture.md says why. Each rule is a function that yields one line for each offence, with file and line.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import normalisr_dask

PACKAGE = Path(normalisr_dask.__file__).parent

# Each part of the package and the parts that it may import besides itself. A new part needs a line here.
FOUNDATIONS = {"results", "schema", "validation"}
BELOW_PIPELINE = {"cluster", "process_memory", "graph", "kernels", "steps", "storage"} | FOUNDATIONS
OF_A_RUN = {"planning", "progress", "run_inputs", "screen", "settings", "stage_use", "summary"}
LAYOUT: dict[str, set[str]] = {
    "kernels": set(),
    "validation": set(),
    "schema": set(),
    "testing": set(),
    "results": {"notebook", "validation"},
    "graph": {"validation", "wording"},
    "process_memory": set(),
    "wording": set(),
    "notebook": {"wording"},
    "worker_plugin": {"graph", "kernels", "wording"},
    "cluster_versions": {"worker_plugin"},
    "cluster_encryption": set(),
    "cluster_connection": {"cluster_encryption", "cluster_versions", "worker_plugin"},
    "ctrl_c": set(),
    "cluster": {
        *("cluster_connection", "cluster_encryption", "ctrl_c", "graph", "process_memory", "validation", "wording"),
        "worker_plugin",
    },
    "steps": {"graph", "kernels", "notebook", "ontology"} | FOUNDATIONS,
    "storage": {"graph", "kernels", "notebook", "schema", "validation"},
    "ontology": {"results", "storage", "validation"},
    "progress": {"planning"},
    "stage_use": {"cluster", "process_memory"},
    "grouping_sums": {"graph", "steps"},
    "command_memory": {"storage"},
    "gene_pair_plan": {"graph", "wording"},
    "planning": {
        "command_memory",
        "gene_pair_plan",
        "grouping_sums",
        "graph",
        "kernels",
        "schema",
        "steps",
        "storage",
        "validation",
        "wording",
    },
    "settings": set(),
    "screen": {"settings", "storage", "validation"},
    "guides": {"steps", "storage"},
    "pseudobulk": {"graph", "kernels", "steps", "storage", "validation"},
    "run_inputs": {"schema", "screen", "settings", "storage", "validation"},
    "stored_expression": {"graph", "kernels", "schema", "steps", "storage"},
    "grouping_tests": {"graph", "kernels", "results", "screen", "settings", "steps", "storage", "stored_expression"},
    "partitions": {"graph", "planning", "process_memory", "storage"},
    "gene_pairs": {"partitions", "planning", "schema", "steps", "storage", "stored_expression"},
    "gene_set_levels": {
        *("gene_pairs", "ontology", "partitions", "planning", "results", "schema", "settings", "steps", "storage"),
        "stored_expression",
    },
    "calibration": {"grouping_tests", "kernels", "partitions", "steps", "storage"},
    "summary": {"schema", "storage"},
    "pipeline": {
        *("calibration", "gene_pairs", "gene_set_levels", "grouping_sums", "grouping_tests", "partitions"),
        "stored_expression",
    }
    | OF_A_RUN
    | BELOW_PIPELINE,
    "demo": {"pipeline", "testing"} | OF_A_RUN | BELOW_PIPELINE,
    "report": {"gene_set_levels", "pipeline", "settings", "wording"} | BELOW_PIPELINE,
    "scverse": {"grouping_tests", "pipeline", "run_inputs", "settings"} | BELOW_PIPELINE,
    "eager": {"results"},
    "normalisr": {"eager", "steps"},
    "commands": {"graph", "steps", "storage", "validation"},
    "limma": {"results", "steps"},
    "cli": {
        "commands",
        "demo",
        "guides",
        "limma",
        "normalisr",
        "pipeline",
        "planning",
        "progress",
        "pseudobulk",
        "report",
        "run_inputs",
        "settings",
        "stage_use",
        "summary",
        "wording",
    }
    | BELOW_PIPELINE,
    "__init__": {"limma", "normalisr", "pipeline", "pseudobulk", "scverse"} | BELOW_PIPELINE,
    "__main__": {"cli"},
}

# What kernels may use besides the standard library.
KERNEL_LIBRARIES = {"numba", "numpy", "scipy"}

# Parts whose business is to compute, and the functions elsewhere whose answer decides what comes next.
COMPUTING_PARTS = {
    "calibration",
    "cli",
    "cluster",
    "commands",
    "eager",
    "gene_pairs",
    "gene_set_levels",
    "grouping_tests",
    "guides",
    "partitions",
    "pipeline",
    "pseudobulk",
    "scverse",
}
DATA_DEPENDENT_STEPS = {
    (
        "steps/quality_control.py",
        "choose_by_counts",
    ): "which genes and cells are kept decides the next round and the shapes",
    ("steps/quality_control.py", "qc_outlier"): "which cells are kept decides the shapes",
    ("steps/gene_ontology.py", "gotop"): "which genes have most edges decides what is looked up",
    ("steps/gene_ontology.py", "go_levels"): "the term that stands out at a level decides the covariates of the next",
    ("graph/rows.py", "RowPasses"): "the passes of linear models start from what the last one found of every gene",
    ("steps/normalisation.py", "cell_weights"): "the fit is of all cells, which no worker is to hold",
    ("steps/normalisation.py", "compute_var"): "with stepmax > 1, each round starts from the weights of the last",
}

MAX_LINES = 450


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    path: str  # below the package, with "/"
    source: str

    @property
    def part(self) -> str:
        return self.path.split("/")[0].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def offence(self, line: int, message: str) -> str:
        return f"normalisr_dask/{self.path}:{line}: {message}"

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of every absolute import."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                # "from package import part" names the part only after "import"
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def import_against_the_layout(module: Module) -> Iterator[str]:
    allowed = LAYOUT.get(module.part, set()) | {module.part}
    for line, name in module.imports():
        package, _, rest = name.partition(".")
        part = rest.split(".")[0]
        # other names are values of the package's __init__, which stands above all parts but __main__
        if package == "normalisr_dask" and part not in allowed:
            yield module.offence(line, f"{module.part} may import {sorted(allowed)}, not {name}")


def foreign_library_in_kernels(module: Module) -> Iterator[str]:
    allowed = KERNEL_LIBRARIES | sys.stdlib_module_names | {"normalisr_dask"}
    for line, name in module.imports():
        if module.part == "kernels" and name.split(".")[0] not in allowed:
            yield module.offence(line, f"kernels may use {sorted(KERNEL_LIBRARIES)}, not {name}")


def private_dask(module: Module) -> Iterator[str]:
    for line, name in module.imports():
        package, *rest = name.split(".")
        if package == "dask" and any(word.startswith("_") or word.lower() == "highlevelgraph" for word in rest):
            yield module.offence(line, f"graphs are built with Dask's public calls, not {name}")


def computing_calls(module: Module) -> Iterator[tuple[int, str, str]]:
    """Line, outermost function and text of every call of a function or method named compute or persist."""
    for statement in module.tree.body:
        owner = getattr(statement, "name", "module level")
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.split(".")[-1] in {"compute", "persist"}:
                    yield node.lineno, owner, called


def hidden_compute(module: Module) -> Iterator[str]:
    for line, function, called in computing_calls(module):
        if module.part not in COMPUTING_PARTS and (module.path, function) not in DATA_DEPENDENT_STEPS:
            yield module.offence(line, f"{function} calls {called}; only {sorted(COMPUTING_PARTS)} compute")


def import_below_the_top(module: Module) -> Iterator[str]:
    for function in ast.walk(module.tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield module.offence(node.lineno, f"import inside {function.name}; move it to the top")


def relative_import(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield module.offence(node.lineno, "relative import; write it from normalisr_dask")


def assert_outside_kernels(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert) and module.part != "kernels":
            yield module.offence(node.lineno, "assert vanishes under -O; raise an error that says what was found")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def logic_in_public_names(module: Module) -> Iterator[str]:
    if module.path in {"__init__.py", "normalisr.py", "limma.py"}:
        for node in module.tree.body:
            if is_type_checking(node):
                continue
            if not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.Expr):
                yield module.offence(node.lineno, "this file holds names only; put logic into steps")


def long_file(module: Module) -> Iterator[str]:
    n_lines = len(module.source.splitlines())
    if n_lines > MAX_LINES:
        yield module.offence(n_lines, f"{n_lines} lines; split at {MAX_LINES}")


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [Module(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def test_every_part_has_a_place_in_the_layout(modules: list[Module]) -> None:
    homeless = sorted({module.path for module in modules if module.part not in LAYOUT})
    assert not homeless, f"add a line to LAYOUT in {__file__} for {homeless}"


@pytest.mark.parametrize(
    "rule",
    [
        import_against_the_layout,
        foreign_library_in_kernels,
        private_dask,
        hidden_compute,
        import_below_the_top,
        relative_import,
        assert_outside_kernels,
        logic_in_public_names,
        long_file,
    ],
)
def test_no_module_breaks(rule, modules: list[Module]) -> None:
    offences = [offence for module in modules for offence in rule(module)]
    assert not offences, "\n".join(["", *offences])


def test_every_exception_for_computing_is_still_used(modules: list[Module]) -> None:
    computing = {(module.path, function) for module in modules for _, function, _ in computing_calls(module)}
    assert set(DATA_DEPENDENT_STEPS) <= computing


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (import_against_the_layout, "steps/a.py", "from normalisr_dask.storage.count_store import open_counts"),
        (import_against_the_layout, "storage/a.py", "import normalisr_dask.steps.log_cpm"),
        (import_against_the_layout, "graph/a.py", "from normalisr_dask import kernels"),
        (import_against_the_layout, "steps/a.py", "from normalisr_dask import lcpm"),
        (foreign_library_in_kernels, "kernels/a.py", "import dask.array as da"),
        (private_dask, "graph/a.py", "from dask.highlevelgraph import HighLevelGraph"),
        (private_dask, "graph/a.py", "import dask._expr"),
        (hidden_compute, "steps/a.py", "def total(counts):\n    return counts.sum().compute()"),
        (hidden_compute, "steps/quality_control.py", "def other(counts):\n    return dask.persist(counts)"),
        (hidden_compute, "storage/a.py", "from dask import compute\ntotal = compute(1)"),
        (import_below_the_top, "cli/a.py", "def main():\n    import dask"),
        (relative_import, "steps/a.py", "from .residuals import gram"),
        (assert_outside_kernels, "steps/a.py", "assert True"),
        (logic_in_public_names, "__init__.py", "def answer():\n    return 42"),
        (long_file, "steps/a.py", "\n" * (MAX_LINES + 1)),
    ],
)
def test_a_rule_notices(rule, path: str, source: str) -> None:
    offences = list(rule(Module(path, source)))
    assert offences
    assert all(offence.startswith(f"normalisr_dask/{path}:") for offence in offences)


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (import_against_the_layout, "steps/a.py", "from normalisr_dask.graph import layout\nimport dask"),
        (foreign_library_in_kernels, "kernels/a.py", "import math\nfrom scipy.special import gammaln"),
        (hidden_compute, "pipeline.py", "def run(result):\n    return result.compute()"),
        (hidden_compute, "steps/quality_control.py", "def choose_by_counts(sums):\n    return dask.compute(sums)"),
        (assert_outside_kernels, "kernels/a.py", "assert True"),
        (long_file, "steps/a.py", "\n" * MAX_LINES),
    ],
)
def test_a_rule_lets_pass(rule, path: str, source: str) -> None:
    assert not list(rule(Module(path, source)))
