"""Simulated data with known truth, counters of what a call computed and read, and digests of what a run has left."""

from normalisr_dask.testing.counting import (
    ComputeCounter,
    ReadCounter,
    ReadCountingStore,
    count_computes,
    count_reads,
    raise_if_computes,
)
from normalisr_dask.testing.digests import result_digests
from normalisr_dask.testing.simulation import SimulatedCounts, SimulatedScreen, simulate_counts, simulate_screen
from normalisr_dask.testing.writing import write_cell_ranger_folder, write_matrix_market

__all__ = [
    "ComputeCounter",
    "ReadCounter",
    "ReadCountingStore",
    "SimulatedCounts",
    "SimulatedScreen",
    "count_computes",
    "count_reads",
    "raise_if_computes",
    "result_digests",
    "simulate_counts",
    "simulate_screen",
    "write_cell_ranger_folder",
    "write_matrix_market",
]
