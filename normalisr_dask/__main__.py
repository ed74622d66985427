"""``python -m normalisr_dask`` is ``normalisr-dask``."""

from normalisr_dask.cli import main

if __name__ == "__main__":
    main()
