"""A coordinate check: what some steps do to activations and logits is the same at any width."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    InitConfig,
    cross_entropy_sum,
    widened,
)
from pile_lightning.optim import (
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    meant_for,
    muon,
    rate_factor,
    width_of,
)

BASE, SEQ, STEPS = 64, 64, 6
TEXT = torch.tensor(list(Path(torch.__file__).parent.joinpath("functional.py").read_bytes()))
OPTIMIZERS = {"muon": MuonConfig(base_width=BASE), "adamw": AdamWConfig(lr=4e-3, base_width=BASE)}
UNSCALED = {"muon": MuonConfig(), "adamw": AdamWConfig(lr=4e-3)}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(muon, "has_fast_bfloat16", lambda device: False)


def rows(generator):
    starts = torch.randint(len(TEXT) - SEQ - 1, (8,), generator=generator)
    both = torch.stack([TEXT[start : start + SEQ + 1] for start in starts])
    return both[:, :-1], both[:, 1:]


def rms(tensor):
    return tensor.detach().square().mean().sqrt().item()


def coordinates(width, optimizer, *, tied, num_layers):
    """Train, and return what each layer writes to the stream, and how far the logits moved."""
    config = DecoderConfig(
        d_model=width,
        num_layers=num_layers,
        attention=AttentionConfig(num_heads=width // 32),
        tie_embeddings=tied,
        init=InitConfig.any_width(),
    )
    return coordinates_of(config, optimizer)


def coordinates_of(config, optimizer):
    torch.manual_seed(0)
    network = config.build(vocab_size=256, max_seq_len=SEQ)
    steps = optimizer.build(network)
    probe, _ = rows(torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(probe)
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        ids, labels = rows(generator)
        steps.zero_grad()
        (cross_entropy_sum(network(ids), labels) / labels.numel()).backward()
        steps.step()
    found = {}
    for number, block in enumerate(network.blocks):
        for name, layer in (("attention", block.attention.out), ("ff", block.feed_forward.down)):
            layer.register_forward_hook(
                lambda layer, given, out, name=f"{name} {number}": found.update({name: rms(out)})
            )
    with torch.no_grad():
        found["logits"] = rms(network(probe) - before)
    return found


def growth(optimizer, *, tied, widths=(64, 512), num_layers=1):
    """Return the largest ratio between widths of anything that is looked at."""
    found = [coordinates(width, optimizer, tied=tied, num_layers=num_layers) for width in widths]
    ratios = {name: max(f[name] for f in found) / min(f[name] for f in found) for name in found[0]}
    return max(ratios.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_activations_and_logits_keep_their_scale_as_the_width_grows(name):
    assert growth(OPTIMIZERS[name], tied=True) < 1.5


@pytest.mark.parametrize("name", UNSCALED)
def test_what_was_never_meant_for_other_widths_keeps_its_scale_when_it_is_carried(name):
    narrow = DecoderConfig(d_model=64, num_layers=1)  # the default start, and rates of no width
    found = [
        coordinates_of(widened(narrow, d_model=width), meant_for(UNSCALED[name], 64))
        for width in (64, 256)
    ]
    assert max(found[1][key] / found[0][key] for key in found[0]) < 1.4
    assert max(found[0][key] / found[1][key] for key in found[0]) < 1.4


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_the_scaling_they_do_not(name):
    assert growth(UNSCALED[name], tied=True) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_they_keep_it_at_every_width(name):
    widths = (64, 128, 256, 512)
    assert growth(OPTIMIZERS[name], tied=True, widths=widths, num_layers=3) < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_an_untied_head_nothing_grows(name):
    # what AdamW makes the layers write falls: the part that differs by token adds up by the root of
    # the width alone, and is larger than the part that all share
    narrow, wide = (
        coordinates(width, OPTIMIZERS[name], tied=False, num_layers=3) for width in (64, 512)
    )
    assert max(wide[key] / narrow[key] for key in narrow) < 1.7


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.lookup = nn.Embedding(13, width)
        self.lookup.role = "lookup"
        self.up = nn.Linear(width, 4 * width)


def rates(optimizer, width):
    """Return the learning rate and the decay a step of each parameter, by name."""
    net = Net(width)
    names = {id(p): name for name, p in net.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["lr"] * group["weight_decay"])
        for group in optimizer.build(net).param_groups
        for p in group["params"]
    }


def test_rates_follow_the_width_of_the_network():
    at_base, at_four = (rates(AdamWConfig(base_width=16), width) for width in (16, 64))
    for name, (rate, decay) in at_base.items():
        scaled = name in ("embedding.weight", "up.weight")
        assert at_four[name][0] == pytest.approx(rate / 4 if scaled else rate)
        assert at_four[name][1] == pytest.approx(decay)
    at_base, at_four = (rates(MuonConfig(base_width=16), width) for width in (16, 64))
    for name, (rate, _) in at_base.items():
        assert at_four[name][0] == pytest.approx(rate / 4 if name == "embedding.weight" else rate)
    assert at_base == rates(MuonConfig(), 16)
    assert rates(MuonConfig(), 16) == rates(MuonConfig(), 64)


def test_tables_may_have_a_rate_of_their_own_and_decay_as_much():
    plain, own = (rates(AdamWConfig(table_lr=lr), 16) for lr in (None, 0.05))
    for name, (rate, decay) in plain.items():
        assert own[name][0] == (0.05 if name == "embedding.weight" else rate)
        assert own[name][1] == pytest.approx(decay)
    four = rates(AdamWConfig(table_lr=0.05, base_width=16), 64)
    assert four["embedding.weight"] == pytest.approx((0.0125, plain["embedding.weight"][1]))


def test_a_width_that_is_none_is_refused():
    for config in (MuonConfig, AdamWConfig):
        with pytest.raises(ValueError, match="base_width=0 .* choose at least 1, or null"):
            config(base_width=0)
    with pytest.raises(ValueError, match=r"columns of its embedding, and Linear has none; leave"):
        width_of(nn.Linear(4, 4))
    assert rate_factor(nn.Linear(4, 4), base_width=None) == 1.0


def test_what_is_meant_for_a_width_keeps_its_rates_there():
    for config in (AdamWConfig(), MuonConfig(), AdamWConfig(base_width=64), MuonConfig(lr=0.1)):
        carried = meant_for(config, 16)
        assert rates(carried, 16) == rates(config, 16)
        assert meant_for(carried, 32) == carried
        table = "embedding.weight"
        assert rates(carried, 64)[table][0] == pytest.approx(rates(config, 16)[table][0] / 4)


@dataclass(frozen=True, kw_only=True)
class Plain(OptimizerConfig):
    lr: float = 0.1

    def build(self, network):
        return torch.optim.SGD(network.parameters(), lr=self.lr)


def test_an_optimizer_that_knows_no_width_is_refused():
    with pytest.raises(TypeError, match=r"Plain has no base_width.*optim\.rate_factor"):
        meant_for(Plain(), 64)
