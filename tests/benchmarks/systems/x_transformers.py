"""x-transformers: its decoder with rotary positions, SwiGLU and RMSNorm."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.systems.system import Size, System, Trainee, adamw


def make(size: Size, device: torch.device, *, compiled: bool) -> Trainee:
    from x_transformers import Decoder, TransformerWrapper

    network = TransformerWrapper(
        num_tokens=size.vocab_size,
        max_seq_len=size.seq_len,
        tie_embedding=True,
        use_abs_pos_emb=False,
        attn_layers=Decoder(
            dim=size.d_model,
            depth=size.num_layers,
            heads=size.num_heads,
            attn_dim_head=size.head_dim,
            attn_flash=True,
            rotary_pos_emb=True,
            use_rmsnorm=True,
            ff_swish=True,
            ff_glu=True,
            ff_no_bias=True,
            ff_mult=size.gated_d_ff / size.d_model,
        ),
    ).to(device)

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(network(ids).flatten(0, 1), labels.flatten())

    return Trainee(network, torch.compile(loss) if compiled else loss, adamw(network))


def system() -> System:
    """x-transformers' decoder."""
    try:
        import x_transformers  # noqa: F401
    except ImportError as error:
        return System(name="x-transformers", note="Llama", missing=str(error))
    return System(
        name="x-transformers",
        note="Llama",
        modes={"eager": partial(make, compiled=False), "compiled": partial(make, compiled=True)},
    )
