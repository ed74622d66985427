"""Which process holds something, in a line of text that another one understands later."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil


def identity(process: int | None = None) -> str:
    """Return host, number and start of a process, by default of this one: numbers alone are used again."""
    number = os.getpid() if process is None else process
    return f"{_host()}\t{number}\t{psutil.Process(number).create_time()}"


def _host() -> str:
    """Return the host's name, and where the system tells it by what containers of the same name differ."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def is_of_this_host(text: str) -> bool:
    """Return whether a process, as :func:`identity` has it, was one of this host since it was last started."""
    return text.partition("\t")[0] == _host()


def number_of(text: str) -> str:
    """Return the number of a process; empty if the text is none of :func:`identity`."""
    number = text.partition("\t")[2].partition("\t")[0]
    return number if number.isdecimal() else ""


def is_running(text: str) -> bool:
    """Return whether a process of this host is still running."""
    number = number_of(text)
    try:
        return is_of_this_host(text) and bool(number) and identity(int(number)) == text
    except psutil.NoSuchProcess:
        return False


def described(text: str) -> str:
    """Return a process in words."""
    return f"process {number_of(text)} on {text.partition(chr(9))[0].partition(' ')[0]}"
