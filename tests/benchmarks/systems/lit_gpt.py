"""litgpt: its GPT configured as Llama."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.systems.system import Size, System, Trainee, adamw


def llama_config(
    *,
    num_layers: int,
    d_model: int,
    num_heads: int,
    num_kv_heads: int,
    d_ff: int,
    vocab_size: int,
    seq_len: int,
) -> Any:
    """Return litgpt's config of a Llama."""
    from litgpt.model import Config

    return Config(
        block_size=seq_len,
        vocab_size=vocab_size,
        padded_vocab_size=vocab_size,
        n_layer=num_layers,
        n_head=num_heads,
        n_query_groups=num_kv_heads,
        n_embd=d_model,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-5,
        mlp_class_name="LLaMAMLP",
        intermediate_size=d_ff,
    )


def make(size: Size, device: torch.device, *, compiled: bool) -> Trainee:
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    network = GPT(llama_config(**size.llama()))
    network.apply(network._init_weights)
    network.lm_head.weight = network.transformer.wte.weight
    network.to(device)

    def whole(ids: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(network(ids).flatten(0, 1), labels.flatten())

    def in_chunks(ids: Tensor, labels: Tensor) -> Tensor:
        return chunked_cross_entropy(network(ids), labels)

    loss = torch.compile(whole) if compiled else in_chunks
    return Trainee(network, loss, adamw(network))


def system() -> System:
    """litgpt's network, with the loss of its pretraining."""
    try:
        import litgpt.model  # noqa: F401
    except ImportError as error:
        return System(name="litgpt", note="Llama", missing=str(error))
    return System(
        name="litgpt",
        note="Llama",
        modes={"eager": partial(make, compiled=False), "compiled": partial(make, compiled=True)},
    )
