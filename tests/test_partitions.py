"""What an interrupted stage has written is gone on with, and only by a run that would write the same."""

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest

from normalisr_dask.graph.vectors import in_memory
from normalisr_dask.partitions import _missing_parts, compute_alone, store
from normalisr_dask.storage.locations import stored_chunks
from normalisr_dask.storage.result_store import ResultStore

GENES = np.array([f"gene{number}" for number in range(10)], dtype=object)
COORDINATES = {"gene": GENES, "gene_2": GENES}
CHUNKS = {"gene": 4, "gene_2": 4}
VALUES = np.arange(1.0, 101.0).reshape(10, 10)


class InterruptedTaskError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def results(tmp_path: Path) -> ResultStore:
    made = ResultStore(tmp_path)
    made.create()
    return made


def lazy(seen: list[tuple[int, ...]], *, until: int = 100) -> dict[str, da.Array]:
    """Return arrays that note which chunks are computed, and end the process at one of them."""

    def block(values, block_info):
        if len(seen) >= until:
            raise InterruptedTaskError
        seen.append(block_info[0]["chunk-location"])
        return values

    whole = da.from_array(VALUES, chunks=(4, 4)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
    return {"pvalue": whole, "var": da.from_array(VALUES[0], chunks=10)}


@pytest.mark.parametrize("rows_at_a_time", [None, 4])
def test_chunks_that_stand_are_not_computed_again(results: ResultStore, rows_at_a_time: int | None) -> None:
    first: list[tuple[int, ...]] = []
    shares: list[float] = []
    with dask.config.set(scheduler="sync"):
        arrays = results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})
        with pytest.raises(InterruptedTaskError):
            store(arrays, lazy(first, until=5), rows_at_a_time=rows_at_a_time)
        stand = stored_chunks(arrays["pvalue"]).sum()
        assert 0 < stand <= 5

        then: list[tuple[int, ...]] = []
        arrays = results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})
        assert stored_chunks(arrays["pvalue"]).sum() == stand
        stand_of_other = stored_chunks(arrays["var"]).sum()
        store(arrays, lazy(then), rows_at_a_time=rows_at_a_time, standing=shares.append)
    assert len(then) == 9 - stand
    assert shares == [pytest.approx((stand + stand_of_other) / (9 + 3))]
    results.publish("coex")
    np.testing.assert_array_equal(results.read("coex", "pvalue"), VALUES)
    np.testing.assert_array_equal(results.read("coex", "var"), VALUES[0])


def test_chunks_of_zeros_stand_and_one_that_is_missing_is_told(results: ResultStore) -> None:
    arrays = results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})
    for made in (arrays, results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})):
        store(made, {name: da.zeros(array.shape, chunks=array.chunks) for name, array in arrays.items()})
        assert all(stored_chunks(array).all() for array in arrays.values())
        (results.output / "work" / "coex" / "pvalue" / "c" / "2" / "0").unlink()  # the second makes it again
    results.publish("coex")
    np.testing.assert_array_equal(results.read("coex", "var"), np.zeros(10))
    with pytest.raises(ValueError, match=r"results.zarr is damaged .*: coex/pvalue/c/2/0 is missing; remove .* again"):
        results.read("coex", "pvalue")


@pytest.mark.parametrize(
    ("made_with", "coordinates", "chunks"),
    [
        ({"side": 5}, COORDINATES, CHUNKS),
        (None, COORDINATES, CHUNKS),
        ({"side": 4}, COORDINATES | {"gene_2": GENES[::-1]}, CHUNKS),
        ({"side": 4}, COORDINATES, {"gene": 4, "gene_2": 5}),
    ],
)
def test_what_was_made_otherwise_is_begun_anew(results: ResultStore, made_with, coordinates, chunks) -> None:
    results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})["pvalue"][:4] = 1.0
    arrays = results.begin("coex", coordinates, chunks, made_with=made_with)
    assert not stored_chunks(arrays["pvalue"]).any()
    assert not arrays["pvalue"][...].any()


def test_arrays_that_were_not_all_made_are_begun_anew(results: ResultStore) -> None:
    arrays = results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})
    arrays["pvalue"][:4] = 1.0
    (results.output / "work" / "coex" / "var" / "zarr.json").unlink()
    arrays = results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})
    assert set(arrays) == {"pvalue", "dot", "var"}
    assert not stored_chunks(arrays["pvalue"]).any()


def test_a_folder_of_unfinished_work_is_kept_for_the_same_work_alone(results: ResultStore) -> None:
    folder = results.work_folder("edges", {"qcut": 0.05})
    (folder / "0.arrow").touch()
    assert (results.work_folder("edges", {"qcut": 0.05}) / "0.arrow").exists()
    assert not (results.work_folder("edges", {"qcut": 0.01}) / "0.arrow").exists()
    results.clear_work()
    assert not folder.exists()


def test_parts_are_computed_and_nothing_else():
    made = []

    def noted(block, *, row):
        made.append(row)
        return block + row

    rows = [
        da.ones((1, 3), chunks=1).map_blocks(noted, row=row, dtype=float, meta=np.empty((0, 0))) for row in range(4)
    ]
    whole = da.concatenate(rows)
    halves = 2 * whole, whole.sum(axis=1)
    with dask.config.set(scheduler="sync"):
        first, second = compute_alone(halves[0][1:2], halves[1][1:2])
    np.testing.assert_array_equal(first, [[4, 4, 4]])
    np.testing.assert_array_equal(second, [6])
    assert set(made) == {1}


def test_the_layers_of_a_whole_keep_no_tasks_of_its_parts():
    cells = in_memory(np.arange(12.0), (3,) * 4)
    lazy = da.blockwise(np.add, "c", cells, "c", cells, "c", dtype=float, align_arrays=False)
    lazy = lazy[::2].map_blocks(np.negative, dtype=float)
    with dask.config.set(scheduler="sync"):
        (computed,) = compute_alone(lazy)
    np.testing.assert_array_equal(computed, -2.0 * np.arange(0, 12, 2))
    made = [layer for layer in lazy.__dask_graph__().layers.values() if "add" in str(layer)]
    assert made
    assert not any(layer.is_materialized() for layer in made)


@pytest.mark.parametrize("sizes", [(150, 130), (100, 100, 80), (200, 80), (280,), (140, 140), (40,) * 7])
@pytest.mark.parametrize("interrupted", [False, True])
def test_sources_in_chunks_of_any_size_fill_their_targets(
    results: ResultStore, sizes: tuple[int, ...], *, interrupted: bool
) -> None:
    """Tasks side by side write a chunk each, or several, but never parts of one: these would be lost."""
    values = np.random.default_rng(0).random((280, 280))
    names = np.array([f"gene{number}" for number in range(280)], dtype=object)
    coordinates = {"gene": names, "gene_2": names}
    target = results.begin("coex", coordinates, {"gene": 100, "gene_2": 100}, made_with={"side": 100})["pvalue"]
    if interrupted:
        target[:100, :100] = values[:100, :100]
    with dask.config.set(scheduler="threads", num_workers=8):
        store({"pvalue": target}, {"pvalue": da.from_array(values, chunks=(sizes, sizes))})
    np.testing.assert_array_equal(target[...], values)


def test_chunks_of_a_source_that_cover_chunks_of_the_target_are_not_cut(results: ResultStore) -> None:
    arrays = results.begin("coex", COORDINATES, CHUNKS, made_with={"side": 4})
    target = arrays["pvalue"]
    for sizes, cut in (((8, 2), (8, 2)), ((10,), (10,)), ((7, 3), (4, 4, 2))):
        source = da.from_array(VALUES, chunks=(sizes, 10))
        ((part, _),) = _missing_parts(source, target.chunks, ~stored_chunks(target), range(10))
        assert part.chunks[0] == cut
