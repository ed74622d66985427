"""How a kernel is laid over chunks: blocks, reductions, products, memory plan; knows Dask, no statistics."""
