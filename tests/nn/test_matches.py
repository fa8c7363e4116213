"""What followed the last time that the same tokens came."""

import pytest
import torch

from pile_lightning.nn import MatchesConfig
from pile_lightning.nn.matches import last_matches


def search(ids, positions, length):
    """Look through all that is before each position."""
    found = torch.full_like(ids, -1)
    for row in range(ids.shape[0]):
        for here in range(ids.shape[1]):
            start = here - positions[row, here].item()
            for there in range(start + length - 1, here):
                same = (
                    ids[row, there - length + 1 : there + 1]
                    == ids[row, here - length + 1 : here + 1]
                )
                if same.all():
                    found[row, here] = there
    return found


@pytest.mark.parametrize("lengths", [(1,), (2, 3), (1, 4, 9)])
def test_the_last_place_is_found_within_the_document(lengths):
    ids = torch.randint(3, (3, 60), generator=torch.Generator().manual_seed(2))
    positions = torch.arange(60).repeat(3, 1)
    positions[1, 25:] -= 25
    positions[2, 4:] -= 4
    positions[2, 7:] -= 3
    every = list(last_matches(ids, positions, lengths))
    for length, found in zip(lengths, every, strict=True):
        assert torch.equal(found, search(ids, positions, length))
        for new in (5, 1):
            (latest,) = last_matches(ids, positions[:, -new:], [length])
            assert torch.equal(latest, found[:, -new:])
        for end in (1, 2, 5, 30):  # one position each, as they come in generation
            (latest,) = last_matches(ids[:, :end], positions[:, end - 1 : end], [length])
            assert torch.equal(latest, found[:, end - 1 : end])
    assert (every[0] >= 0).any()


def test_large_ids_are_told_apart():
    """What their hash overflows to is no other's."""
    ids = torch.randint(2**31, (1, 2000), generator=torch.Generator().manual_seed(3))
    ids[0, 1500:1510] = ids[0, 100:110]
    (found,) = last_matches(ids, torch.arange(2000)[None], (4,))
    assert found[found >= 0].tolist() == list(range(103, 110))
    assert (found[0, 1503:1510] >= 0).all()


def test_the_longest_match_counts_and_has_its_own_gain_and_bias():
    matches = MatchesConfig(lengths=(1, 2)).build(d_model=2, num_layers=2)
    with torch.no_grad():
        matches.gains[1].fill_(10)
        matches.biases[0].fill_(0.5)
    ids = torch.tensor([[1, 2, 7, 2, 8, 1, 2]])
    positions = torch.arange(7)[None]
    row = matches.begin(lambda ids: ids[:, :, None].expand(-1, -1, 2).float(), ids, positions)
    # the last 2 was followed by 8, but after 1, 2 came 7; the second 2 by 7, by one token alone
    assert row[0, :, 0].tolist() == [0, 0, 0, 7.5, 0, 2.5, 70]


def test_blocks_have_shares_of_their_own():
    matches = MatchesConfig().build(d_model=2, num_layers=2)
    with torch.no_grad():
        matches.shares[1] = 3
    x, matched = torch.ones(1, 1, 2), torch.ones(1, 1, 2)
    assert matches.add(x, matched, 0)[0, 0, 0].item() == pytest.approx(1.1)
    assert matches.add(x, matched, 1)[0, 0, 0].item() == 4


@pytest.mark.parametrize("lengths", [(), (0, 3), (3, 3), (6, 3)])
def test_lengths_that_do_not_grow_are_refused(lengths):
    with pytest.raises(ValueError, match="do not grow"):
        MatchesConfig(lengths=lengths)
