"""Whether the scheduler and the workers have the software of this process."""

from collections.abc import Mapping
from typing import Any

from distributed import Client, Worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.versions import get_versions

from normalisr_dask.worker_plugin import turn_away

# What decides whether tasks can be read elsewhere, and the last bits of what they give.
_PACKAGES = ["dask", "distributed", "numba", "numpy", "scipy", "zarr", "normalisr-dask"]
_WAY_OUT = "start scheduler and workers in the environment that runs the command"

Versions = dict[str, str | None]


class SameVersions(WorkerPlugin):
    """Has workers leave that join later with other software than the scheduler's, which is that of its last client.

    Parameters
    ----------
    expected
        The client's versions.
    """

    name = "normalisr-dask-same-versions"

    def __init__(self, expected: Versions) -> None:
        self.expected = expected

    def setup(self, worker: Worker) -> None:
        """Dask calls this before the worker reads a task."""
        found = _versions(get_versions(packages=_PACKAGES))
        if found != self.expected:
            turn_away(worker, _difference(found, self.expected), _WAY_OUT)


def refuse_other_versions(client: Client) -> Versions:
    """Compare the software of the scheduler and of every worker with that of this process.

    Parameters
    ----------
    client
        A connected client.

    Returns
    -------
    dict
        Versions by name of what is compared.

    Raises
    ------
    ConnectionError
        If one of them has another version of something that matters, or lacks it.
    """
    found = client.get_versions(packages=_PACKAGES)
    expected = _versions(found["client"])
    places = {f"the scheduler at {client.scheduler.address}": found["scheduler"]} | {
        f"the worker at {address}": of_worker for address, of_worker in found["workers"].items()
    }
    for place, software in places.items():
        if _versions(software) != expected:
            msg = f"{place} {_difference(_versions(software), expected)}; {_WAY_OUT}"
            raise ConnectionError(msg)
    return expected


def _versions(software: Mapping[str, Any]) -> Versions:
    """Pick what is compared from what Dask tells; of Python, releases of the same minor version read the same code."""
    packages = software["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    return {"Python": python} | {name: packages[name] for name in _PACKAGES}


def _difference(found: Versions, expected: Versions) -> str:
    """Say what differs."""
    others = [name for name in expected if found[name] != expected[name]]
    theirs, ours = (
        ", ".join(f"{name} {versions[name]}" if versions[name] else f"no {name}" for name in others)
        for versions in (found, expected)
    )
    return f"has {theirs}, but the command has {ours}"
