"""A short convolution is torch's own, stops where a document starts, and goes on where it was."""

import pytest
import torch
import torch.nn.functional as F

from pile_lightning.nn import DecoderConfig, ShortConv, ShortConvConfig
from pile_lightning.nn.recent import Recent


def make(width=6, size=4):
    conv = ShortConv(width, size=size)
    generator = torch.Generator().manual_seed(1)
    for share in conv.shares:
        torch.nn.init.normal_(share, generator=generator)
    return conv


@torch.no_grad()
@pytest.mark.parametrize("size", [2, 4])
def test_it_is_a_causal_depthwise_convolution(size):
    conv, x = make(size=size), torch.randn(2, 9, 6)
    kernel = torch.stack((*reversed(conv.shares), torch.ones(6)), dim=1)
    expected = F.conv1d(F.pad(x.mT, (size - 1, 0)), kernel[:, None], groups=6).mT
    torch.testing.assert_close(conv(x), expected)


@torch.no_grad()
def test_nothing_comes_from_another_document():
    conv, x = make(), torch.randn(1, 9, 6)
    position_ids = torch.tensor([[0, 1, 0, 0, 1, 2, 3, 4, 5]])
    apart = [conv(part) for part in x.split([2, 1, 6], dim=1)]
    assert torch.equal(conv(x, position_ids), torch.cat(apart, dim=1))


@torch.no_grad()
@pytest.mark.parametrize("parts", [[1] * 9, [5, 1, 1, 2], [2, 7]])
def test_read_in_parts_it_is_as_read_at_once(parts):
    conv, x, recent = make(), torch.randn(2, 9, 6), Recent()
    read = [conv(part, recent=recent) for part in x.split(parts, dim=1)]
    torch.testing.assert_close(torch.cat(read, dim=1), conv(x))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, {"k_conv"}),
        ({"keys": False, "inputs": True}, {"attention_conv", "feed_forward_conv"}),
        ({"queries": True, "values": True}, {"q_conv", "k_conv", "v_conv"}),
    ],
)
def test_it_stands_where_the_config_says(fields, named):
    block = DecoderConfig(d_model=8, short_conv=ShortConvConfig(**fields)).build_block()
    found = {name for name, module in block.named_modules() if isinstance(module, ShortConv)}
    assert {name.rpartition(".")[2] for name in found} == named


def test_a_convolution_of_one_position_is_refused():
    with pytest.raises(ValueError, match="size=1 .* choose at least 2, or no convolution"):
        ShortConvConfig(size=1)


def test_a_convolution_of_nothing_is_refused():
    with pytest.raises(ValueError, match="neither keys, queries, values nor inputs; choose one"):
        ShortConvConfig(keys=False)
