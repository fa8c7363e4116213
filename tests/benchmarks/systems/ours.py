"""This package: as Llama, as it is by default, and with the optimizer that it has by default."""

from functools import partial

import torch
from torch import Tensor

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.batch import without_needless_mask
from pile_lightning.nn import AttentionConfig, FeedForwardConfig, InitConfig, RMSNormConfig
from pile_lightning.optim import AdamWConfig, MuonConfig, OptimizerConfig
from pile_lightning.parallel import Recompute
from tests.benchmarks.systems.system import Size, System, Trainee

ADAMW = AdamWConfig(lr=3e-4)
MODES = ("eager", "compiled")
ROOMY: tuple[Recompute, ...] = ("selective", "full")


def as_llama(size: Size) -> DecoderConfig:
    return DecoderConfig(
        d_model=size.d_model,
        num_layers=size.num_layers,
        attention=AttentionConfig(num_heads=size.num_heads, qk_norm=None),
        feed_forward=FeedForwardConfig(d_ff=size.gated_d_ff, activation="silu", gated=True),
        norm=RMSNormConfig(eps=1e-5),
        embedding_norm=None,
        init=InitConfig.gpt2(),
    )


def by_default(size: Size) -> DecoderConfig:
    heads = max(1, size.d_model // 128)
    return DecoderConfig(
        d_model=size.d_model,
        num_layers=size.num_layers,
        attention=AttentionConfig(num_heads=heads),
    )


def make(
    size: Size,
    device: torch.device,
    *,
    network: DecoderConfig,
    optimizer: OptimizerConfig,
    compiled: bool,
    recompute: Recompute = "none",
) -> Trainee:
    model = CausalLM(
        network,
        vocab_size=size.vocab_size,
        max_seq_len=size.seq_len,
        compile=compiled,
        activation_checkpointing=recompute,
    )
    built = model.built_network.to(device)
    rows, seq = size.batch_size, size.seq_len
    more: dict[str, Tensor] = {
        "position_ids": torch.arange(seq, device=device).expand(rows, -1).contiguous(),
        "document_ids": torch.zeros(rows, seq, dtype=torch.long, device=device),
        "domain": torch.zeros(rows, dtype=torch.long, device=device),
        "num_bytes": torch.full((rows,), seq, device=device),
    }

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        batch = without_needless_mask({"input_ids": ids, "labels": labels, **more})
        return model.loss_sum(batch) / (labels != -100).sum()

    return Trainee(built, loss, optimizer.build(built))


def systems(size: Size) -> list[System]:
    """Ours, in three lines."""
    lines = {
        "ours as Llama": ("Llama", as_llama(size), ADAMW),
        "ours": ("heads of 128, QK-norm, ReLU^2", by_default(size), ADAMW),
        "ours, Muon": ("the same, Muon on matrices", by_default(size), MuonConfig()),
    }
    found = []
    for name, (note, network, optimizer) in lines.items():
        made = partial(make, network=network, optimizer=optimizer)
        found.append(
            System(
                name=name,
                note=note,
                modes={mode: partial(made, compiled=mode == "compiled") for mode in MODES},
                roomy_modes={
                    f"compiled, {recompute} recomputing": partial(
                        made, compiled=True, recompute=recompute
                    )
                    for recompute in ROOMY
                },
                is_ours=True,
            )
        )
    return found
