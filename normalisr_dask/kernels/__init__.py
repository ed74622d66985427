"""Mathematics of one block: NumPy, SciPy and Numba; pure, single-threaded, no Dask, no files."""
