"""What a layout makes of a profile, worked out by hand."""

import numpy as np
import pytest

from pile_lightning.parallel import Layout
from pile_lightning.plan import Gathering, Kind, ParameterSize, StepProfile, rank_memory

MB = 10**6


def point(**kinds):
    found = [0] * len(Kind)
    for name, megabytes in kinds.items():
        found[Kind[name]] = megabytes * MB
    return found


# two blocks of 4 MB, which features split, and 8 MB in no block; twice as much optimizer state
PARAMETERS = tuple(
    ParameterSize(shape=(rows, 1000), itemsize=4, state=rows * 8000, unit=unit, tensor_dim=dim)
    for rows, unit, dim in ((1000, 0, 0), (1000, 1, 1), (2000, -1, None))
)
LASTING = {"WEIGHTS": 8, "SPLIT_WEIGHTS": 8, "STATE": 32}
GRADIENTS = {"GRADIENTS": 8, "ROOT_GRADIENTS": 8}


@pytest.fixture
def profile():
    made = {"ACTIVATIONS": 10, "SPLIT_ACTIVATIONS": 40, "CASTS": 2, "SPLIT_CASTS": 4}
    return StepProfile(
        rows=1,
        parameters=PARAMETERS,
        optimizer_flops=0,
        kept=tuple(point(**LASTING)),
        forward=np.array([point(**LASTING, **GRADIENTS, **made, HEAD=6)]),
        backward=np.array([point(**LASTING, ROOT_GRADIENTS=8, ACTIVATIONS=10, OTHER=5)]),
        step=np.array([point(**LASTING, **GRADIENTS, OTHER=16)]),
    )


def megabytes(memory):
    return {name: part / MB for name, part in memory.parts.items()}


def test_one_device_has_what_was_found(profile):
    memory = rank_memory(profile, Layout())
    assert memory.moment == "forward"
    assert memory.peak == profile.forward.sum(1).max()
    assert megabytes(memory) == {
        "weights": 16,
        "gradients": 16,
        "optimizer": 32,
        "gathered": 0,
        "activations": 56,
        "head": 6,
        "other": 0,
    }


def test_ddp_has_its_buckets_as_well(profile):
    one, many = rank_memory(profile, Layout()), rank_memory(profile, Layout(replicate=64))
    assert many.peak == one.peak + 16 * MB
    assert many.gradients == one.gradients + 16 * MB


def test_shards_are_divided_and_what_is_computed_is_whole(profile):
    memory = megabytes(rank_memory(profile, Layout(shard=4)))
    assert (memory["weights"], memory["gradients"], memory["optimizer"]) == (4, 4, 8)
    assert memory["gathered"] == 8  # while the head is computed, what is in no block
    assert memory["activations"] == 56
    replicated = rank_memory(profile, Layout(shard=4, replicate=16))
    assert megabytes(replicated) == memory


def test_weights_gathered_in_the_type_of_products_are_not_cast(profile):
    memory = megabytes(rank_memory(profile, Layout(shard=4), gathering=Gathering(itemsize=2)))
    assert memory["activations"] == 50
    assert memory["gathered"] == 4


def test_the_backward_gathers_blocks_and_waits_for_sums(profile):
    backward = StepProfile(**{**vars(profile), "forward": profile.backward * 0})
    gathered = {}
    for waiting in (0, 1, None):
        found = rank_memory(backward, Layout(shard=4), gathering=Gathering(waiting=waiting))
        assert found.moment == "backward"
        gathered[waiting] = found.gathered / MB
    # no block, three times a block, and the gradients of no block beside their shard
    assert gathered[0] == 8 + 3 * 4 + 8 * 3 / 4
    assert gathered[1] == gathered[0] + 4
    assert gathered[None] == gathered[0] + 2 * 4


def test_peers_share_features_and_no_more(profile):
    memory = megabytes(rank_memory(profile, Layout(tensor=4)))
    assert memory["weights"] == 8 + 8 / 4
    assert memory["activations"] == 10 + 40 / 4 + 2 + 4 / 4
    assert memory["head"] == 6 / 4  # of a part of the ids
    both = megabytes(rank_memory(profile, Layout(shard=2, tensor=4)))
    assert both["weights"] == memory["weights"] / 2
    assert both["activations"] == memory["activations"]


def test_an_optimizers_own_needs_are_spread(profile):
    only = StepProfile(**{**vars(profile), "forward": profile.step, "backward": profile.step})
    assert rank_memory(only, Layout()).other == 16 * MB
    stepping = np.array([point(**LASTING, **GRADIENTS, OTHER=1600)])
    only = StepProfile(**{**vars(profile), "step": stepping})
    found = rank_memory(only, Layout(shard=4))
    assert found.moment == "step"
    assert found.other == 400 * MB
    assert found.gathered == 0


def test_what_is_offloaded_is_not_on_the_device(profile):
    memory = megabytes(rank_memory(profile, Layout(shard=4, cpu_offload=True)))
    assert memory["weights"] == memory["gradients"] == memory["optimizer"] == 0
    assert memory["gathered"] == 8
    assert memory["activations"] == 56


def test_blocks_that_are_not_given_back_are_all_whole(profile):
    memory = megabytes(rank_memory(profile, Layout(shard=4, reshard=False)))
    assert memory["gathered"] == 16
