"""Hugging Face's Llama, with the loss that it computes from labels."""

from functools import partial
from typing import Any

import torch
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
    **more: Any,
) -> Any:
    """Return transformers' config of a Llama."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=d_model,
        intermediate_size=d_ff,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        max_position_embeddings=seq_len,
        attn_implementation="sdpa",
        **more,
    )


def make(size: Size, device: torch.device, *, compiled: bool) -> Trainee:
    from transformers import LlamaForCausalLM

    network = LlamaForCausalLM(
        llama_config(**size.llama(), tie_word_embeddings=True, use_cache=False)
    ).to(device)

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        # labels that are shifted already
        return network(ids, labels=ids, shift_labels=labels, use_cache=False).loss

    return Trainee(network, torch.compile(loss) if compiled else loss, adamw(network))


def system() -> System:
    """Hugging Face's Llama in a plain loop."""
    return System(
        name="Hugging Face",
        note="Llama",
        modes={"eager": partial(make, compiled=False), "compiled": partial(make, compiled=True)},
    )
