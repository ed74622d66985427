"""From a scheduler's address, a scheduler file or nothing at all to a Dask client.

With nothing given, a local cluster of processes is started, with as many workers as fill the cores; it listens on the
loopback interface only and is gone when the ``with`` block ends. In every case the workers' BLAS and OpenMP libraries
are held to one thread, since chunks are the only parallelism.
"""

import gc
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeVar

import dask
import scipy.linalg  # noqa: F401 - loads SciPy's BLAS, for a limit only reaches libraries that are loaded
from dask.system import cpu_count
from dask.utils import format_bytes
from distributed import Client, LocalCluster, Security, Worker
from distributed.system import memory_limit as machine_memory

from normalisr_dask.cluster_connection import address_in_file, client_of_scheduler
from normalisr_dask.cluster_encryption import check_tls_files, security_of_files
from normalisr_dask.ctrl_c import CtrlCPutOff, children_without_ctrl_c
from normalisr_dask.graph.memory import TaskTooLargeError
from normalisr_dask.process_memory import peak_bytes, take_use
from normalisr_dask.validation import check_count, check_writable
from normalisr_dask.wording import counted
from normalisr_dask.worker_plugin import EnoughMemory, WorkerSettings

LOOPBACK = "127.0.0.1"
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://[^/]+:\d+")
# Dask gives each of these a level of its own.
_NOISY_LOGGERS = ("distributed", "distributed.client", "asyncio", "tornado", "tornado.application")
_SHARE_OF_MEMORY = 0.8
# Python with its libraries and a block of counts take up to 370 MB; above 80 % of its limit a worker begins nothing.
_SMALLEST_MEMORY_LIMIT = 500_000_000
# A worker that is killed while it starts takes the start of all with it.
_ATTEMPTS = 3
_ONE_THREAD = {
    "OMP_NUM_THREADS": 1,
    "MKL_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "BLIS_NUM_THREADS": 1,
    "VECLIB_MAXIMUM_THREADS": 1,
    "NUMEXPR_NUM_THREADS": 1,
    "NUMBA_NUM_THREADS": 1,
}
_CONFIGURATION = {
    # A worker that died is started anew; Dask gives it up where that takes 15 seconds, as on a busy machine or if it
    # dies again meanwhile, and without any workers a run would wait for ever.
    "distributed.deploy.lost-worker-timeout": "365 days",
    # Workers that a task may lose before it is blamed; Dask's 3 are soon reached where somebody else kills them.
    "distributed.scheduler.allowed-failures": 10,
    # Vectors of length cells lie in the graphs, 8 MB for a million cells; Dask warns of 10 MB.
    "distributed.admin.large-graph-warning-threshold": "1 GB",
    # The scheduler keeps its last messages to every worker, and with these the slices of cells in tasks it has sent.
    "distributed.admin.low-level-log-length": 10,
}
# glibc maps and unmaps every block of memory above 128 kB, and Dask makes it give memory back at once: a task then
# spends more time on page faults than on its counts. Let a worker keep what it will ask for again.
_KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": 2,
    "MALLOC_MMAP_THRESHOLD_": 1 << 30,
    "MALLOC_TRIM_THRESHOLD_": 128 << 20,
}
Answer = TypeVar("Answer")


class LocalOptionsError(ValueError):
    """What only shapes a local cluster was given for a running one; ``names`` has the fields, or options."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"{', '.join(names)}: only for a local cluster; a running scheduler's workers are set where they are "
            "started (dask worker --nworkers, --nthreads, --memory-limit, --local-directory)"
        )
        self.names = names


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
        Processes of the local cluster; by default as many as make workers × threads the number of cores, or fewer, such
        that each gets 500 MB.
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
        How long to wait for a running scheduler.
    worker_seconds
        How long to wait for the first worker of a running scheduler.

    Raises
    ------
    ValueError
        If a running scheduler is named twice, by no address, or with options that only shape a local cluster.
    ValueError
        If workers, threads or bytes are too few; if there are TLS files but no ``tls://``, or not all that are needed.
    ValueError
        If TLS files do not hold what they should.
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
    answer_seconds: float = 10.0
    worker_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_count(self.threads_per_worker, "threads_per_worker", minimum=1)
        if self.workers is not None:
            check_count(self.workers, "workers", minimum=1)
        if self.memory_limit is not None and self.memory_limit < _SMALLEST_MEMORY_LIMIT:
            msg = f"--memory-limit is {self.memory_limit:,} bytes a worker, too few to work with; give 500MB or more"
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

        Warns
        -----
        UserWarning
            If the workers may take more memory than the machine has.
        """
        memory = int(_SHARE_OF_MEMORY * machine_memory())
        most_workers = min(cpu_count() // self.threads_per_worker, memory // _SMALLEST_MEMORY_LIMIT)
        workers = self.workers or max(1, most_workers)
        limit = self.memory_limit or memory // workers
        if workers * limit > machine_memory():
            msg = (
                f"{counted(workers, 'worker', 'workers')} with a limit of {format_bytes(limit)} may take more than the "
                f"{format_bytes(machine_memory())} of this machine, which then ends them; "
                f"give --memory-limit {memory / workers / 1e9:.1f}GB, or fewer --workers"
            )
            warnings.warn(msg, UserWarning, stacklevel=2)
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
        names = [name for name, is_given in given.items() if is_given]
        if names:
            raise LocalOptionsError(names)

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
                msg = f"--{name.replace('_', '-')}: there is no file {path}"
                raise FileNotFoundError(msg)
        check_tls_files(self.tls_ca, self.tls_cert, self.tls_key)
        if self.scheduler is not None and not self.scheduler.startswith("tls://"):
            msg = f"with TLS files the scheduler's address must start with tls://, not {self.scheduler!r}"
            raise ValueError(msg)


@contextmanager
def connect(settings: ClusterSettings) -> Iterator[Client]:
    """Connect to the cluster that the settings name, or start a local one.

    Parameters
    ----------
    settings
        Which cluster.

    Yields
    ------
    Client
        On leaving, after errors and Ctrl-C, too, it is closed and so is a local cluster; a running scheduler stays.

    Raises
    ------
    FileNotFoundError
        If the scheduler file does not appear in time.
    ValueError
        If the scheduler file is not one.
    ValueError
        If local workers cannot write to their folder.
    ConnectionError
        If no scheduler answers in time, or something else answers.
    ConnectionError
        If it has no workers in time, or scheduler and workers have not this process's software.
    ConnectionError
        If it goes away while the client is in use.
    """
    of_kind = _local_client if settings.is_local else _client_of_running_scheduler
    with dask.config.set(_CONFIGURATION), of_kind(settings) as client:
        yield client


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


def worker_use(client: Client) -> dict[str, tuple[int, int]]:
    """Ask every worker for the most memory it has held since it was asked last, and how much it has read from files.

    Parameters
    ----------
    client
        A connected client.

    Returns
    -------
    dict
        Bytes held, and bytes read since it started, by worker address; a worker that has just died is left out.
    """
    return dict(client.run(take_use, on_error="ignore"))


def memory_limits(client: Client) -> dict[str, int]:
    """Ask every worker for its memory limit.

    Parameters
    ----------
    client
        A connected client.

    Returns
    -------
    dict
        Bytes by worker address; for a worker without a limit the memory of its machine. A worker that has just died is
        left out; if all have, one is waited for.
    """
    return _answers(client, _memory_limit)


def keep_out_small_workers(client: Client, task_bytes: int) -> None:
    """Have workers turned away, with a warning, that join from now on and have too little memory for a task.

    Parameters
    ----------
    client
        A connected client.
    task_bytes
        Of the largest task that was planned for the workers that are there.
    """
    client.register_plugin(EnoughMemory(task_bytes))


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
    limits, threads = memory_limits(client), _answers(client, _threads)
    return ClusterSize(len(limits), max(threads.values()), min(limits.values()))


@contextmanager
def _local_client(settings: ClusterSettings) -> Iterator[Client]:
    """Start a local cluster, and end it with the block."""
    if settings.local_directory is not None:
        check_writable(settings.local_directory, "--local-directory")
    if settings.dashboard and find_spec("bokeh") is None:
        msg = "the dashboard needs the package bokeh: pip install 'normalisr-dask[dashboard]'"
        raise ValueError(msg)
    security = _security(settings)
    with (
        CtrlCPutOff() as ctrl_c,
        _quiet_logs(),
        _started(partial(_local_cluster, settings, security)) as cluster,
        Client(cluster, security=security) as client,
    ):
        _started(partial(client.register_plugin, WorkerSettings()))
        with ctrl_c.let_through():
            yield client


def _started(start: Callable[[], Answer]) -> Answer:
    """Do what fails if a worker is killed meanwhile, and again if it does."""
    failures: list[Exception] = []
    while len(failures) < _ATTEMPTS:
        try:
            return start()
        except (OSError, RuntimeError) as error:
            failures.append(error)
    msg = f"the local workers could not be started ({failures[-1]}); run the same command again"
    raise RuntimeError(msg) from failures[-1]


def _local_cluster(settings: ClusterSettings, security: Security | None) -> LocalCluster:
    """Start worker processes on this machine that nobody else can reach."""
    size = settings.local_size()
    # Read when a worker process is spawned, before it loads any library.
    environment = {
        f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in (_ONE_THREAD | _KEEP_MEMORY).items()
    }
    with dask.config.set(environment), children_without_ctrl_c():
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
def _client_of_running_scheduler(settings: ClusterSettings) -> Iterator[Client]:
    """Connect to a scheduler that others started, and leave it running."""
    address = settings.scheduler or address_in_file(Path(str(settings.scheduler_file)), settings.answer_seconds)
    if settings.tls_ca is not None and not address.startswith("tls://"):
        msg = f"with TLS files the scheduler must be at tls://, but {settings.scheduler_file} names {address}"
        raise ValueError(msg)
    seconds = (settings.answer_seconds, settings.worker_seconds)
    with _quiet_logs(), client_of_scheduler(address, _security(settings), *seconds) as client:
        try:
            yield client
        except TaskTooLargeError as error:
            raise ValueError(error.of_started_workers) from error


def _security(settings: ClusterSettings) -> Security | None:
    """Use the files, if there are any; without them Dask's own configuration stays in force."""
    if settings.tls_ca is None or settings.tls_cert is None:
        return None
    return security_of_files(settings.tls_ca, settings.tls_cert, settings.tls_key)


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


def _answers(client: Client, question: Callable[..., Answer]) -> dict[str, Answer]:
    """Ask all workers that live; if all have just died, wait for one."""
    answers: dict[str, Answer] = {}
    while not answers:
        client.wait_for_workers(1)
        answers = dict(client.run(question, on_error="ignore"))
    return answers


def _threads(dask_worker: Worker) -> int:
    """Tell, inside a worker, how many tasks it runs at a time."""
    return dask_worker.state.nthreads


def _memory_limit(dask_worker: Worker) -> int:
    """Tell, inside a worker, what Dask holds it to."""
    return dask_worker.identity()["memory_limit"] or machine_memory()
