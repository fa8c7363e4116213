"""What a rank sends, against cases that were worked out by hand."""

import pytest

from pile_lightning.parallel import Layout
from pile_lightning.plan import Gathering, ParameterSize, find_gpu, transfers

MB = 10**6
# two blocks of 4 MB in float32, and 2 MB in none
PARAMETERS = [
    ParameterSize(shape=(1000, 1000), itemsize=4, unit=0, tensor_dim=0),
    ParameterSize(shape=(1000, 1000), itemsize=4, unit=1, tensor_dim=1),
    ParameterSize(shape=(500, 1000), itemsize=4),
]
GPU = find_gpu("h100")


def sent(layout, *, micro_batches=1, itemsize=None, recomputes=False):
    found = transfers(
        layout,
        PARAMETERS,
        micro_batches=micro_batches,
        stream_bytes=8 * MB,
        num_sums=4,
        recomputes=recomputes,
        gathering=Gathering(itemsize=itemsize),
    )
    return {each.name: each for each in found}


def test_one_rank_sends_nothing():
    assert sent(Layout()) == {}


def test_ddp_sums_all_gradients_once_a_step():
    for micro_batches in (1, 5):
        found = sent(Layout(replicate=4), micro_batches=micro_batches)
        assert list(found) == ["gradients of replicas"]
        assert found["gradients of replicas"].sent == 2 * 3 / 4 * 10 * MB


def test_fsdp_gathers_blocks_twice_and_the_rest_once_in_every_micro_batch():
    found = sent(Layout(shard=4), micro_batches=2)
    assert found["weights"].sent == 2 * 3 / 4 * (2 * 8 + 2) * MB
    assert found["weights"].calls == 2 * (2 * 2 + 1)
    assert found["gradients"].sent == 2 * 3 / 4 * 10 * MB
    once = sent(Layout(shard=4, reshard=False))
    assert (once["weights"].sent, once["weights"].calls) == (3 / 4 * 10 * MB, 3)
    # in the type of products: half as many bytes, and gradients are summed in float32 all the same
    mixed = sent(Layout(shard=4), micro_batches=2, itemsize=2)
    assert mixed["weights"].sent == found["weights"].sent / 2
    assert mixed["gradients"].sent == found["gradients"].sent


def test_replicas_of_shards_sum_their_part():
    found = sent(Layout(replicate=3, shard=2))
    assert found["weights"].sent == 1 / 2 * 18 * MB
    assert found["gradients of replicas"].sent == 2 * 2 / 3 * (10 / 2) * MB
    assert found["gradients of replicas"].stride == 2


def test_tensor_parallel_peers_sum_what_is_added_to_the_stream_there_and_back():
    found = sent(Layout(tensor=4))
    assert list(found) == ["activations"]
    assert found["activations"].sent == 2 * 3 / 4 * 2 * 8 * MB
    assert found["activations"].calls == 8
    assert not found["activations"].hidden
    again = sent(Layout(tensor=4), recomputes=True)
    assert again["activations"].sent == 1.5 * found["activations"].sent


def test_both_shard_what_each_peer_has():
    found = sent(Layout(shard=2, tensor=2))
    assert found["weights"].sent == 1 / 2 * (2 * (2 + 2) + 2) * MB
    assert found["weights"].stride == 2


@pytest.mark.parametrize(
    ("layout", "rate"),
    [
        (Layout(shard=8), GPU.node_rate),  # within the node
        (Layout(shard=16), 8 * GPU.network_rate),  # through all eight ports
        (Layout(replicate=4, shard=8), GPU.network_rate),  # a ring of replicas has one a node
    ],
)
def test_the_slowest_link_of_a_ring_is_what_counts(layout, rate):
    last = list(sent(layout).values())[-1]
    seconds = last.seconds(GPU, ranks_per_node=8)
    latency = GPU.node_latency if layout.num_ranks <= 8 else GPU.network_latency
    assert seconds == pytest.approx(
        last.sent / min(rate, GPU.node_rate) + last.calls * last.rounds * latency
    )
