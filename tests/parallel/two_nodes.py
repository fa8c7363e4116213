"""Two nodes on one machine: network namespaces joined by a cable, or two agents on loopback."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Node", "loopback", "namespaces", "run_on_nodes", "why_no_namespaces"]


class Node(NamedTuple):
    """How a command is run on a node."""

    prefix: list[str]
    """Put before the command."""
    address: str
    """Where others reach it."""
    interface: str
    """The network interface that others reach it by."""


def why_no_namespaces() -> str | None:
    """Say what is missing to make network namespaces, or None."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if shutil.which("ip") is None:
        return "making network namespaces needs iproute2"
    tried = subprocess.run(["ip", "netns", "add", "pile-try"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", "pile-try"], capture_output=True)
    return tried.stderr.strip() or None if tried.returncode else None


@contextmanager
def namespaces() -> Iterator[list[Node]]:
    """Make two namespaces joined by a veth pair, and remove them afterwards."""
    names = [f"pile-{os.getpid()}-{n}" for n in range(2)]
    cables = [f"pile{os.getpid()}{end}" for end in "ab"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        nodes = []
        for number, (name, cable) in enumerate(zip(names, cables, strict=True)):
            address = f"10.77.0.{number + 1}"
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")
            ip("-n", name, "link", "set", "lo", "up")
            nodes.append(Node(["ip", "netns", "exec", name], address, cable))
        yield nodes
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def loopback() -> list[Node]:
    """Return two nodes that are this machine."""
    return [Node([], "127.0.0.1", "lo")] * 2


def run_on_nodes(
    nodes: list[Node], command: list[str], *, ranks: int = 1, timeout: float = 300, **settings
) -> list[subprocess.CompletedProcess]:
    """Run ``command`` by torchrun on every node, ``ranks`` times on each, and wait for all.

    Args:
        nodes: The nodes; the first is the master.
        command: A Python script and its arguments.
        ranks: Processes on each node.
        timeout: Seconds until all are killed.
        **settings: Of ``subprocess.Popen``.
    """
    port = str(_free_port())
    environment = settings.pop("env", os.environ)
    agents = []
    for number, node in enumerate(nodes):
        launch = [
            *node.prefix,
            *[sys.executable, "-m", "torch.distributed.run"],
            f"--nnodes={len(nodes)}",
            f"--nproc-per-node={ranks}",
            f"--node-rank={number}",
            f"--master-addr={nodes[0].address}",
            f"--master-port={port}",
            f"--local-addr={node.address}",
            *command,
        ]
        agents.append(
            subprocess.Popen(
                launch,
                env={**environment, "GLOO_SOCKET_IFNAME": node.interface, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **settings,
            )
        )
    done = []
    try:
        for agent in agents:
            out, err = agent.communicate(timeout=timeout)
            done.append(subprocess.CompletedProcess(agent.args, agent.returncode, out, err))
    finally:
        for agent in agents:
            agent.kill()
    return done


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
