"""Files: ingest, the count store, the result store; knows Zarr, no statistics."""
