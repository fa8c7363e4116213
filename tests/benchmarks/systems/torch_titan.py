"""torchtitan: its Llama 3, with its chunked loss, compiled block by block as it does."""

from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.systems.system import Size, System, Trainee, adamw


def build(size: Size) -> nn.Module:
    from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
    from torchtitan.models.common.attention import ScaledDotProductAttention
    from torchtitan.models.common.config_utils import make_ffn_config, make_gqa_config
    from torchtitan.models.llama3 import Llama3Model
    from torchtitan.models.llama3.model import Llama3TransformerBlock

    narrow = {"weight": partial(nn.init.trunc_normal_, std=0.02)}
    norm = RMSNorm.Config(normalized_shape=size.d_model, param_init={"weight": nn.init.ones_})
    blocks = [
        Llama3TransformerBlock.Config(
            attention_norm=norm,
            ffn_norm=norm,
            attention=make_gqa_config(
                dim=size.d_model,
                n_heads=size.num_heads,
                wqkv_param_init=narrow,
                wo_param_init=narrow,
                inner_attention=ScaledDotProductAttention.Config(),
                fuse_qkv=True,
                rope=ComplexRoPE.Config(dim=size.head_dim, max_seq_len=size.seq_len),
            ),
            feed_forward=make_ffn_config(
                dim=size.d_model,
                hidden_dim=size.gated_d_ff,
                w1_param_init=narrow,
                w2w3_param_init=narrow,
            ),
        )
        for _ in range(size.num_layers)
    ]
    network = Llama3Model(
        Llama3Model.Config(
            dim=size.d_model,
            vocab_size=size.vocab_size,
            enable_weight_tying=True,
            tok_embeddings=Embedding.Config(
                num_embeddings=size.vocab_size, embedding_dim=size.d_model, param_init=narrow
            ),
            norm=norm,
            lm_head=Linear.Config(
                in_features=size.d_model, out_features=size.vocab_size, param_init=narrow
            ),
            layers=blocks,
        )
    )
    network.init_states()
    return network


def make(size: Size, device: torch.device, *, mode: str) -> Trainee:
    from torchtitan.components.loss import ChunkedLossWrapper

    network = build(size).to(device)
    if mode == "whole":

        def whole(ids: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(network(ids).flatten(0, 1).float(), labels.flatten())

        return Trainee(network, torch.compile(whole), adamw(network))
    compiles = SimpleNamespace(enable=mode == "blocks", components=["loss"], backend="inductor")
    chunked = ChunkedLossWrapper.Config().build(compile_config=compiles)
    chunked.set_lm_head(network.lm_head)
    network._skip_lm_head = True
    if mode == "blocks":
        for block in network.layers.values():
            block.compile(fullgraph=True)

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        count = torch.tensor(float(labels.numel()), device=labels.device)
        return chunked(network(ids), labels, count)[0]

    return Trainee(network, loss, adamw(network))


def system() -> System:
    """torchtitan's Llama 3, without its parallelism."""
    try:
        import torchtitan.components.loss
        import torchtitan.models.llama3  # noqa: F401
    except ImportError as error:
        return System(name="torchtitan", note="Llama 3", missing=str(error))
    return System(
        name="torchtitan",
        note="Llama 3",
        modes={mode: partial(make, mode=mode) for mode in ("eager", "blocks", "whole")},
    )
