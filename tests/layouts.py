"""One matrix in every kind and chunking that the steps take, and hypothesis strategies that choose among them."""

import dask.array as da
import numpy as np
import scipy.sparse
import zarr
from hypothesis import Phase, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

SPARSE_CHUNKS = {
    "csc_array": scipy.sparse.csc_array,
    "csr_array": scipy.sparse.csr_array,
    "csr_matrix": scipy.sparse.csr_matrix,
}
DENSE_KINDS = ("numpy", "zarr", "dask")
SPARSE_KINDS = ("scipy", *SPARSE_CHUNKS)

Chunks = tuple[tuple[int, ...], tuple[int, ...]]


def laid_out(values: np.ndarray, kind: str, chunks: Chunks):
    """Return rows × cells as an input of this kind; chunks matter to Dask arrays, and their largest ones to Zarr."""
    if kind == "numpy":
        return values
    if kind == "zarr":
        sizes = tuple(max(1, *axis) if len(axis) > 1 else max(1, axis[0]) for axis in chunks)
        array = zarr.create_array(MemoryStore(), shape=values.shape, dtype=values.dtype, chunks=sizes)
        array[:] = values
        return array
    if kind == "scipy":
        return scipy.sparse.csr_array(values)
    dense = da.from_array(values, chunks=chunks)
    if kind == "dask":
        return dense
    container = SPARSE_CHUNKS[kind]
    return dense.map_blocks(container, dtype=values.dtype, meta=container((0, 0), dtype=values.dtype))


@st.composite
def partitions(draw, size: int) -> tuple[int, ...]:
    """Draw the sizes of up to six irregular chunks of an axis; chunks of one row or cell are likely."""
    cuts = draw(st.sets(st.integers(1, size - 1), max_size=5)) if size > 1 else set()
    if cuts and draw(st.booleans()):
        cuts |= {min(max(cuts) + 1, size - 1)}
    edges = [0, *sorted(cuts), size]
    return tuple(int(width) for width in np.diff(edges))


def chunkings(shape: tuple[int, int]) -> st.SearchStrategy[Chunks]:
    """Draw irregular chunks of rows and cells."""
    return st.tuples(partitions(shape[0]), partitions(shape[1]))


#: For properties whose every example computes a few graphs: 8 examples, and 50 with --run-slow. A failure is shown as
#: it was found: to shrink it would take minutes, and layouts are small as they are.
EXPENSIVE = settings(
    max_examples=settings().max_examples // 12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
