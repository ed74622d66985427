"""Expression that is made of counts, as a Zarr group: the counts, and the vectors of which it is made with them.

Log-CPM and normalised expression are dense, but follow from sparse counts and a few numbers for each gene and cell. A
store of these takes about the room of the counts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import zarr
from numpy.typing import NDArray

from normalisr_dask.storage.count_store import METADATA_KEY
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.storage.counts import Counts, open_counts
from normalisr_dask.storage.damage import check_chunks, reading
from normalisr_dask.storage.locations import ALL_CHUNKS, as_path, zarr_store
from normalisr_dask.storage.names import storable

FORMAT_VERSION = 1
COUNTS, VECTORS = "counts", "vectors"


class StoredForm(NamedTuple):
    """What a store of expression holds.

    Attributes
    ----------
    kind
        What the vectors are, and how expression is made of them: a name.
    counts
        Counts of the genes and cells.
    vectors
        Arrays by name.
    """

    kind: str
    counts: Counts
    vectors: dict[str, NDArray[Any]]


def write_expression(store: Path | str, form: StoredForm) -> None:
    """Write a store of expression; counts are copied some cells at a time.

    A reader knows it by an attribute that is written last.
    """
    path = as_path(store)
    group = zarr.create_group(zarr_store(path), zarr_format=3)
    write_counts(path / COUNTS, form.counts)
    vectors = group.create_group(VECTORS)
    for name, values in form.vectors.items():
        vectors.create_array(name, data=np.ascontiguousarray(values), config=ALL_CHUNKS)
    group.attrs[METADATA_KEY] = {"expression": form.kind, "format_version": FORMAT_VERSION}


def read_expression(store: Path | str) -> StoredForm | None:
    """Open a store of expression; None if it is another kind of store.

    Raises
    ------
    ValueError
        If it is of another version, or damaged.
    """
    group = zarr.open_group(zarr_store(as_path(store)), mode="r")
    metadata = group.attrs.get(METADATA_KEY)
    if not isinstance(metadata, dict) or "expression" not in metadata:
        return None
    if metadata.get("format_version") != FORMAT_VERSION:
        msg = f"{store} is expression of format version {metadata.get('format_version')}, expected {FORMAT_VERSION}"
        raise ValueError(msg)
    counts = open_counts(f"{str(store).rstrip('/')}/{COUNTS}")
    return StoredForm(str(metadata["expression"]), counts, dict(_vectors(group, store)))


def _vectors(group: zarr.Group, store: Path | str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Read the vectors, each with its name."""
    way_out = "copy it again, or make it again"
    vectors: Any = group[VECTORS]
    for name, array in vectors.arrays():
        place = f"{VECTORS}/{name}"
        check_chunks(array, store, place, way_out)
        with reading(store, place, way_out):
            yield name, np.asarray(array[...])


def write_counts(store: Path | str, counts: Counts) -> None:
    """Write some genes and cells of a count store as a store of their own, a block of cells at a time."""
    with CountStoreWriter(store, obs=storable(counts.obs), var=storable(counts.var)) as writer:
        for block in counts.blocks():
            by_cell = scipy.sparse.csr_array(block.T)
            by_cell.eliminate_zeros()
            writer.append(np.diff(by_cell.indptr), by_cell.indices, by_cell.data)
        writer.finalise()
