"""Plans of tiles: they fit, they share out the work, and they read as few times as they can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalisr_dask.graph.memory import TaskPlan, check_fits, task_allowance
from normalisr_dask.graph.tile_plan import MOST_TASKS, TilePlan, genes_per_tile, plan_tiles

N_GENES = 20_000


def planned(n_cells: int, workers: int, task_bytes: int, n_genes: int = N_GENES) -> TilePlan:
    n_entries = n_genes * n_cells // 12
    return plan_tiles(
        n_genes, n_cells, n_entries=n_entries, cells_per_block=800, workers=workers, task_bytes=task_bytes
    )


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 50))
def test_every_tile_on_and_above_the_diagonal_is_in_one_group(n_rows, tiles_per_side, side):
    plan = TilePlan(n_rows * side, 10, side, min(tiles_per_side, n_rows), 1, task_bytes=0, seconds=0)
    tiles = [tile for group in plan.groups for tile in group.tiles]
    assert sorted(tiles) == [(i, j) for i in range(n_rows) for j in range(i, n_rows)]
    assert sum(plan.sides) == plan.n_genes
    assert max(len(group.tiles) for group in plan.groups) <= plan.tiles_per_side**2


@given(st.integers(1, 500), st.integers(1, 100))
def test_ranges_cover_all_blocks_once(n_blocks, n_ranges):
    plan = TilePlan(10, n_blocks, 10, 1, n_ranges, task_bytes=0, seconds=0)
    blocks = [block for first, last in plan.ranges(n_blocks) for block in range(first, last)]
    assert blocks == list(range(n_blocks))
    assert all(first < last for first, last in plan.ranges(n_blocks))


@pytest.mark.parametrize("n_cells", [10**4, 10**6, 10**7])
@pytest.mark.parametrize("workers", [2, 8, 64, 1024])
def test_all_workers_have_work_within_their_memory(n_cells, workers):
    allowed = task_allowance(4_000_000_000, 1)
    plan = planned(n_cells, workers, allowed)
    assert plan.task_bytes <= allowed
    assert plan.n_tasks <= MOST_TASKS
    if n_cells > 10**4 or workers < 64:  # else there is hardly a second's work for each
        assert plan.n_tasks >= workers
        assert plan.seconds < 2.5 * planned(n_cells, 1, allowed).seconds / workers


def test_more_memory_means_fewer_passes():
    passes = [len(planned(20_000, 2, n_bytes << 20).groups) for n_bytes in (400, 550, 1000, 4000, 16_000)]
    assert passes == sorted(passes, reverse=True)
    assert passes[0] > passes[-1]


def test_a_plan_that_cannot_fit_is_the_smallest():
    plan = planned(10_000, 2, 1000)
    assert plan.tiles_per_side == plan.n_ranges == 1
    with pytest.raises(ValueError, match=r"needs .* give --memory-limit"):
        check_fits(TaskPlan("a tile of gene pairs", plan.task_bytes), 500_000_000, 1)


@pytest.mark.parametrize(
    ("n_genes", "asked", "expected"),
    [(6300, 0, 900), (1000, 0, 1000), (1, 0, 1), (0, 0, 1), (6300, 40, 40), (7, 40, 7)],
)
def test_tiles_of_about_a_thousand_genes(n_genes, asked, expected):
    assert genes_per_tile(n_genes, asked) == expected


def test_no_genes_and_no_cells():
    plan = plan_tiles(0, 0, n_entries=0, cells_per_block=1)
    assert plan.sides == ()
    assert [group.tiles for group in plan.groups] == []
