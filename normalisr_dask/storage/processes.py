"""Which process holds something, in a line of text that another one understands later."""

import os
import socket

import psutil


def identity(process: int | None = None) -> str:
    """Return host, number and start of a process, by default of this one: numbers alone are used again."""
    number = os.getpid() if process is None else process
    return f"{socket.gethostname()}\t{number}\t{psutil.Process(number).create_time()}"


def is_of_this_host(text: str) -> bool:
    """Return whether a process, as :func:`identity` has it, was one of this host."""
    return text.partition("\t")[0] == socket.gethostname()


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
    return f"process {number_of(text)} on {text.partition(chr(9))[0]}"
