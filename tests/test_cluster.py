"""Local clusters, and the settings of all."""

import os
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from dask.system import cpu_count
from distributed import Scheduler, Worker, wait
from distributed.system import memory_limit as machine_memory
from threadpoolctl import threadpool_info
from tls_files import tls_files

from normalisr_dask.cluster import (
    ClusterSettings,
    cluster_size,
    connect,
    memory_limits,
    worker_peaks,
)
from normalisr_dask.process_memory import parse_memory, peak_bytes

LIMIT = 600_000_000
LOOPBACK_ADDRESSES = {"127.0.0.1", "::1"}


def add_one(value: int) -> int:
    return value + 1


def hold(n_bytes: int) -> int:
    """Touch this much memory, and let it go."""
    return int(np.ones(n_bytes, np.uint8)[-1])


def listening_sockets() -> set[tuple[str, int]]:
    """Return address and port of all that this process and those that it has started listen on."""
    this = psutil.Process()
    return {
        tuple(connection.laddr)
        for process in [this, *this.children(recursive=True)]
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info()]


def arguments_kept(dask_worker: Worker) -> dict[str, bool]:
    """Return, of the results that a worker holds, whether it keeps what their tasks were given."""
    tasks = dask_worker.state.tasks.values()
    return {str(task.key): task.run_spec is not None for task in tasks if task.state == "memory"}


def allowed_failures(dask_scheduler: Scheduler) -> int:
    return dask_scheduler.allowed_failures


@pytest.fixture(scope="module")
def client():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "3")
        with connect(ClusterSettings(workers=2, memory_limit=LIMIT)) as client:
            yield client


class TestLocalCluster:
    def test_it_computes(self, client):
        assert client.gather(client.map(add_one, range(5))) == [1, 2, 3, 4, 5]

    def test_it_has_the_size_that_was_asked_for(self, client):
        assert sorted(client.nthreads().values()) == [1, 1]
        assert list(memory_limits(client).values()) == [LIMIT, LIMIT]
        assert cluster_size(client) == (2, 1, LIMIT)

    def test_a_task_may_lose_more_workers_than_dask_allows(self, client):
        assert client.run_on_scheduler(allowed_failures) == 10

    def test_libraries_have_one_thread_even_where_the_environment_asks_for_more(self, client):
        for threads in client.run(blas_threads).values():
            assert threads
            assert set(threads) == {1}

    def test_workers_let_go_of_what_tasks_were_given_and_can_make_their_results_again(self, client):
        values = client.map(add_one, range(4), pure=False)
        wait(values)
        kept = {key: found for of_worker in client.run(arguments_kept).values() for key, found in of_worker.items()}
        assert kept == {value.key: False for value in values}
        client.restart_workers([next(iter(client.who_has(values[:1]).values()))[0]])
        assert client.gather(values) == [1, 2, 3, 4]

    def test_it_listens_on_the_loopback_interface_only(self, client):
        sockets = listening_sockets()
        assert len(sockets) >= 3  # a scheduler and two workers
        assert {ip for ip, _ in sockets} <= LOOPBACK_ADDRESSES

    def test_peaks_remember_memory_that_was_let_go(self, client):
        before = worker_peaks(client)
        first, *others = before
        client.submit(hold, 200_000_000, workers=[first], pure=False).result()
        after = worker_peaks(client)
        assert after.keys() == before.keys()
        assert 150_000_000 < after[first] - before[first] < 300_000_000
        assert all(after[other] - before[other] < 100_000_000 for other in others)


def test_the_dashboard_is_for_this_machine_only():
    with connect(ClusterSettings(workers=1, dashboard=True)) as client:
        link = urlsplit(client.dashboard_link)
        with urllib.request.urlopen(client.dashboard_link) as answer:
            assert b"Dask" in answer.read()
        assert (link.hostname, link.port) in listening_sockets()
        assert {ip for ip, _ in listening_sockets()} <= LOOPBACK_ADDRESSES


def test_the_local_cluster_ends_with_its_block_and_after_an_error():
    workers: list[int] = []

    def fail_inside() -> None:
        with connect(ClusterSettings(workers=1)) as client:
            workers.extend(client.run(os.getpid).values())
            assert psutil.pid_exists(workers[0])
            client.submit(int, "no number").result()

    with pytest.raises(ValueError, match="invalid literal"):
        fail_inside()
    assert len(workers) == 1
    assert not psutil.pid_exists(workers[0])


def test_sizes_fill_the_machine_by_default():
    size = ClusterSettings().local_size()
    assert size.workers * size.threads_per_worker == cpu_count()
    assert 0 < size.workers * size.memory_limit <= 0.8 * psutil.virtual_memory().total
    assert ClusterSettings(threads_per_worker=10_000).local_size().workers == 1
    assert ClusterSettings(workers=3, threads_per_worker=2, memory_limit=LIMIT).local_size() == (3, 2, LIMIT)


SMALL_MACHINE = """
import resource

resource.setrlimit(resource.RLIMIT_RSS, (10**9, 10**9))  # Dask takes it for the machine's memory
from normalisr_dask.cluster import ClusterSettings

print(*ClusterSettings().local_size())
"""


def test_workers_that_may_take_more_than_the_machine_has_are_warned_of():
    with pytest.warns(
        UserWarning, match=r"^2 workers with a limit of .* may take more than the .* of this machine, wh"
    ):
        ClusterSettings(workers=2, memory_limit=machine_memory()).local_size()


def test_a_small_machine_has_no_more_workers_than_have_enough_memory():
    done = subprocess.run([sys.executable, "-c", SMALL_MACHINE], capture_output=True, text=True, check=True)
    assert done.stdout == "1 1 800000000\n"


def test_it_is_encrypted_when_asked(tmp_path):
    settings = ClusterSettings(workers=1, **tls_files(tmp_path).settings())
    with connect(settings) as client:
        assert client.scheduler.address.startswith("tls://")
        assert all(worker.startswith("tls://") for worker in client.nthreads())
        assert client.submit(add_one, 1).result() == 2


def test_half_an_encryption_is_refused(tmp_path):
    files = tls_files(tmp_path)
    with pytest.raises(ValueError, match="give --tls-ca and --tls-cert"):
        ClusterSettings(tls_ca=files.authority)
    with pytest.raises(FileNotFoundError, match=r"--tls-cert: there is no file nowhere\.pem"):
        ClusterSettings(tls_ca=files.authority, tls_cert="nowhere.pem")
    with pytest.raises(ValueError, match=r"address must start with tls://, not 'tcp://127.0.0.1:1'"):
        ClusterSettings(scheduler="tcp://127.0.0.1:1", **files.settings())


def test_tls_files_that_dask_could_not_use_are_refused(tmp_path):
    (tmp_path / "others").mkdir()
    files, others = tls_files(tmp_path), tls_files(tmp_path / "others")
    refused = "cannot be read as a certificate and its private key; expected PEM, the key without a passphrase"
    with pytest.raises(ValueError, match=rf"--tls-cert: .*certificate\.pem {refused}"):
        ClusterSettings(tls_ca=files.authority, tls_cert=files.certificate)
    with pytest.raises(ValueError, match=rf"--tls-key: .*certificate\.pem and .*others/key\.pem {refused}"):
        ClusterSettings(tls_ca=files.authority, tls_cert=files.certificate, tls_key=others.key)
    with pytest.raises(ValueError, match=r"--tls-ca: .*/key\.pem cannot be read as the certificate of an authority"):
        ClusterSettings(tls_ca=files.key, tls_cert=files.certificate, tls_key=files.key)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="either the scheduler's address or its scheduler file, not both"):
        ClusterSettings(scheduler="tcp://127.0.0.1:1", scheduler_file="scheduler.json")
    with pytest.raises(ValueError, match="workers, memory_limit: only for a local cluster"):
        ClusterSettings(scheduler="tcp://127.0.0.1:1", workers=3, memory_limit=LIMIT)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://127.0.0.1"])
def test_an_address_has_protocol_host_and_port(address):
    with pytest.raises(ValueError, match=f"'{address}' is no scheduler address: write protocol, host and port"):
        ClusterSettings(scheduler=address)


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        ClusterSettings(workers=0)
    with pytest.raises(ValueError, match="threads_per_worker must be at least 1, not -1"):
        ClusterSettings(threads_per_worker=-1)
    with pytest.raises(
        ValueError, match="memory-limit is 499,999,999 bytes a worker, too few to work with; give 500MB"
    ):
        ClusterSettings(memory_limit=499_999_999)


def test_memory_is_read_with_its_unit():
    assert parse_memory("1.5GB") == 1_500_000_000
    assert parse_memory("800 MiB") == 800 * 2**20
    assert parse_memory("123") == 123
    for text in ("", "much", "1.5 bananas", "-1GB", "0"):
        with pytest.raises(ValueError, match=f"'{text}' is no amount of memory: write a number and a unit"):
            parse_memory(text)


def test_this_process_has_a_peak():
    process = psutil.Process()
    assert 0.5 * process.memory_info().rss <= peak_bytes() < psutil.virtual_memory().total
