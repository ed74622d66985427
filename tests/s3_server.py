"""A server that speaks S3, in a process of its own: moto's."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest

#: Names that occur nowhere else, to be looked for where credentials must not be.
KEY, SECRET = "AKIAWALRUS7TUSKS", "hush-8b1f0c9d4e-not-to-be-seen"
BUCKET = "bucket"
SECONDS_TO_START = 60


@contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """Run a server while the block runs; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            give_up = time.monotonic() + SECONDS_TO_START
            while not _answers(port):
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < give_up, "the server does not answer"
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def credentials_for(address: str) -> Iterator[None]:
    """Have this process and those that it starts speak with a server while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


def bucket_contents(folder: str) -> dict[str, bytes]:
    """Return every object below a folder, by its key."""
    file_system = fsspec.filesystem("s3", use_listings_cache=False)
    return dict(file_system.cat(file_system.find(folder)))


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
