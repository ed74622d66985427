"""Simulated data with known truth, and counters that show what a call computed and read."""

from normalisr_dask.testing.counting import (
    ComputeCounter,
    ReadCounter,
    ReadCountingStore,
    count_computes,
    count_reads,
    raise_if_computes,
)
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
    "simulate_counts",
    "simulate_screen",
    "write_cell_ranger_folder",
    "write_matrix_market",
]
