"""Hugging Face's Llama, with the loss that it computes from labels."""

from functools import partial

import torch
from torch import Tensor

from tests.benchmarks.systems.system import Size, System, Trainee, adamw


def make(size: Size, device: torch.device, *, compiled: bool) -> Trainee:
    from transformers import LlamaConfig, LlamaForCausalLM

    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size.vocab_size,
            hidden_size=size.d_model,
            intermediate_size=size.gated_d_ff,
            num_hidden_layers=size.num_layers,
            num_attention_heads=size.num_heads,
            num_key_value_heads=size.num_heads,
            max_position_embeddings=size.seq_len,
            tie_word_embeddings=True,
            use_cache=False,
        )
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
