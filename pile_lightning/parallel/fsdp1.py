"""Lightning's ``FSDPStrategy``, the first FSDP of torch, for networks made of our blocks."""

from typing import Any, Literal

from lightning.pytorch.strategies import FSDPStrategy

from pile_lightning.nn import Block, PostNormDecoderLayer, PostNormEncoderLayer

__all__ = ["BlockFSDPStrategy"]


class BlockFSDPStrategy(FSDPStrategy):
    """Shard block by block; Lightning by itself gathers the whole network at once.

    GPUs only, and no Muon: parameters are flattened, so that no rank knows a matrix. Where these
    matter, :class:`ShardedStrategy` does the same with FSDP2.

    Args:
        sharding_strategy: What is sharded, and over which ranks: torch's names.
        state_dict_type: One file from rank 0, or a directory of all ranks' parts.
        **settings: Other arguments of ``FSDPStrategy``.
    """

    def __init__(
        self,
        *,
        sharding_strategy: Literal[
            "FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "NO_SHARD"
        ] = "FULL_SHARD",
        state_dict_type: Literal["full", "sharded"] = "full",
        **settings: Any,
    ) -> None:
        super().__init__(
            auto_wrap_policy={Block, PostNormDecoderLayer, PostNormEncoderLayer},
            sharding_strategy=sharding_strategy,
            state_dict_type=state_dict_type,
            **settings,
        )
