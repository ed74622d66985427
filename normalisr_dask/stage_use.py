"""What a stage of a run takes: time, memory of every worker and of the client, bytes read."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client

from normalisr_dask.cluster import worker_use
from normalisr_dask.process_memory import peak_bytes, reset_peak


@contextmanager
def measured(client: Client) -> Iterator[dict[str, Any]]:
    """Measure what the block takes; the values are there after its end.

    Parameters
    ----------
    client
        Of the cluster that the block computes on.

    Yields
    ------
    dict
        ``seconds``; ``peak_worker_bytes`` of the worker with the largest memory, ``worker_peaks`` of each by address,
        ``peak_client_bytes`` of this process; ``bytes_read`` by all workers. Workers that died on the way are missing.
    """
    use: dict[str, Any] = {}
    reset_peak()
    before, start = worker_use(client), time.perf_counter()
    yield use
    use["seconds"] = time.perf_counter() - start
    after = worker_use(client)
    peaks = {worker: peak for worker, (peak, _) in after.items()}
    use["peak_worker_bytes"], use["peak_client_bytes"] = max(peaks.values(), default=0), peak_bytes()
    use["worker_peaks"] = peaks
    nothing = (0, 0)  # a worker that has come since then
    use["bytes_read"] = sum(read - before.get(worker, nothing)[1] for worker, (_, read) in after.items())
