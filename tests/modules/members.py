"""Modules to be stacked, and a batch for them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from pile_lightning import CausalLM, DecoderConfig, NetworkConfig
from pile_lightning.nn import (
    AttentionConfig,
    FeedForwardConfig,
    LayerNormConfig,
    LearnedConfig,
    MatchesConfig,
    PileConfig,
    ShortConvConfig,
    TablesConfig,
)

VOCAB, SEQ = 50, 32


class Own(nn.Module):
    """A network of a user's own: a buffer, attention without heads, biases, a function."""

    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.register_buffer("scale", torch.tensor(0.5))
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = nn.LayerNorm(width)
        self.act = lambda x: F.gelu(x, approximate="tanh")
        self.head = nn.Sequential(nn.Linear(width, width), nn.Linear(width, VOCAB))

    def forward(self, input_ids, *, position_ids=None, document_ids=None):
        x = self.embedding(input_ids) * self.scale
        mask = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
        if document_ids is not None:
            mask = mask & (document_ids[:, :, None] == document_ids[:, None, :])
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        return self.head(self.act(x + F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


@dataclass(frozen=True, kw_only=True)
class OwnConfig(NetworkConfig):
    width: int = 16

    def build(self, *, vocab_size, max_seq_len):
        return Own(self.width)


SMALL = DecoderConfig(d_model=32, num_layers=2)

NETWORKS = {
    "decoder": SMALL,
    "another decoder": DecoderConfig(
        d_model=32,
        num_layers=2,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, bias=True),
        feed_forward=FeedForwardConfig(activation="silu", gated=True, bias=True),
        norm=LayerNormConfig(),
        positions=LearnedConfig(),
        tie_embeddings=False,
        short_conv=ShortConvConfig(size=3, queries=True, values=True, inputs=True),
        matches=MatchesConfig(lengths=(1, 2)),
        tables=TablesConfig(ngram_rows=(64,)),
    ),
    "pile": PileConfig(d_model=32, num_heads=2, num_layers=1, dropout=0.0),
    "own": OwnConfig(),
}


def make_member(seed=0, network=SMALL, **settings):
    torch.manual_seed(seed)
    member = CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ, **settings)
    for parameter in member.built_network.parameters():
        # gains of 1 and projections of 0 hide faults
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return member


def make_members(count=3, **settings):
    return [make_member(seed, **settings) for seed in range(count)]


def make_batch(*, packed=True, seed=0, rows=4):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (rows, SEQ + 1), generator=generator)
    labels = ids[:, 1:].contiguous()
    labels[0, :5] = -100
    if not packed:
        none = {"position_ids": None, "document_ids": None}
        return {"input_ids": ids[:, :-1], "labels": labels, **none}
    documents = torch.zeros(rows, SEQ, dtype=torch.long)
    documents[1, 20:] = 1
    documents[:, 25:] += 1
    starts = F.pad(documents.diff(dim=1), (1, 0)) * torch.arange(SEQ)
    return {
        "input_ids": ids[:, :-1],
        "labels": labels,
        "position_ids": torch.arange(SEQ) - starts.cummax(dim=1).values,
        "document_ids": documents,
    }


def of_losses(batch):
    return lambda member: member.loss_sum(batch)


def gradients(member):
    return {n: None if p.grad is None else p.grad.clone() for n, p in member.named_parameters()}


def assert_same_gradients(members, alone):
    for member, other in zip(members, alone, strict=True):
        found, expected = gradients(member), gradients(other)
        # what is zero but for rounding, such as that of a key's bias, is as exact as the others
        scale = max(
            gradient.abs().max().item() for gradient in expected.values() if gradient is not None
        )
        for name, theirs in expected.items():
            if theirs is None:
                assert found[name] is None, name
            else:
                torch.testing.assert_close(found[name], theirs, rtol=1e-5, atol=1e-6 * scale)


class Focal(CausalLM):
    def __init__(self, *, gamma=1.0, **settings):
        super().__init__(**settings)
        self.gamma = gamma

    def loss_sum(self, batch):
        nats = self.token_nll(batch)
        return (nats * (1 - (-nats).exp()) ** self.gamma).sum()


def make_focal(gamma):
    torch.manual_seed(int(gamma))
    member = Focal(gamma=gamma, network=SMALL, vocab_size=VOCAB, max_seq_len=SEQ)
    member.configure_model()
    return member
