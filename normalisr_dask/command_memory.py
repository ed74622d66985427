"""How much memory the command itself takes, about: the one part of a run that grows with cells.

It holds Dask's scheduler, names and vectors of cells and the slices of these in tasks that wait, and P-values of which
it makes Q-values. The numbers are fitted to runs of up to a million cells; the report is left aside.
"""

from normalisr_dask.storage.q_values import SORTED_TESTS

#: Python with its libraries and Dask's scheduler, before any data.
PROCESS_BYTES = 400_000_000
#: Of a cell: its name, its values of some fifty vectors, and their slices.
CELL_BYTES = 1_400
#: Of a task that is submitted and not done.
TASK_BYTES = 5_000
#: Of a test among those that are sorted together.
TEST_BYTES = 48


def command_bytes(n_cells: int, n_tests: int, n_tasks: int) -> int:
    """Return about how many bytes the command takes.

    Parameters
    ----------
    n_cells, n_tests
        Of the store, and of genes by groupings.
    n_tasks
        Of the stage that has most.
    """
    of_tests = TEST_BYTES * min(n_tests, SORTED_TESTS)
    return PROCESS_BYTES + CELL_BYTES * n_cells + TASK_BYTES * n_tasks + of_tests
