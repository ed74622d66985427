"""From the address of a scheduler that others started to a Dask client, or to one line that says why not."""

import asyncio
import json
import socket
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, Security
from distributed.comm import CommClosedError, get_address_host
from distributed.core import rpc
from distributed.utils import LoopRunner
from distributed.versions import VersionMismatchWarning

from normalisr_dask.cluster_encryption import configured_security
from normalisr_dask.cluster_versions import SameVersions, refuse_other_versions
from normalisr_dask.worker_plugin import EnoughMemory, WorkerSettings


def address_in_file(path: Path, seconds: float) -> str:
    """Read a scheduler file; a scheduler that is just starting gets some time to write it.

    Parameters
    ----------
    path
        What ``dask scheduler --scheduler-file`` writes.
    seconds
        How long to wait for it.

    Returns
    -------
    str
        The scheduler's address.

    Raises
    ------
    FileNotFoundError
        If the file does not appear in time.
    ValueError
        If it is no scheduler file.
    """
    give_up = time.monotonic() + seconds
    while not path.exists() or path.stat().st_size == 0:
        if time.monotonic() > give_up:
            msg = (
                f"no scheduler file {path} after {seconds:g} seconds; "
                f"start a scheduler with `dask scheduler --scheduler-file {path}`"
            )
            raise FileNotFoundError(msg)
        time.sleep(0.1)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path} is no scheduler file: expected the JSON that `dask scheduler --scheduler-file` writes"
        raise ValueError(msg) from error


@contextmanager
def client_of_scheduler(
    address: str, security: Security | None, answer_seconds: float, worker_seconds: float
) -> Iterator[Client]:
    """Connect to a scheduler and prepare its workers; on leaving, close the client only.

    Parameters
    ----------
    address
        Such as ``tcp://10.0.0.1:8786``.
    security
        How to encrypt; None for what Dask's own configuration says.
    answer_seconds, worker_seconds
        How long to wait for the scheduler, and for its first worker.

    Yields
    ------
    Client

    Raises
    ------
    ValueError
        If the address is that of an encrypted scheduler, and nothing says how to encrypt.
    ConnectionError
        If no scheduler answers in time, or something else answers.
    ConnectionError
        If there are no workers in time, or scheduler or workers have not this process's software.
    ConnectionError
        If the scheduler goes away while the block lasts.
    """
    with _answering_client(address, security or configured_security(address), answer_seconds) as client:
        try:
            _prepare_workers(client, address, worker_seconds)
            yield client
        except Exception as error:
            # nobody else cancels tasks, and a client that has lost its scheduler tries to connect again
            if not isinstance(error, CancelledError | CommClosedError) and client.status == "running":
                raise
            msg = (
                f"the Dask scheduler at {address} went away; "
                "run the same command again, with a running scheduler, to go on"
            )
            raise ConnectionError(msg) from error


def _answering_client(address: str, security: Security, seconds: float) -> Client:
    """Connect, or say in one line what is wrong."""
    try:
        # Dask's client has no deadline for the first greeting, and leaves its thread behind where that fails
        LoopRunner().run_sync(_greet_scheduler, address, security, seconds)
    except Exception as error:  # bytes that are no greeting end in anything, even in a MemoryError
        if isinstance(error, OSError) and not isinstance(error, CommClosedError):
            raise _no_answer(address, seconds) from error
        msg = (
            f"no Dask scheduler answers at {address}: something else does, or it wants other encryption or "
            f"certificates ({_reason(error)}); check the address, its port (8786 by default; the dashboard has "
            "another), whether it starts with tcp:// or tls://, and the TLS files"
        )
        raise ConnectionError(msg) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # what matters of it is refused in one line
            return Client(address, timeout=seconds, security=security, set_as_default=True)
    except (OSError, ValueError, TypeError) as error:
        raise _no_answer(address, seconds) from error


async def _greet_scheduler(address: str, security: Security, seconds: float) -> None:
    """Ask what listens at the address who it is, with one deadline from the first byte to the last."""
    arguments = security.get_connection_args("client")
    async with asyncio.timeout(seconds), rpc(address, timeout=seconds, connection_args=arguments) as server:
        identity = await server.identity()
    if "workers" not in identity:
        msg = f"it is a Dask {identity['type']}"
        raise TypeError(msg)


def _no_answer(address: str, seconds: float) -> ConnectionError:
    """Say that nothing came, or nothing that Dask could read to its end."""
    try:
        socket.getaddrinfo(get_address_host(address), None)
        why = ""
    except socket.gaierror as error:
        why = f": its host is not known here ({error.strerror})"
    return ConnectionError(
        f"the Dask scheduler at {address} did not answer within {seconds:g} seconds{why}; "
        "check the address and that `dask scheduler` runs there"
    )


def _reason(error: Exception) -> str:
    """Tell why a greeting failed, unless that only tells how Dask misread it."""
    if isinstance(error, CommClosedError | TypeError):
        return str(error.__cause__ or error)
    return "its answer is not in Dask's protocol"


def _prepare_workers(client: Client, address: str, seconds: float) -> None:
    """Wait for a worker, for without one tasks would wait for ever; see that all can do the work."""
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        msg = (
            f"the Dask scheduler at {address} has no workers after {seconds:g} seconds; "
            f"start some with `dask worker {address}`"
        )
        raise ConnectionError(msg) from error
    expected = refuse_other_versions(client)
    try:
        client.register_plugin(SameVersions(expected))
        client.register_plugin(WorkerSettings())
        client.register_plugin(EnoughMemory(0))  # in place of that of an earlier command
    except Exception as error:  # whatever a worker raised while it read the plugins
        msg = (
            f"the workers of the Dask scheduler at {address} cannot load normalisr_dask "
            f"({type(error).__name__}: {error}); start them in the environment that runs this command"
        )
        raise ConnectionError(msg) from error
