"""A GPT as nanoGPT writes it: learned positions, LayerNorm without bias, GELU, fused q, k, v."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.systems.system import Size, System, Trainee, adamw


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_1 = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_2 = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, width = x.shape
        q, k, v = (
            each.view(batch, seq, self.num_heads, -1).transpose(1, 2)
            for each in self.qkv(self.norm_1(x)).split(width, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(batch, seq, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class GPT(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocab_size, size.d_model)
        self.positions = nn.Embedding(size.seq_len, size.d_model)
        blocks = (Block(size.d_model, size.num_heads) for _ in range(size.num_layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(size.d_model, bias=False)
        self.head = nn.Linear(size.d_model, size.vocab_size, bias=False)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
        self.tokens.weight = self.head.weight

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), labels.reshape(-1))


def make(size: Size, device: torch.device, *, compiled: bool) -> Trainee:
    network = GPT(size).to(device)
    return Trainee(network, torch.compile(network) if compiled else network, adamw(network))


def system() -> System:
    """nanoGPT's network and step."""
    return System(
        name="nanoGPT-like",
        note="learned positions, LayerNorm, GELU",
        modes={"eager": partial(make, compiled=False), "compiled": partial(make, compiled=True)},
    )
