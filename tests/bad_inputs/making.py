"""Tables of bad command lines: what a case is, the good inputs that it begins with, and how they are spoilt."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse
from gene_ontologies import GROWTH, TERMS, gaf_line

from normalisr_dask.storage.ingest import ingest
from normalisr_dask.testing import simulate_counts, write_cell_ranger_folder

Spoil = Callable[[], None]
Tree = dict[str, bytes | None]

N_GENES, N_CELLS = 40, 60
HEADER = "%%MatrixMarket matrix coordinate integer general\n"


class Case(NamedTuple):
    """One bad command line.

    Attributes
    ----------
    what
        What is wrong, in words; also the name of the test.
    command
        What is typed after ``normalisr-dask``, in a folder with those of the good inputs that it names.
    line
        Text that the one line of the error holds.
    spoil
        Makes the bad inputs; runs in that folder.
    """

    what: str
    command: str
    line: str
    spoil: tuple[Spoil, ...]


def cases(*rows: tuple[Any, ...]) -> list[Case]:
    """Return the rows of a table: what, command, line, and what spoils the inputs."""
    return [Case(what, command, line, tuple(spoil)) for what, command, line, *spoil in rows]


# ---- good inputs


def write_good_inputs(folder: Path) -> None:
    """Write an input of every kind; all tables are of the same cells."""
    simulated = simulate_counts(N_GENES, N_CELLS, seed=5, median_depth=300, decades=1.5)
    counts = scipy.sparse.csc_array(simulated.counts)
    genes, cells = [f"gene{n}" for n in range(N_GENES)], [f"cell{n}-1" for n in range(N_CELLS)]
    numbers = np.arange(N_CELLS)
    guide = np.array([f"g{n % 4}" for n in numbers])
    table = pd.DataFrame(
        {
            "guide": guide,
            "batch": np.where(numbers % 3 == 0, "a", "b"),
            "plate": "p1",
            "well": [f"w{n}" for n in numbers],
            "depth": numbers / 7,
            "gaps": np.where(numbers == 3, None, "x"),
        },
        index=pd.Index(cells, name="cell"),
    )
    table.to_csv(folder / "cells.tsv", sep="\t")
    write_cell_ranger_folder(folder / "matrix", counts, genes, cells)
    ingest(folder / "matrix", folder / "counts.zarr", obs=folder / "cells.tsv")
    _write_plain(folder / "plain", counts, genes, cells)
    _write_tables(folder, table, genes)
    _write_ten_x(folder / "filtered.h5", counts, genes, cells)
    var = pd.DataFrame(index=genes)
    anndata.AnnData(counts.T.tocsr().astype(np.float32), table.drop(columns="gaps"), var).write_h5ad(
        folder / "counts.h5ad"
    )
    _write_samples(folder / "samples.h5ad")
    _write_normalisr(folder)
    lines = "".join(gaf_line(f"ID{n}", f"gene{n}", GROWTH, "IDA") + "\n" for n in range(N_GENES))
    (folder / "terms.obo").write_text(TERMS)
    (folder / "genes.gaf").write_text(f"!gaf-version: 2.1\n{lines}")


def _write_plain(folder: Path, counts: scipy.sparse.csc_array, genes: list[str], cells: list[str]) -> None:
    """Write Matrix Market of 5 genes and 4 cells that one can read, with its names beside it."""
    folder.mkdir()
    body = "".join(f"{gene} {cell} {gene + cell}\n" for cell in range(1, 5) for gene in range(1, 6))
    (folder / "matrix.mtx").write_text(f"{HEADER}5 4 20\n{body}")
    (folder / "genes.tsv").write_text("".join(f"{name}\n" for name in genes[:5]))
    (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in cells[:4]))


def _write_tables(folder: Path, table: pd.DataFrame, genes: list[str]) -> None:
    """Write the tables of a run, and a dense table of counts."""
    guides = pd.get_dummies(table["guide"], dtype=int)
    guides.to_csv(folder / "guides.tsv", sep="\t")
    scipy.io.mmwrite(folder / "guides.mtx", scipy.sparse.coo_array(guides.to_numpy().T), field="integer")
    (folder / "guide_names.txt").write_text("g0\ng1\ng2\ng3\n")
    table[["batch", "depth"]].to_csv(folder / "covariates.tsv", sep="\t")
    (folder / "targets.tsv").write_text("guide\ttarget\ng0\tA\ng1\tA\ng2\tB\ng3\tnone\n")
    (folder / "pairs.tsv").write_text("guide\tgene\ng0\tgene1\ng1\tgene2\n")
    (folder / "controls.txt").write_text("g3\n")
    header = "\t".join(["gene", *table.index[:4]])
    rows = "".join(f"{gene}\t{n}\t0\t2\t{n + 1}\n" for n, gene in enumerate(genes[:5]))
    (folder / "table.tsv").write_text(f"{header}\n{rows}")


def _write_ten_x(path: Path, counts: scipy.sparse.csc_array, genes: list[str], cells: list[str]) -> None:
    """Write HDF5 as Cell Ranger 3 does."""
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["shape"] = np.array(counts.shape, dtype=np.int32)
        matrix["data"], matrix["indices"] = counts.data.astype(np.int32), counts.indices.astype(np.int64)
        matrix["indptr"], matrix["barcodes"] = counts.indptr.astype(np.int64), np.array(cells, dtype="S")
        features = matrix.create_group("features")
        features["id"] = features["name"] = np.array(genes, dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * len(genes), dtype="S")


def _write_samples(path: Path) -> None:
    """Write log-expression of eight samples."""
    expression = np.random.default_rng(0).normal(5, 1, (8, 12))
    names = [f"sample{n}" for n in range(8)]
    samples = pd.DataFrame({"arm": ["u", "v"] * 4, "donor": list("aabbccdd"), "age": range(8)}, index=names)
    genes = pd.DataFrame(index=[f"gene{n}" for n in range(12)])
    anndata.AnnData(expression, samples, genes).write_h5ad(path)


def _write_normalisr(folder: Path) -> None:
    """Write small files of Normalisr's commands: two genes, three cells."""
    contents = {
        "counts.tsv": "1\t2\t3\n4\t5\t6\n",
        "fractions.tsv": "1\t2\t3\n4\t5.5\t6\n",
        "expression.tsv": "1\t2\t4\n4\t7\t6\n",
        "two_cells.tsv": "1\t2\n",
        "constant.tsv": "5\t5\t5\n",
        "weights.tsv": "1\n2\n1\n",
        "genes.txt": "g1\ng2\n",
        "cells.txt": "c1\nc2\nc3\n",
        "two_cells.txt": "c1\nc2\n",
        "other_cells.txt": "c1\nc9\n",
        "twice.txt": "c1\nc2\nc2\n",
        "four_genes.txt": "g1\ng2\ng3\ng4\n",
        "four_genes.tsv": "1\t2\t4\n4\t7\t6\n2\t1\t3\n3\t3\t5\n",
        "net.tsv": "0\t1\t1\t1\n1\t0\t1\t0\n1\t1\t0\t0\n1\t0\t0\t0\n",
        "P.tsv": "0\t0.9\n0.9\t0\n",
    }
    for name, text in contents.items():
        (folder / name).write_text(text)


def copy_named(good: Path, folder: Path, words: Iterable[str]) -> None:
    """Copy the good inputs that a command line names."""
    for name in {word.rpartition("=")[2].partition("/")[0] for word in words}:
        if (good / name).is_dir() and name not in {"", ".", ".."}:
            shutil.copytree(good / name, folder / name)
        elif (good / name).is_file():
            shutil.copy(good / name, folder / name)


def tree(folder: Path) -> Tree:
    """Return what is in a folder: the bytes of every file, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }


# ---- what spoils them


def text(name: str, content: str | bytes) -> Spoil:
    """Write a file."""

    def spoil() -> None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def cut(name: str, kept: float = 0.5) -> Spoil:
    """Cut a file off."""

    def spoil() -> None:
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: int(len(content) * kept)])

    return spoil


def flip(name: str, place: int) -> Spoil:
    """Turn the bits of a byte round."""

    def spoil() -> None:
        content = bytearray(Path(name).read_bytes())
        content[place] ^= 0xFF
        Path(name).write_bytes(content)

    return spoil


def edit(name: str, old: str, new: str) -> Spoil:
    """Replace text that a file has; each time."""

    def spoil() -> None:
        content = Path(name).read_text()
        assert old in content
        Path(name).write_text(content.replace(old, new))

    return spoil


def remove(name: str) -> Spoil:
    """Remove a file or folder."""

    def spoil() -> None:
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()

    return spoil


def folder(name: str) -> Spoil:
    """Make a folder."""
    return lambda: Path(name).mkdir()


def copy(source: str, name: str) -> Spoil:
    """Copy a folder or file."""
    return lambda: shutil.copytree(source, name) if Path(source).is_dir() else shutil.copy(source, name)


def metadata(name: str, *keys: str, value: Any) -> Spoil:
    """Change one value in a file of JSON."""

    def spoil() -> None:
        content = json.loads(Path(name).read_text())
        place = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        Path(name).write_text(json.dumps(content))

    return spoil


def h5(name: str, place: str, change: Callable[[Any], Any] | None = None) -> Spoil:
    """Replace the values of a dataset of an HDF5 file by what becomes of them, or remove a dataset or group."""

    def spoil() -> None:
        with h5py.File(name, "r+") as file:
            if change is None:
                del file[place]
                return
            attributes, values = dict(file[place].attrs), file[place][...]
            del file[place]
            file[place] = change(values)
            file[place].attrs.update(attributes)

    return spoil


def frame(name: str, **columns: Any) -> Spoil:
    """Write a table as Parquet."""
    return lambda: pd.DataFrame(columns).to_parquet(name, index=False)
