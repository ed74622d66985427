"""What is not told of what was going on when a command ended early."""

import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys
from normalisr_dask.cli.app import app, main

class HalfMade:
    def __init__(self, number):
        signal.raise_signal(number)
        self.is_whole = True
    def __del__(self):
        self.is_whole

@app.command()
def stop(number: int):
    HalfMade(number)

sys.argv[1:] = ["stop", sys.argv[1]]
main()
"""


@pytest.mark.parametrize(("number", "said", "code"), [(2, "interrupted", 130), (15, "terminated", 143)])
def test_nothing_is_told_of_an_object_that_a_signal_has_left_half_made(number: int, said: str, code: int):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(number)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stderr == f"normalisr-dask: {said}: run the same command again to go on\n"
    assert ended.returncode == code


FAILING = """
import asyncio, sys
from normalisr_dask.cli.app import app, main

async def write(number):
    raise OSError(f"write {number} failed")

async def write_both():
    second = asyncio.ensure_future(write(2))
    await asyncio.sleep(0)
    await write(1)

@app.command()
def stop():
    asyncio.run(write_both())

sys.argv[1:] = ["stop"]
main()
"""


def test_nothing_is_told_of_what_fails_beside_the_first_failure():
    ended = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == "normalisr-dask: error: write 1 failed\n"
    assert ended.returncode == 2
