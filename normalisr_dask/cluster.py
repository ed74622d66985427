"""From a scheduler's address, a scheduler file or nothing at all to a Dask client.

With nothing given, a local cluster of processes is started, with as many workers as fill the cores; it listens on the
loopback interface only and is gone when the ``with`` block ends. In every case the workers' BLAS and OpenMP libraries
are held to one thread, since chunks are the only parallelism.
"""

import asyncio
import gc
import json
import logging
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import dask
import scipy.linalg  # noqa: F401 - loads SciPy's BLAS, for a limit only reaches libraries that are loaded
from dask.system import cpu_count
from distributed import Client, LocalCluster, Security, Worker
from distributed.comm import CommClosedError
from distributed.core import rpc
from distributed.system import memory_limit as machine_memory
from distributed.utils import LoopRunner, import_term

from normalisr_dask.process_memory import bytes_read, peak_bytes
from normalisr_dask.validation import check_count
from normalisr_dask.worker_plugin import OneThreadInLibraries

LOOPBACK = "127.0.0.1"
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[^/]+:\d+")
_NOISY_LOGGERS = ("distributed", "asyncio", "tornado")
_SHARE_OF_MEMORY = 0.8
_ANSWER_SECONDS = 10.0
_SMALLEST_MEMORY_LIMIT = 2**26
_ONE_THREAD = {
    "OMP_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "BLIS_NUM_THREADS": 1,
    "VECLIB_MAXIMUM_THREADS": 1,
    "NUMEXPR_NUM_THREADS": 1,
    "NUMBA_NUM_THREADS": 1,
}
# glibc maps and unmaps every block of memory above 128 kB, and Dask makes it give memory back at once: a task then
# spends more time on page faults than on its counts. Let a worker keep what it will ask for again.
_KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": 2,
    "MALLOC_MMAP_THRESHOLD_": 1 << 30,
    "MALLOC_TRIM_THRESHOLD_": 128 << 20,
}


class ClusterSize(NamedTuple):
    """Number of workers, and threads and bytes of each."""

    workers: int
    threads_per_worker: int
    memory_limit: int


@dataclass(frozen=True)
class ClusterSettings:
    """Which cluster to compute on.

    Attributes
    ----------
    scheduler
        Address of a running scheduler, such as ``tcp://10.0.0.1:8786``.
    scheduler_file
        File that ``dask scheduler --scheduler-file`` writes. Without either, a local cluster is started.
    workers
        Processes of the local cluster; by default as many as make workers × threads the number of cores.
    threads_per_worker
        Tasks that a worker of the local cluster runs at a time.
    memory_limit
        Bytes a worker of the local cluster may use; by default 80 % of the machine's memory over the workers.
    local_directory
        Folder for what the local workers spill; by default Dask's.
    tls_ca, tls_cert, tls_key
        PEM files; with them every connection is encrypted and both sides must show a certificate of that authority.
    dashboard
        Serve Dask's dashboard of the local cluster, on the loopback interface.
    answer_seconds
        How long to wait for the scheduler and for its first worker.

    Raises
    ------
    ValueError
        If a running scheduler is named twice, by no address, or with options that only shape a local cluster.
    ValueError
        If workers, threads or bytes are too few; if there are TLS files but no ``tls://``, or not all that are needed.
    FileNotFoundError
        If a TLS file does not exist.
    """

    scheduler: str | None = None
    scheduler_file: str | None = None
    workers: int | None = None
    threads_per_worker: int = 1
    memory_limit: int | None = None
    local_directory: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    dashboard: bool = False
    answer_seconds: float = _ANSWER_SECONDS

    def __post_init__(self) -> None:
        check_count(self.threads_per_worker, "threads_per_worker", minimum=1)
        if self.workers is not None:
            check_count(self.workers, "workers", minimum=1)
        if self.memory_limit is not None and self.memory_limit < _SMALLEST_MEMORY_LIMIT:
            msg = f"--memory-limit is {self.memory_limit:,} bytes a worker, less than Python takes; give 500MB or more"
            raise ValueError(msg)
        if self.scheduler is not None and self.scheduler_file is not None:
            msg = "give either the scheduler's address or its scheduler file, not both"
            raise ValueError(msg)
        if self.scheduler is not None and not _ADDRESS.fullmatch(self.scheduler):
            msg = f"{self.scheduler!r} is no scheduler address: write protocol, host and port, such as tcp://10.0.0.1:8786"
            raise ValueError(msg)
        if not self.is_local:
            self._refuse_local_options()
        self._check_tls()

    @property
    def is_local(self) -> bool:
        """Whether a local cluster is started."""
        return self.scheduler is None and self.scheduler_file is None

    def local_size(self) -> ClusterSize:
        """Size of the local cluster; what is not set is chosen to use this machine.

        Returns
        -------
        ClusterSize
        """
        workers = self.workers or max(1, cpu_count() // self.threads_per_worker)
        limit = self.memory_limit or int(_SHARE_OF_MEMORY * machine_memory() / workers)
        return ClusterSize(workers, self.threads_per_worker, limit)

    def _refuse_local_options(self) -> None:
        """Refuse what would size workers that are sized already."""
        given = {
            "workers": self.workers is not None,
            "threads_per_worker": self.threads_per_worker != 1,
            "memory_limit": self.memory_limit is not None,
            "local_directory": self.local_directory is not None,
            "dashboard": self.dashboard,
        }
        names = ", ".join(name for name, is_given in given.items() if is_given)
        if names:
            msg = (
                f"{names}: only for a local cluster; a running scheduler's workers are set where they are started "
                "(dask worker --nworkers, --nthreads, --memory-limit, --local-directory)"
            )
            raise ValueError(msg)

    def _check_tls(self) -> None:
        """Refuse half an encryption."""
        files = {"tls_ca": self.tls_ca, "tls_cert": self.tls_cert, "tls_key": self.tls_key}
        if not any(files.values()):
            return
        if self.tls_ca is None or self.tls_cert is None:
            msg = "TLS needs an authority and a certificate: give --tls-ca and --tls-cert (and --tls-key, if apart)"
            raise ValueError(msg)
        for name, path in files.items():
            if path is not None and not Path(path).is_file():
                msg = f"{name}: there is no file {path}"
                raise FileNotFoundError(msg)
        if self.scheduler is not None and not self.scheduler.startswith("tls://"):
            msg = f"with TLS files the scheduler's address must start with tls://, not {self.scheduler!r}"
            raise ValueError(msg)


def connect(settings: ClusterSettings) -> AbstractContextManager[Client]:
    """Connect to the cluster that the settings name, or start a local one.

    Parameters
    ----------
    settings
        Which cluster.

    Returns
    -------
    context manager
        Gives the client. On leaving, after errors and Ctrl-C, too, the client is closed and so is a local cluster; a
        running scheduler stays.

    Raises
    ------
    FileNotFoundError
        If the scheduler file does not appear in time.
    ValueError
        If the scheduler file is not one.
    ConnectionError
        If no scheduler answers in time, something else answers, or it has no workers that can import this package.
    """
    return _local_client(settings) if settings.is_local else _client_of_running_scheduler(settings)


def worker_peaks(client: Client) -> dict[str, int]:
    """Ask every worker for the most memory it has held since it started.

    Parameters
    ----------
    client
        A connected client.

    Returns
    -------
    dict
        Bytes by worker address; a worker that has just died is left out.
    """
    return dict(client.run(peak_bytes, on_error="ignore"))


def worker_reads(client: Client) -> dict[str, int]:
    """Ask every worker how many bytes it has read from files since it started.

    Parameters
    ----------
    client
        A connected client.

    Returns
    -------
    dict
        Bytes by worker address; a worker that has just died is left out.
    """
    return dict(client.run(bytes_read, on_error="ignore"))


def memory_limits(client: Client) -> dict[str, int]:
    """Ask every worker for its memory limit.

    Parameters
    ----------
    client
        A connected client.

    Returns
    -------
    dict
        Bytes by worker address; for a worker without a limit the memory of its machine.
    """
    return dict(client.run(_memory_limit))


def cluster_size(client: Client) -> ClusterSize:
    """Tell the size of the cluster behind a client.

    Parameters
    ----------
    client
        A connected client.

    Returns
    -------
    ClusterSize
        With the most threads and the least memory that a worker has.
    """
    limits = memory_limits(client)
    return ClusterSize(len(limits), max(client.nthreads().values()), min(limits.values()))


@contextmanager
def _local_client(settings: ClusterSettings) -> Iterator[Client]:
    """Start a local cluster, and end it with the block."""
    if settings.dashboard and find_spec("bokeh") is None:
        msg = "the dashboard needs the package bokeh: pip install bokeh"
        raise ValueError(msg)
    security = _security(settings)
    with (
        _quiet_logs(),
        _local_cluster(settings, security) as cluster,
        Client(cluster, security=security) as client,
    ):
        client.register_plugin(OneThreadInLibraries())
        yield client


def _local_cluster(settings: ClusterSettings, security: Security | None) -> LocalCluster:
    """Start worker processes on this machine that nobody else can reach."""
    size = settings.local_size()
    # Read when a worker process is spawned, before it loads any library.
    environment = {
        f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in (_ONE_THREAD | _KEEP_MEMORY).items()
    }
    with dask.config.set(environment), _children_ignore_ctrl_c():
        return LocalCluster(
            n_workers=size.workers,
            threads_per_worker=size.threads_per_worker,
            processes=True,
            memory_limit=size.memory_limit,
            local_directory=settings.local_directory,
            host=LOOPBACK,
            dashboard_address=f"{LOOPBACK}:0",
            scheduler_kwargs={"dashboard": settings.dashboard},
            security=security,
            silence_logs=logging.CRITICAL,
        )


@contextmanager
def _children_ignore_ctrl_c() -> Iterator[None]:
    """Let processes that start meanwhile ignore Ctrl-C: a terminal sends it to all, and this one answers for them."""
    if threading.current_thread() is not threading.main_thread():  # others may not touch signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one setting that a new program inherits
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _client_of_running_scheduler(settings: ClusterSettings) -> Iterator[Client]:
    """Connect to a scheduler that others started, and leave it running."""
    address = settings.scheduler or _address_in_file(Path(str(settings.scheduler_file)), settings.answer_seconds)
    if settings.tls_ca is not None and not address.startswith("tls://"):
        msg = f"with TLS files the scheduler must be at tls://, but {settings.scheduler_file} names {address}"
        raise ValueError(msg)
    with _quiet_logs(), _answering_client(address, settings) as client:
        _prepare_workers(client, address, settings.answer_seconds)
        yield client


def _answering_client(address: str, settings: ClusterSettings) -> Client:
    """Connect, or say in one line what is wrong."""
    security = _security(settings) or _configured_security(address)
    try:
        # Dask's client has no deadline for the first greeting, and leaves its thread behind where that fails
        LoopRunner().run_sync(_greet_scheduler, address, security, settings.answer_seconds)
    except Exception as error:  # bytes that are no greeting end in anything, even in a MemoryError
        if isinstance(error, OSError) and not isinstance(error, CommClosedError):
            raise _no_answer(address, settings.answer_seconds) from error
        msg = (
            f"no Dask scheduler answers at {address}: something else does, or it wants other encryption "
            f"({_reason(error)}); check the address, its port (8786 by default; the dashboard has another) "
            "and whether it starts with tcp:// or tls://"
        )
        raise ConnectionError(msg) from error
    try:
        return Client(address, timeout=settings.answer_seconds, security=security, set_as_default=True)
    except (OSError, ValueError, TypeError) as error:
        raise _no_answer(address, settings.answer_seconds) from error


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
    return ConnectionError(
        f"the Dask scheduler at {address} did not answer within {seconds:g} seconds; "
        "check the address and that `dask scheduler` runs there"
    )


def _reason(error: Exception) -> str:
    """Tell why a greeting failed, unless that only tells how Dask misread it."""
    if isinstance(error, CommClosedError | TypeError):
        return str(error.__cause__ or error)
    return "its answer is not in Dask's protocol"


def _prepare_workers(client: Client, address: str, seconds: float) -> None:
    """Wait for a worker, for without one tasks would wait for ever; send the plugin, which needs this package there."""
    try:
        client.wait_for_workers(1, timeout=seconds)
        client.register_plugin(OneThreadInLibraries())
    except TimeoutError as error:
        msg = (
            f"the Dask scheduler at {address} has no workers after {seconds:g} seconds; "
            f"start some with `dask worker {address}`"
        )
        raise ConnectionError(msg) from error
    except Exception as error:  # whatever a worker raised while it read the plugin
        msg = (
            f"the workers of the Dask scheduler at {address} cannot load normalisr_dask "
            f"({type(error).__name__}: {error}); start them in the environment that runs this command"
        )
        raise ConnectionError(msg) from error


def _address_in_file(path: Path, seconds: float) -> str:
    """Read a scheduler file; a scheduler that is just starting gets some time to write it."""
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


def _configured_security(address: str) -> Security:
    """Take what Dask's own configuration says, as its client does."""
    loader = dask.config.get("distributed.client.security-loader", None)
    return (import_term(loader)({"address": address}) if loader else None) or Security()


def _security(settings: ClusterSettings) -> Security | None:
    """Use one certificate for every role; without files Dask's own configuration stays in force."""
    if settings.tls_ca is None:
        return None
    roles = ("client", "scheduler", "worker")
    certificates = {f"tls_{role}_cert": settings.tls_cert for role in roles}
    keys = {f"tls_{role}_key": settings.tls_key for role in roles if settings.tls_key is not None}
    return Security(tls_ca_file=settings.tls_ca, require_encryption=True, **certificates, **keys)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Dask's log lines off the terminal; failures come back as exceptions."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        gc.collect()  # asyncio complains of abandoned tasks when they are collected
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _memory_limit(dask_worker: Worker) -> int:
    """Tell, inside a worker, what Dask holds it to."""
    return dask_worker.identity()["memory_limit"] or machine_memory()
