"""AnnData in place, as scanpy's users know it: pp (preparing), tl (tests), pl (plots), get (tables).

They call the steps, compute, and write what was found into the object; they hold no statistics of their own. The keys
that are written are listed in docs/anndata.md. A module is imported when it is first used: plots need Matplotlib.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from normalisr_dask.scverse import get, pl, pp, tl

__all__ = ["get", "pl", "pp", "tl"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submodules=["get", "pl", "pp", "tl"])
