"""Every block of commands and of Python in README.md and docs/ runs, page by page, on small simulated data.

A block that cannot run here stands below a comment ``<!-- not run here: REASON -->``; the README, which has no line to
spare, has its own in ``README_NOT_RUN``.
"""

import gzip
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import generated_pages
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from gene_ontologies import GROWTH, SIGNAL, TERMS, gaf_line
from s3_server import credentials_for, s3_server
from s3fs import S3FileSystem
from scipy.sparse import csc_array

import normalisr_dask as nd
from normalisr_dask.testing import SimulatedScreen, simulate_screen, write_cell_ranger_folder

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "generated" not in path.parts
}
LANGUAGES = ("bash", "python")
FENCE = re.compile(
    r"(?:<!-- not run here: (?P<reason>[^>]+) -->\n\s*)?^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^ *```$",
    flags=re.DOTALL | re.MULTILINE,
)
README_NOT_RUN = {"pip install '.[report]' && normalisr-dask demo": "installs; .ci/run runs the second line"}
#: How many blocks of which page are not run: a line for each is a line too many.
NOT_RUN = {"README.md": 1, "docs/index.md": 1, "docs/clusters.md": 3}


class Block(NamedTuple):
    """A block of code of a page, and why it is not run, if so."""

    language: str
    text: str
    reason: str | None


def blocks_of(page: str) -> list[Block]:
    found = []
    for fence in FENCE.finditer(PAGES[page].read_text(encoding="utf-8")):
        text = textwrap.dedent(fence["text"])
        reason = fence["reason"] or (README_NOT_RUN.get(text.splitlines()[0]) if page == "README.md" else None)
        if fence["language"] in LANGUAGES:
            found.append(Block(fence["language"], text, reason))
    return found


WITH_CODE = [page for page in PAGES if any(block.reason is None for block in blocks_of(page))]


# ---- what readers have


@pytest.fixture(scope="module")
def screen() -> SimulatedScreen:
    return simulate_screen(n_genes=600, n_cells=1500, n_guides=14, n_controls=4, n_modules=2, module_size=40, seed=4)


def cell_table(screen: SimulatedScreen, **labels: tuple[str, ...]) -> pd.DataFrame:
    """Return a table of the cells with labels in turn, but for the last cell's, so that columns do not coincide."""
    random = np.random.default_rng(1)
    columns = {name: random.choice(values, len(screen.cell_names)) for name, values in labels.items()}
    return pd.DataFrame(columns, index=pd.Index(screen.cell_names, name="cell"))


def matrix(screen: SimulatedScreen, path: Path) -> None:
    write_cell_ranger_folder(path, screen.counts, screen.gene_names, screen.cell_names)


def store(screen: SimulatedScreen, path: Path) -> None:
    """Write a count store whose cells have donors, of whom half are treated."""
    table = cell_table(screen, donor=tuple(f"donor{number}" for number in range(6)), cell_type=("B", "T"))
    table["treatment"] = np.where(table["donor"].isin(["donor0", "donor1", "donor2"]), "yes", "no")
    source, obs = path.with_suffix(".source"), path.with_suffix(".tsv")
    matrix(screen, source)
    table.to_csv(obs, sep="\t")
    nd.ingest(source, path, obs=obs)


def cell_types(screen: SimulatedScreen, path: Path) -> None:
    cell_table(screen, cell_type=("type0", "type1", "type2")).to_csv(path, sep="\t")


def blood_cell_types(screen: SimulatedScreen, path: Path) -> None:
    cell_table(screen, cell_type=("B", "CD14+ Mono")).to_csv(path, sep="\t")


def guide_table(screen: SimulatedScreen) -> pd.DataFrame:
    cells = pd.Index(screen.cell_names, name="cell")
    return pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)


def guide_counts(screen: SimulatedScreen, path: Path) -> None:
    counts = csc_array(screen.groupings.astype(np.int64) * 20)
    write_cell_ranger_folder(path, counts, screen.grouping_names, screen.cell_names)


def targets(screen: SimulatedScreen, path: Path) -> None:
    names = pd.Series(screen.grouping_names, name="guide")
    of_guides = names.str.rpartition("_")[0].replace("control", "non-targeting")
    pd.DataFrame({"guide": names, "target": of_guides}).to_csv(path, sep="\t", index=False)


def pairs(screen: SimulatedScreen, path: Path) -> None:
    screen.effects[["grouping", "gene"]].to_csv(path, sep="\t", index=False)


def terms(_: SimulatedScreen, path: Path) -> None:
    path.write_bytes(gzip.compress(TERMS.encode()))


def annotations(screen: SimulatedScreen, path: Path) -> None:
    """Write annotations in which the genes of a module grow, and all others give signals."""
    terms = [(gene, GROWTH if gene in screen.modules[0] else SIGNAL) for gene in screen.gene_names]
    lines = [gaf_line(f"ID{number}", gene, term, "IDA") for number, (gene, term) in enumerate(terms)]
    path.write_bytes(gzip.compress("\n".join(["!gaf-version: 2.1", *lines, ""]).encode()))


def results(screen: SimulatedScreen, path: Path) -> None:
    store(screen, path.with_name("counts.zarr"))
    run_block("bash", f"normalisr-dask run counts.zarr -o {path.name} --groupby cell_type --no-report", path.parent)


MATERIALS: dict[str, Callable[[SimulatedScreen, Path], None]] = {
    "filtered_feature_bc_matrix": matrix,
    "filtered_gene_bc_matrices/hg19": matrix,
    "counts.zarr": store,
    "atlas.zarr": store,
    "cell_types.tsv": cell_types,
    "pbmc3k_cell_types.tsv": blood_cell_types,
    "guides.tsv.gz": lambda screen, path: guide_table(screen).to_csv(path, sep="\t"),
    "guides.parquet": lambda screen, path: guide_table(screen).reset_index().to_parquet(path),
    "guide_counts": guide_counts,
    "targets.tsv": targets,
    "pairs.tsv": pairs,
    "go-basic.obo.gz": terms,
    "goa_human.gaf.gz": annotations,
    "results": results,
}
#: What readers of a page have before its first block.
BEFORE: dict[str, tuple[str, ...]] = {
    "README.md": ("filtered_gene_bc_matrices/hg19", "pbmc3k_cell_types.tsv", "atlas.zarr", "guides.parquet"),
    "docs/anndata.md": ("counts.zarr",),
    "docs/clusters.md": ("counts.zarr", "guides.tsv.gz"),
    "docs/coming_from/scanpy.md": ("counts.zarr",),
    "docs/file_formats.md": ("results",),
    "docs/how_to/case_control.md": ("filtered_feature_bc_matrix", "cell_types.tsv"),
    "docs/how_to/coexpression.md": ("filtered_feature_bc_matrix", "go-basic.obo.gz", "goa_human.gaf.gz"),
    "docs/how_to/pseudobulk.md": ("counts.zarr",),
    "docs/how_to/screens.md": ("filtered_feature_bc_matrix", "guide_counts", "targets.tsv", "pairs.tsv"),
    "docs/how_to/slurm_and_s3.md": ("counts.zarr", "guides.tsv.gz"),
    "docs/index.md": ("filtered_feature_bc_matrix", "cell_types.tsv"),
    "docs/linear_models.md": ("counts.zarr",),
    "docs/memory.md": ("counts.zarr", "guides.tsv.gz"),
    "docs/object_storage.md": ("filtered_feature_bc_matrix", "guides.tsv.gz"),
}


@pytest.fixture
def folder(request: pytest.FixtureRequest, screen: SimulatedScreen, tmp_path: Path) -> Iterator[Path]:
    """Folder of a page's reader: with files, a scheduler or an object storage as far as the page speaks of them."""
    page: str = request.param
    for name in BEFORE.get(page, ()):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        MATERIALS[name](screen, path)
    code = "".join(block.text for block in blocks_of(page) if block.reason is None)
    with ExitStack() as around:
        if "s3://my-bucket" in code:
            around.enter_context(credentials_for(around.enter_context(s3_server())))
            S3FileSystem(skip_instance_cache=True).mkdir("my-bucket")
        if "--scheduler-file scheduler.json" in code:
            cluster: LocalCluster = request.getfixturevalue("two_workers")
            around.enter_context(Client(cluster, set_as_default=False)).write_scheduler_file(
                tmp_path / "scheduler.json"
            )
        yield tmp_path


def run_block(language: str, text: str, folder: Path) -> str:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    environment = os.environ | {"PATH": programs, "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("page", "folder"), [(page, page) for page in WITH_CODE], indirect=["folder"], ids=WITH_CODE)
def test_the_blocks_of_a_page_run(page: str, folder: Path) -> None:
    for block in blocks_of(page):
        if block.reason is None:
            run_block(block.language, block.text, folder)


def test_few_blocks_are_not_run() -> None:
    not_run = {page: sum(block.reason is not None for block in blocks_of(page)) for page in PAGES}
    assert {page: n_blocks for page, n_blocks in not_run.items() if n_blocks} == NOT_RUN


def test_pages_that_start_from_something_are_there() -> None:
    assert set(BEFORE) <= set(WITH_CODE)


# ---- what is generated


def public_names() -> Iterator[str]:
    """Yield the public names of the package, and of its modules for AnnData."""
    for name in nd.__all__:
        value = getattr(nd, name)
        if inspect.ismodule(value):
            for inner, function in inspect.getmembers(value, inspect.isfunction):
                if function.__module__ == value.__name__ and not inner.startswith("_"):
                    yield f"{value.__name__}.{inner}"
        else:
            yield f"normalisr_dask.{name}"


def test_every_public_name_is_in_the_reference() -> None:
    reference = PAGES["docs/api.md"].read_text(encoding="utf-8").split()
    assert [name for name in public_names() if name not in reference] == []


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_links_out_of_the_site_lead_somewhere(file: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / file).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_results_of_benchmarks_become_tables(tmp_path: Path) -> None:
    (tmp_path / "kills.json").write_text(
        '{"results": 42, "workers": {"killed": 2, "identical": true}, "client": {"killed": 10, "seconds": 412.8}}'
    )
    (tmp_path / "association.json").write_text(
        '{"cores": 2, "results": [{"line": "coex", "seconds": {"numpy": 1.25, "normalisr-dask": 1.5}, "goal": null}]}'
    )
    page = generated_pages.benchmarks(tmp_path)
    assert page.index("## association") < page.index("## kills")
    assert "|  | coex |\n| --- | --- |\n| line | coex |\n| seconds: numpy | 1.25 |" in page
    assert "| results | 42 |" in page
    assert "(`benchmarks/kills.py`)" in page
    assert "### client\n\n|  | value |\n| --- | --- |\n| killed | 10 |\n| seconds | 413 |" in page


def test_without_results_there_is_a_page_of_benchmarks(tmp_path: Path) -> None:
    assert generated_pages.benchmarks(tmp_path) == "There are no results yet.\n"


def test_every_command_is_in_the_reference(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    generated_pages.write(tmp_path)
    commands = re.findall(
        r"^## `normalisr-dask (\S+)`$", (tmp_path / "command_line.md").read_text(), flags=re.MULTILINE
    )
    assert {"ingest", "run", "demo", "vooma", "qc_reads", "gocovt"} <= set(commands)
    assert "| `de` | `log10_pvalue` | grouping, gene | float64 |" in (tmp_path / "result_store.md").read_text()
