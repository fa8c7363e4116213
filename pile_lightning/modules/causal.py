"""Causal language modelling: predict each token from those before it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.modules.base import LanguageModule
from pile_lightning.nn import (
    ChunkedHead,
    DecoderConfig,
    NetworkConfig,
    cross_entropy_sum,
    generate,
    linear_cross_entropy,
)
from pile_lightning.optim import LinearConfig, MuonConfig, OptimizerConfig, ScheduleConfig
from pile_lightning.parallel import Recompute

__all__ = ["CausalLM"]


class CausalLM(LanguageModule):
    """A causal language model.

    Args:
        network: Architecture; built in ``configure_model``.
        vocab_size: Number of token ids; from the command line it comes from the data.
        max_seq_len: Longest context in tokens; from the command line it comes from the data.
        optimizer: What steps the parameters.
        schedule: Factor on its learning rates as a function of the optimizer step.
        compile: Compile the network's blocks; without a C++ compiler it says so and goes on.
        activation_checkpointing: How much of the forward is computed again in the backward.

    Example:
        >>> model = CausalLM(DecoderConfig(d_model=32, num_layers=1), vocab_size=65, max_seq_len=16)
        >>> model.generate(torch.zeros(2, 4, dtype=torch.long), max_new_tokens=3).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        network: NetworkConfig = DecoderConfig(),
        *,
        vocab_size: int,
        max_seq_len: int,
        optimizer: OptimizerConfig = MuonConfig(),
        schedule: ScheduleConfig = LinearConfig(),
        compile: bool = False,
        activation_checkpointing: Recompute = "none",
    ) -> None:
        super().__init__(
            network,
            vocab_size=vocab_size,
            max_seq_len=max_seq_len,
            optimizer=optimizer,
            schedule=schedule,
            compile=compile,
            activation_checkpointing=activation_checkpointing,
        )

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return the logits of every position (batch, seq, vocab)."""
        logits: Tensor = self.built_network(batch["input_ids"], **_where(batch))
        return logits

    def loss_sum(self, batch: TokenBatch) -> Tensor:
        """Return the summed negative log-likelihood of the labels, in nats."""
        return self._cross_entropy(batch, "sum")

    def token_nll(self, batch: TokenBatch) -> Tensor:
        """Return the nats of each label (batch, seq), 0 where ignored."""
        return self._cross_entropy(batch, "none")

    def _cross_entropy(self, batch: TokenBatch, reduction: Any) -> Tensor:
        network = self.built_network
        if not isinstance(network, ChunkedHead):
            return cross_entropy_sum(self(batch), batch["labels"], reduction=reduction)
        hidden = network.hidden(batch["input_ids"], **_where(batch))
        return linear_cross_entropy(
            hidden,
            network.head_weight,
            batch["labels"],
            reduction=reduction,
            compile=self.compiles,
        )

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return the probabilities of the token after each row's last label (batch, vocab)."""
        known = batch["labels"] != IGNORE_INDEX
        last = (known * torch.arange(known.shape[1], device=known.device)).argmax(dim=1)
        logits: Tensor = self(batch)[torch.arange(len(last), device=last.device), last]
        return logits.float().softmax(dim=-1)

    def stream(
        self, input_ids: Tensor, *, max_new_tokens: int, **sampling: Any
    ) -> Iterator[Tensor]:
        """Yield one new token (batch,) after another.

        Args:
            input_ids: Prompts of one length (batch, prompt).
            max_new_tokens: Tokens to add at most.
            **sampling: ``temperature``, ``top_k``, ``top_p``, ``generator``, ``stop_ids``: see
                :func:`pile_lightning.nn.generate`.
        """
        return generate(
            self.built_network,
            input_ids,
            max_new_tokens=max_new_tokens,
            max_seq_len=self.max_seq_len,
            **sampling,
        )

    def generate(
        self,
        input_ids: Tensor,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        stop_ids: Sequence[int] = (),
    ) -> Tensor:
        """Return the tokens that continue ``input_ids`` (batch, new), with the key-value cache.

        Raises:
            ValueError: For a prompt longer than the context, or a sampling value out of range.
        """
        tokens = self.stream(
            input_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=generator,
            stop_ids=stop_ids,
        )
        return torch.stack(list(tokens), dim=1)


def _where(batch: TokenBatch) -> dict[str, Tensor | None]:
    return {"position_ids": batch["position_ids"], "document_ids": batch["document_ids"]}
