"""A screen of any number of cells in Cell Ranger's files, drawn and written in bounded memory.

    python benchmarks/atlas_data.py FOLDER --cells 1e6 --genes 20000

A cell has one of twelve types, a log-normal depth, and one guide or none, which takes 70 % of its target's transcripts.
Counts are negative binomial: clusters of transcripts arrive at random and have logarithmic sizes, so that drawing takes
time in proportion to the transcripts and not to genes × cells. Blocks of cells are drawn, formatted and compressed by
themselves, each a member of the gzip file, from a seed of its own: files are the same for every number of threads.
"""

import argparse
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from isal import igzip
from numba import njit
from numpy.typing import NDArray

CELLS_PER_BLOCK = 2_000
N_TYPES = 12
N_GUIDES = 1_000
WITHOUT_GUIDE = 0.3
#: Share of its target's transcripts that a guide leaves.
LEFT = 0.3
MORE_GUIDES = 4.0
MEDIAN_DEPTH, DEPTH_SPREAD = 2_100.0, 0.45
DECADES_SPREAD = 1.9
DISPERSION = 0.25
N_THREADS = 2

Floats = NDArray[np.float64]


class Model(NamedTuple):
    """What all cells are drawn from: gene shares of every type with tables for drawing, and targets of guides."""

    shares: Floats
    thresholds: Floats
    aliases: NDArray[np.int64]
    targets: NDArray[np.int64]


class Block(NamedTuple):
    """A block of cells as it is written; guides as pairs of guide and cell, (pairs, 2)."""

    compressed: bytes
    n_entries: int
    n_characters: int
    guides: NDArray[np.int64]
    many_guides: NDArray[np.int64]


def write_atlas(
    folder: Path,
    *,
    n_cells: int,
    n_genes: int,
    seed: int = 0,
    n_guides: int = N_GUIDES,
    n_threads: int = N_THREADS,
) -> dict[str, int]:
    """Write matrix, names and guides of a screen, and return the numbers of entries and of characters of the matrix.

    ``guides.mtx.gz`` has the one guide of a cell, ``many_guides.mtx.gz`` some four more that do nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = _model(np.random.default_rng(seed), n_genes, n_guides)
    draft, head = folder / "matrix.mtx.gz.partial", _header(n_genes, n_cells, 0)
    n_entries, n_characters = 0, len(head)
    carried: dict[str, list[NDArray[np.int64]]] = {"guides": [], "many_guides": []}
    with draft.open("wb") as file:
        file.write(_stored(head))
        for block in _blocks(model, n_cells, seed, n_threads):
            file.write(block.compressed)
            n_entries += block.n_entries
            n_characters += block.n_characters
            for name, pairs in carried.items():
                pairs.append(getattr(block, name).astype(np.int32))
        file.seek(0)
        file.write(_stored(_header(n_genes, n_cells, n_entries)))
    _write_lines(folder / "features.tsv.gz", (f"ENSG{n:08d}\tG{n}\tGene Expression" for n in range(n_genes)))
    _write_lines(folder / "barcodes.tsv.gz", (f"CELL{n:08d}-1" for n in range(n_cells)))
    _write_lines(folder / "guide_names.txt", (f"guide{n}" for n in range(n_guides)))
    for name, blocks in carried.items():
        pairs = np.concatenate(blocks)
        start = f"%%MatrixMarket matrix coordinate integer general\n{n_guides} {n_cells} {len(pairs)}"
        _write_lines(folder / f"{name}.mtx.gz", chain([start], (f"{guide + 1} {cell + 1} 1" for guide, cell in pairs)))
    draft.rename(folder / "matrix.mtx.gz")
    return {"n_entries": n_entries, "n_characters": n_characters}


def _model(random: np.random.Generator, n_genes: int, n_guides: int) -> Model:
    shares = np.exp(DECADES_SPREAD * random.normal(size=n_genes) + 0.4 * random.normal(size=(N_TYPES, n_genes)))
    shares /= shares.sum(axis=1, keepdims=True)
    tables = [_alias_table(row) for row in shares]
    middling = np.argsort(shares[0])[n_genes // 2 : n_genes * 9 // 10]
    targets = random.choice(middling, n_guides, replace=n_guides > middling.size)
    thresholds, aliases = (np.stack(part) for part in zip(*tables, strict=True))
    return Model(shares, thresholds, aliases, targets)


def _alias_table(shares: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return Walker's table, by which a gene is drawn with one number whatever the number of genes."""
    scaled, aliases = shares * shares.size, np.arange(shares.size)
    small, large = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
    while small and large:
        less, more = small.pop(), large.pop()
        aliases[less] = more
        scaled[more] -= 1 - scaled[less]
        (small if scaled[more] < 1 else large).append(more)
    scaled[small + large] = 1.0
    return scaled, aliases


def _blocks(model: Model, n_cells: int, seed: int, n_threads: int) -> Iterator[Block]:
    """Yield the blocks in order, some of them made ahead."""
    waiting: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for first in range(0, n_cells, CELLS_PER_BLOCK):
            n_here = min(CELLS_PER_BLOCK, n_cells - first)
            waiting.append(pool.submit(_block, model, first, n_here, np.random.default_rng((seed, first))))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        for block in waiting:
            yield block.result()


def _block(model: Model, first: int, n_cells: int, random: np.random.Generator) -> Block:
    depths = MEDIAN_DEPTH * np.exp(DEPTH_SPREAD * random.normal(size=n_cells))
    types = random.integers(N_TYPES, size=n_cells)
    n_guides = model.targets.size
    guide = np.where(random.random(n_cells) < WITHOUT_GUIDE, -1, random.integers(n_guides, size=n_cells))
    cells = np.flatnonzero(guide >= 0)
    guides = np.column_stack([guide[cells], first + cells])
    further = np.repeat(np.arange(n_cells), random.poisson(MORE_GUIDES, n_cells))
    more = np.column_stack([random.integers(n_guides, size=further.size), first + further])
    offsets, genes, counts = _draw(random, depths, types, guide, *model)
    text = _format(first, offsets, genes, counts)
    many_guides = np.unique(np.concatenate([guides, more])[:, ::-1], axis=0)[:, ::-1]
    return Block(igzip.compress(text, compresslevel=1, mtime=0), genes.size, text.size, guides, many_guides)


@njit(nogil=True, cache=True)
def _draw(random, depths, types, guide, shares, thresholds, aliases, targets):  # type: ignore[no-untyped-def]
    n_genes = shares.shape[1]
    room = int(depths.sum()) + 10 * depths.size + 1_000
    genes, counts = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
    offsets = np.zeros(depths.size + 1, dtype=np.int64)
    of_cell = np.zeros(n_genes, dtype=np.int32)
    n_entries = 0
    for cell in range(depths.size):
        share, threshold, alias = shares[types[cell]], thresholds[types[cell]], aliases[types[cell]]
        target = targets[guide[cell]] if guide[cell] >= 0 else -1
        for _ in range(random.poisson(depths[cell])):
            place = random.random() * n_genes
            gene = int(place)
            if place - gene >= threshold[gene]:
                gene = alias[gene]
            mean = DISPERSION * depths[cell] * share[gene]
            expected = LEFT * mean if gene == target else mean
            if random.random() * mean < np.log1p(expected):  # clusters arrive at the rate log(1 + φμ) / φ
                of_cell[gene] += _logarithmic(random, expected / (1 + expected))
        for gene in range(n_genes):
            if of_cell[gene] > 0 and n_entries < room:
                genes[n_entries], counts[n_entries] = gene, of_cell[gene]
                n_entries += 1
            of_cell[gene] = 0
        offsets[cell + 1] = n_entries
    return offsets, genes[:n_entries], counts[:n_entries]


@njit(nogil=True, cache=True)
def _logarithmic(random, share):  # type: ignore[no-untyped-def]
    """Draw k with probability shareᵏ / (−k log(1 − share))."""
    left, size = random.random(), 1
    probability = -share / np.log1p(-share)
    while left > probability and size < 10_000:
        left -= probability
        probability *= share * size / (size + 1)
        size += 1
    return size


@njit(nogil=True, cache=True)
def _format(first, offsets, genes, counts):  # type: ignore[no-untyped-def]
    text = np.empty(32 * genes.size, dtype=np.uint8)
    end = 0
    for cell in range(offsets.size - 1):
        for entry in range(offsets[cell], offsets[cell + 1]):
            end = _put(text, end, genes[entry] + 1, 32)
            end = _put(text, end, first + cell + 1, 32)
            end = _put(text, end, counts[entry], 10)
    return text[:end].copy()


@njit(nogil=True, cache=True)
def _put(text, end, number, separator):  # type: ignore[no-untyped-def]
    n_digits, rest = 1, number // 10
    while rest > 0:
        n_digits, rest = n_digits + 1, rest // 10
    for place in range(end + n_digits - 1, end - 1, -1):
        text[place] = 48 + number % 10
        number //= 10
    text[end + n_digits] = separator
    return end + n_digits + 1


def _header(n_genes: int, n_cells: int, n_entries: int) -> bytes:
    """Return the header, as long whatever the number of entries."""
    return f"%%MatrixMarket matrix coordinate integer general\n%\n{n_genes} {n_cells} {n_entries:<15d}\n".encode()


def _stored(text: bytes) -> bytes:
    """Return a gzip member without compression, as long whatever the text says."""
    compressor = zlib.compressobj(level=0, wbits=31)
    return compressor.compress(text) + compressor.flush()


def _write_lines(path: Path, lines) -> None:  # type: ignore[no-untyped-def]
    with igzip.IGzipFile(path, "wb", mtime=0) if path.suffix == ".gz" else path.open("wb") as file:
        file.writelines(f"{line}\n".encode() for line in lines)


def main() -> None:
    """Parse and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=float, default=1e5)
    parser.add_argument("--genes", type=float, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sizes = {"n_cells": int(arguments.cells), "n_genes": int(arguments.genes)}
    print(write_atlas(arguments.folder, **sizes, seed=arguments.seed))


if __name__ == "__main__":
    main()
