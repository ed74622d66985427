"""Schedulers of their own process that are found by address and by file, and what else answers there."""

import json
import operator
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, BaseServer, ThreadingTCPServer

import psutil
import pytest
from dask_programs import running, scheduler_command, worker_command
from threadpoolctl import threadpool_info
from tls_files import TlsFiles, tls_files

from normalisr_dask.cluster import ClusterSettings, connect, memory_limits
from normalisr_dask.cluster_connection import address_in_file


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


def assert_refused(address: str, message: str, seconds: float = 0.5, **settings: str) -> None:
    """Hold a failing connection to its message, to its time and to leaving no thread."""
    loops = {thread for thread in threading.enumerate() if thread.name == "IO loop"}
    start = time.monotonic()
    with (
        pytest.raises(ConnectionError, match=message),
        connect(ClusterSettings(scheduler=address, answer_seconds=seconds, **settings)),
    ):
        pass
    assert time.monotonic() - start < seconds + 2
    assert {thread for thread in threading.enumerate() if thread.name == "IO loop"} == loops


class TestRunningScheduler:
    @pytest.mark.slow
    def test_it_is_found_by_its_file_and_by_its_address_and_stays(self, tmp_path):
        path = tmp_path / "scheduler.json"
        worker = worker_command(path, "--memory-limit", "0")
        with running(*scheduler_command(path)), running(*worker, OPENBLAS_NUM_THREADS="3"):
            with connect(ClusterSettings(scheduler_file=str(path), answer_seconds=60)) as client:
                assert client.submit(operator.neg, 1).result() == -1
                libraries = [library for found in client.run(threadpool_info).values() for library in found]
                assert {library["num_threads"] for library in libraries} == {1}
                # a worker without a limit of its own may use its machine's memory
                assert list(memory_limits(client).values()) == [pytest.approx(psutil.virtual_memory().total, rel=0.01)]
            address = json.loads(path.read_text())["address"]
            with connect(ClusterSettings(scheduler=address)) as client:
                assert client.submit(operator.neg, 2).result() == -2

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

    def test_a_host_that_is_not_known_is_said_to_be_so(self):
        message = r"the Dask scheduler at tcp://nowhere\.invalid:8786 did not answer .*: its host is not known here"
        with (
            pytest.raises(ConnectionError, match=message),
            connect(ClusterSettings(scheduler="tcp://nowhere.invalid:8786", answer_seconds=0.5)),
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
                ConnectionError, match=r"has no workers after 1 seconds; start some with `dask worker tcp://"
            ),
            connect(ClusterSettings(scheduler_file=str(path), worker_seconds=1)),
        ):
            pass


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> TlsFiles:
    return tls_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def encrypted(files, tmp_path_factory) -> Iterator[str]:
    """Address of a scheduler, with a worker, that takes nobody without a certificate."""
    path = tmp_path_factory.mktemp("encrypted") / "scheduler.json"
    options = ("--protocol", "tls", *files.dask_options())
    environment = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    with ExitStack() as stack:
        for command in (scheduler_command, worker_command):
            stack.enter_context(running(*command(path, *options), **environment))
        with connect(ClusterSettings(scheduler_file=str(path), answer_seconds=60, **files.settings())):
            yield json.loads(path.read_text())["address"]


@pytest.mark.slow
class TestEncryption:
    def test_it_is_used(self, encrypted, files):
        assert encrypted.startswith("tls://")
        with connect(ClusterSettings(scheduler=encrypted, **files.settings())) as client:
            assert all(worker.startswith("tls://") for worker in client.nthreads())
            assert client.submit(operator.neg, 1).result() == -1

    def test_nobody_without_a_certificate_connects(self, encrypted):
        address = encrypted.replace("tls://", "tcp://")
        message = f"no Dask scheduler answers at {address}: .* or it wants other encryption or certificates"
        assert_refused(address, message, seconds=5)

    @pytest.mark.parametrize("own", [["tls_ca", "tls_cert", "tls_key"], ["tls_ca"], ["tls_cert", "tls_key"]])
    def test_certificates_of_another_authority_are_refused(self, encrypted, files, tmp_path, own):
        stranger = tls_files(tmp_path).settings()
        message = f"no Dask scheduler answers at {encrypted}: .* or it wants other encryption or certificates"
        assert_refused(encrypted, message, seconds=5, **files.settings() | {name: stranger[name] for name in own})

    def test_a_scheduler_without_encryption_is_refused(self, files, tmp_path):
        path = tmp_path / "scheduler.json"
        with (
            running(*scheduler_command(path)),
            pytest.raises(ValueError, match=r"must be at tls://, but .*scheduler.json names tcp://127.0.0.1:"),
            connect(ClusterSettings(scheduler_file=str(path), answer_seconds=60, **files.settings())),
        ):
            pass

    def test_one_that_is_only_called_encrypted_is_refused(self, files, tmp_path):
        path = tmp_path / "scheduler.json"
        with running(*scheduler_command(path)):
            address = address_in_file(path, 60).replace("tcp://", "tls://")
            message = f"no Dask scheduler answers at {address}: .* or it wants other encryption or certificates"
            assert_refused(address, message, seconds=5, **files.settings())
