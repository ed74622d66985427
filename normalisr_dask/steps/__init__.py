"""One file a statistical step; Dask in, Dask out; computes nothing but what its docstring says."""
