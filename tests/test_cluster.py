"""Real clusters: a local one, and schedulers of their own process that are found by address and by file."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, BaseServer, ThreadingTCPServer

import numpy as np
import psutil
import pytest
from dask.system import cpu_count
from threadpoolctl import threadpool_info

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


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info()]


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen]:
    """Run a process beside the test, and end it."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def dask_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dask", *arguments]


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

    def test_libraries_have_one_thread_even_where_the_environment_asks_for_more(self, client):
        for threads in client.run(blas_threads).values():
            assert threads
            assert set(threads) == {1}

    def test_it_listens_on_the_loopback_interface_only(self, client):
        this = psutil.Process()
        sockets = [
            connection.laddr.ip
            for process in [this, *this.children(recursive=True)]
            for connection in process.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(sockets) >= 3  # a scheduler and two workers
        assert set(sockets) <= LOOPBACK_ADDRESSES

    def test_peaks_remember_memory_that_was_let_go(self, client):
        before = worker_peaks(client)
        first, *others = before
        client.submit(hold, 200_000_000, workers=[first], pure=False).result()
        after = worker_peaks(client)
        assert after.keys() == before.keys()
        assert 150_000_000 < after[first] - before[first] < 300_000_000
        assert all(after[other] - before[other] < 100_000_000 for other in others)


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


INTERRUPTED_PROGRAM = """
import sys, time
from normalisr_dask.cluster import ClusterSettings, connect

if __name__ == "__main__":
    try:
        with connect(ClusterSettings(workers=1)) as client:
            tasks = client.map(time.sleep, [60, 61])
            print(*client.run(__import__("os").getpid).values(), flush=True)
            client.gather(tasks)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_cluster_and_says_nothing(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED_PROGRAM)
    process = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to every process of the group, too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
    assert not psutil.pid_exists(worker)


def test_sizes_fill_the_machine_by_default():
    size = ClusterSettings().local_size()
    assert size.workers * size.threads_per_worker == cpu_count()
    assert 0 < size.workers * size.memory_limit <= 0.8 * psutil.virtual_memory().total
    assert ClusterSettings(threads_per_worker=10_000).local_size().workers == 1
    assert ClusterSettings(workers=3, threads_per_worker=2, memory_limit=LIMIT).local_size() == (3, 2, LIMIT)


def scheduler_command(scheduler_file: Path) -> list[str]:
    places = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--no-dashboard"]
    return dask_command("scheduler", *places, "--scheduler-file", str(scheduler_file))


class SilentHandler(SimpleHTTPRequestHandler):
    """Python's web server, without its log."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Let a server answer in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def assert_refused(address: str, message: str, seconds: float = 0.5) -> None:
    """Hold a failing connection to its message, to its time and to leaving no thread."""
    loops = {thread for thread in threading.enumerate() if thread.name == "IO loop"}
    start = time.monotonic()
    with (
        pytest.raises(ConnectionError, match=message),
        connect(ClusterSettings(scheduler=address, answer_seconds=seconds)),
    ):
        pass
    assert time.monotonic() - start < seconds + 2
    assert {thread for thread in threading.enumerate() if thread.name == "IO loop"} == loops


class TestRunningScheduler:
    @pytest.mark.slow
    def test_it_is_found_by_its_file_and_by_its_address_and_stays(self, tmp_path):
        path = tmp_path / "scheduler.json"
        size = ["--nthreads", "1", "--memory-limit", "0"]
        places = ["--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(tmp_path)]
        worker = dask_command("worker", "--scheduler-file", str(path), *size, *places)
        with running(*scheduler_command(path)), running(*worker, OPENBLAS_NUM_THREADS="3"):
            with connect(ClusterSettings(scheduler_file=str(path), answer_seconds=60)) as client:
                assert client.submit(add_one, 1).result() == 2
                assert {number for numbers in client.run(blas_threads).values() for number in numbers} == {1}
                # a worker without a limit of its own may use its machine's memory
                assert list(memory_limits(client).values()) == [pytest.approx(psutil.virtual_memory().total, rel=0.01)]
            address = json.loads(path.read_text())["address"]
            with connect(ClusterSettings(scheduler=address)) as client:
                assert client.submit(add_one, 2).result() == 3

    def test_a_file_that_is_not_there_is_said_after_the_time(self, tmp_path):
        with (
            pytest.raises(FileNotFoundError, match=r"no scheduler file .*nowhere.json after 0\.2 seconds; start"),
            connect(ClusterSettings(scheduler_file=str(tmp_path / "nowhere.json"), answer_seconds=0.2)),
        ):
            pass

    @pytest.mark.parametrize("content", ["hello", "[]", '{"id": 1}'])
    def test_a_file_of_another_kind_is_refused(self, tmp_path, content):
        path = tmp_path / "other.json"
        path.write_text(content)
        with (
            pytest.raises(ValueError, match=r"other\.json is no scheduler file: expected"),
            connect(ClusterSettings(scheduler_file=str(path), answer_seconds=0.2)),
        ):
            pass

    def test_a_scheduler_that_does_not_answer_is_one_line(self):
        message = "the Dask scheduler at tcp://127.0.0.1:1 did not answer within 0.5 seconds; check"
        with (
            pytest.raises(ConnectionError, match=message),
            connect(ClusterSettings(scheduler="tcp://127.0.0.1:1", answer_seconds=0.5)),
        ):
            pass

    def test_a_port_that_accepts_and_says_nothing_is_one_line_in_time(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
            assert_refused(address, f"the Dask scheduler at {address} did not answer within 0.5 seconds; check")

    def test_a_web_server_is_one_line_in_time(self):
        """It waits for the end of a line or complains of the one it got, as Dask's greeting happens to have one."""
        with ThreadingHTTPServer(("127.0.0.1", 0), SilentHandler) as server, serving(server):
            address = f"tcp://127.0.0.1:{server.server_port}"
            assert_refused(
                address, f"no Dask scheduler answers at {address}|{address} did not answer within 0.5 seconds"
            )

    @pytest.mark.parametrize(
        "greeting",
        [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(64), b""],
        ids=["ssh", "http", "zeros", "nothing"],
    )
    def test_what_speaks_another_protocol_is_no_scheduler(self, greeting):
        class Greeter(BaseRequestHandler):
            def handle(self) -> None:
                self.request.sendall(greeting)

        with ThreadingTCPServer(("127.0.0.1", 0), Greeter) as server, serving(server):
            address = f"tcp://127.0.0.1:{server.server_address[1]}"
            assert_refused(address, f"no Dask scheduler answers at {address}: something else does")

    def test_a_worker_is_no_scheduler(self, client):
        address = next(iter(client.nthreads()))
        assert_refused(address, rf"no Dask scheduler answers at {address}: .* \(it is a Dask Worker\)", seconds=5)

    @pytest.mark.slow
    def test_a_scheduler_without_workers_is_one_line(self, tmp_path):
        path = tmp_path / "scheduler.json"
        with (
            running(*scheduler_command(path)),
            pytest.raises(
                ConnectionError, match=r"has no workers after 5 seconds; start some with `dask worker tcp://"
            ),
            connect(ClusterSettings(scheduler_file=str(path), answer_seconds=5)),
        ):
            pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([openssl, *request, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


class TestEncryption:
    def test_a_local_cluster_is_encrypted_when_asked(self, certificate):
        authority, key = map(str, certificate)
        settings = ClusterSettings(workers=1, tls_ca=authority, tls_cert=authority, tls_key=key)
        with connect(settings) as client:
            assert client.scheduler.address.startswith("tls://")
            assert all(worker.startswith("tls://") for worker in client.nthreads())
            assert client.submit(add_one, 1).result() == 2

    def test_an_address_without_encryption_is_refused(self, certificate):
        authority, key = map(str, certificate)
        with pytest.raises(ValueError, match=r"address must start with tls://, not 'tcp://127.0.0.1:1'"):
            ClusterSettings(scheduler="tcp://127.0.0.1:1", tls_ca=authority, tls_cert=authority, tls_key=key)

    def test_a_file_that_names_an_address_without_encryption_is_refused(self, certificate, tmp_path):
        authority, key = map(str, certificate)
        path = tmp_path / "scheduler.json"
        path.write_text('{"address": "tcp://127.0.0.1:1"}')
        settings = ClusterSettings(scheduler_file=str(path), tls_ca=authority, tls_cert=authority, tls_key=key)
        with pytest.raises(ValueError, match=r"must be at tls://, but .* names tcp://127.0.0.1:1"), connect(settings):
            pass

    def test_half_of_the_files_is_refused(self, certificate):
        with pytest.raises(ValueError, match="give --tls-ca and --tls-cert"):
            ClusterSettings(tls_ca=str(certificate[0]))
        with pytest.raises(FileNotFoundError, match=r"tls_cert: there is no file nowhere\.pem"):
            ClusterSettings(tls_ca=str(certificate[0]), tls_cert="nowhere.pem")


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
    with pytest.raises(ValueError, match="memory-limit is 1,000 bytes a worker"):
        ClusterSettings(memory_limit=1000)


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
