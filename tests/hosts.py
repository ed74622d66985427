"""Several hosts on this machine: network namespaces on a bridge of their own, which share nothing but the files."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

SUBNET = "10.87.0"


def _ip(*arguments: str) -> None:
    """Run Debian's iproute2."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Host(NamedTuple):
    """A network namespace; the first one holds the bridge to which the others are plugged in."""

    namespace: str
    address: str
    plug: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command there."""
        return ("ip", "netns", "exec", self.namespace)


class Network(NamedTuple):
    """Some hosts that reach each other."""

    hosts: list[Host]

    def cut_off(self, host: Host) -> None:
        """Pull the plug of a host: its processes live on, and nobody tells anybody."""
        _ip("-n", self.hosts[0].namespace, "link", "set", host.plug, "down")


@contextmanager
def network(n_hosts: int) -> Iterator[Network]:
    """Connect hosts for as long as the block lasts, or skip the test where that is not possible."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("hosts are network namespaces, which need root and iproute2")
    names = [f"normalisr-{os.getpid()}-{number}" for number in range(n_hosts)]
    hosts = [Host(name, f"{SUBNET}.{number + 1}", f"plug{number}") for number, name in enumerate(names)]
    try:
        _connect(hosts)
    except subprocess.CalledProcessError as error:
        _remove(hosts)
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        yield Network(hosts)
    finally:
        _remove(hosts)


def _connect(hosts: list[Host]) -> None:
    first, *others = hosts
    for host in hosts:
        _ip("netns", "add", host.namespace)
        _ip("-n", host.namespace, "link", "set", "lo", "up")
    _ip("-n", first.namespace, "link", "add", first.plug, "type", "bridge")
    for host in others:
        peer = ("peer", "name", host.plug, "netns", host.namespace)
        _ip("-n", first.namespace, "link", "add", host.plug, "type", "veth", *peer)
        _ip("-n", first.namespace, "link", "set", host.plug, "master", first.plug, "up")
    for host in hosts:
        _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", host.plug)
        _ip("-n", host.namespace, "link", "set", host.plug, "up")


def _remove(hosts: list[Host]) -> None:
    for host in hosts:
        subprocess.run(["ip", "netns", "del", host.namespace], check=False, capture_output=True)
