"""GPUs and the links between them, as their data sheets have them."""

from dataclasses import dataclass

from pile_lightning.callbacks.throughput import DENSE_PEAK_FLOPS

__all__ = ["GPUS", "Gpu", "find_gpu"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU in a node of its usual kind; sizes in bytes, rates in bytes a second."""

    name: str
    """What it is called."""
    peak: float
    """Dense matrix products in bfloat16, operations a second."""
    memory: float
    """Its memory."""
    memory_rate: float
    """Of its memory."""
    node_rate: float
    """Of its link to the other GPUs of the node (NVLink), one way."""
    network_rate: float
    """Of its share of the node's network, one way."""
    node_latency: float = 1e-6
    """Seconds of a message within the node: assumed."""
    network_latency: float = 5e-6
    """Seconds of a message between nodes: assumed."""


GPUS: dict[str, Gpu] = {
    "a100-40gb": Gpu(
        name="A100 40 GB",
        peak=DENSE_PEAK_FLOPS["A100"],
        memory=40e9,
        memory_rate=1.555e12,
        node_rate=300e9,
        network_rate=25e9,
    ),
    "a100": Gpu(
        name="A100 80 GB",
        peak=DENSE_PEAK_FLOPS["A100"],
        memory=80e9,
        memory_rate=2.039e12,
        node_rate=300e9,
        network_rate=25e9,
    ),
    "h100": Gpu(
        name="H100 SXM",
        peak=DENSE_PEAK_FLOPS["H100"],
        memory=80e9,
        memory_rate=3.35e12,
        node_rate=450e9,
        network_rate=50e9,
    ),
    "h200": Gpu(
        name="H200 SXM",
        peak=DENSE_PEAK_FLOPS["H200"],
        memory=141e9,
        memory_rate=4.8e12,
        node_rate=450e9,
        network_rate=50e9,
    ),
    "b200": Gpu(
        name="B200",
        peak=DENSE_PEAK_FLOPS["B200"],
        memory=180e9,
        memory_rate=7.7e12,
        node_rate=900e9,
        network_rate=50e9,
    ),
}
"""By name. Source: NVIDIA's data sheets; the network is that of DGX nodes, a port a GPU (ConnectX-6
with 200 Gb/s, ConnectX-7 with 400 Gb/s)."""


def find_gpu(name: str) -> Gpu:
    """Look up a GPU.

    Raises:
        ValueError: If there is none of that name; the message lists those that are.

    Example:
        >>> find_gpu("H100").peak / 1e12
        989.0
    """
    if name.lower() not in GPUS:
        raise ValueError(f"gpu={name!r} is not known; choose one of {', '.join(GPUS)}")
    return GPUS[name.lower()]
