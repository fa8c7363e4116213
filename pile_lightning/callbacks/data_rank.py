"""Which rows a rank sees among all ranks: tensor-parallel peers see the same."""

from typing import NamedTuple

from lightning import Trainer

__all__ = ["DataRank"]


class DataRank(NamedTuple):
    """A rank's place among those that see different rows."""

    rank: int
    """Counted over different rows."""
    num_ranks: int
    """How many see different rows."""
    is_first_peer: bool
    """Whether this is the first of those that see the same rows."""

    @classmethod
    def of(cls, trainer: Trainer) -> "DataRank":
        """Return the place of this process."""
        ranks = trainer.distributed_sampler_kwargs or {}
        num_ranks = ranks.get("num_replicas", 1)
        num_peers = trainer.world_size // num_ranks
        return cls(ranks.get("rank", 0), num_ranks, trainer.global_rank % num_peers == 0)
