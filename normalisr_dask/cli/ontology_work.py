"""What the command gocovt does; its libraries for the Gene Ontology take a while to import."""

from normalisr_dask.commands.ontology import gocovt

__all__ = ["gocovt"]
