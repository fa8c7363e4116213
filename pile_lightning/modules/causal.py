"""Causal language modelling: predict each token from those before it."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.modules.base import LanguageModule
from pile_lightning.nn import (
    CappedHead,
    ChunkedHead,
    Completion,
    DecoderConfig,
    NetworkConfig,
    Quantization,
    cap_logits,
    complete,
    cross_entropy_sum,
    fast_dtype,
    generate,
    linear_cross_entropy,
    optimize_for_inference,
)
from pile_lightning.nn.checks import check_weight
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
        z_loss: Weight of the squared log-sum-exp of the logits, which training minimises beside the
            negative log-likelihood (1e-4 in PaLM); scores are without it.

    Raises:
        ValueError: For a negative ``z_loss``.

    Example:
        >>> model = CausalLM(DecoderConfig(d_model=32, num_layers=1), vocab_size=65, max_seq_len=16)
        >>> prompts = [torch.tensor([1, 2, 3]), torch.tensor([4])]
        >>> model.generate(prompts, max_new_tokens=5).shape
        torch.Size([2, 5])
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
        z_loss: float = 0.0,
    ) -> None:
        check_weight(z_loss=z_loss)
        super().__init__(
            network,
            vocab_size=vocab_size,
            max_seq_len=max_seq_len,
            optimizer=optimizer,
            schedule=schedule,
            compile=compile,
            activation_checkpointing=activation_checkpointing,
        )
        self.z_loss = z_loss
        self.keeps_hidden = False
        """Whether what is computed for the loss of a batch is kept for ``logits`` of it."""
        self._kept: tuple[TokenBatch, Tensor] | None = None

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return the logits of every position (batch, seq, vocab)."""
        logits: Tensor = self.built_network(batch["input_ids"], **_where(batch))
        return logits

    def loss_sum(self, batch: TokenBatch) -> Tensor:
        """Return the summed negative log-likelihood of the labels, in nats, and the z-loss."""
        return self._cross_entropy(batch, "sum", z_loss=self.z_loss)

    def token_nll(self, batch: TokenBatch) -> Tensor:
        """Return the nats of each label (batch, seq), 0 where ignored."""
        return self._cross_entropy(batch, "none")

    def _cross_entropy(self, batch: TokenBatch, reduction: Any, *, z_loss: float = 0.0) -> Tensor:
        network = self.built_network
        hidden = self._hidden(batch)
        if not isinstance(network, ChunkedHead):
            return cross_entropy_sum(hidden, batch["labels"], reduction=reduction, z_loss=z_loss)
        return linear_cross_entropy(
            hidden,
            network.head_weight,
            batch["labels"],
            reduction=reduction,
            compile=self.compiles,
            logit_cap=network.logit_cap if isinstance(network, CappedHead) else None,
            z_loss=z_loss,
        )

    def _hidden(self, batch: TokenBatch) -> Tensor:
        """Compute what the head is applied to, or the logits of a network without such a head."""
        network = self.built_network
        compute = network.hidden if isinstance(network, ChunkedHead) else network
        hidden: Tensor = compute(batch["input_ids"], **_where(batch))
        if self.keeps_hidden:
            self._kept = batch, hidden
        return hidden

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return the logits (batch, seq, vocab), once, from what the loss was computed from."""
        kept, self._kept = self._kept, None
        hidden = kept[1] if kept is not None and kept[0] is batch else self._hidden(batch)
        network = self.built_network
        if not isinstance(network, ChunkedHead):
            return hidden
        cap = network.logit_cap if isinstance(network, CappedHead) else None
        return cap_logits(hidden @ network.head_weight.T, cap)

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return the probabilities of the token after each row's last label (batch, vocab)."""
        known = batch["labels"] != IGNORE_INDEX
        last = (known * torch.arange(known.shape[1], device=known.device)).argmax(dim=1)
        logits: Tensor = self(batch)[torch.arange(len(last), device=last.device), last]
        return logits.float().softmax(dim=-1)

    def stream(
        self, prompts: Tensor | Sequence[Tensor], *, max_new_tokens: int, **sampling: Any
    ) -> Iterator[Tensor]:
        """Yield one new token (batch,) after another.

        Args:
            prompts: Ids (batch, seq), or a (seq,) for each row, of any lengths.
            max_new_tokens: Tokens to add at most.
            **sampling: ``temperature``, ``top_k``, ``top_p``, ``dry_multiplier``, ``generator``,
                ``stop_ids``: see :func:`pile_lightning.nn.generate`.
        """
        return generate(
            self.built_network,
            prompts,
            max_new_tokens=max_new_tokens,
            max_seq_len=self.max_seq_len,
            **sampling,
        )

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, **settings: Any
    ) -> Iterator[Completion]:
        """Yield what follows each of many prompts, as soon as it is whole.

        Args:
            prompts: The ids of each, of any length from one token on.
            max_new_tokens: Tokens to add to each at most.
            **settings: ``batch_size``, ``temperature``, ``top_k``, ``top_p``, ``dry_multiplier``,
                ``seed``, ``ended``: see :func:`pile_lightning.nn.complete`.
        """
        return complete(
            self.built_network,
            prompts,
            max_new_tokens=max_new_tokens,
            max_seq_len=self.max_seq_len,
            device=self.device,
            **settings,
        )

    def generate(
        self,
        prompts: Tensor | Sequence[Tensor],
        *,
        max_new_tokens: int,
        generator: torch.Generator | None = None,
        stop_ids: Sequence[int] = (),
        **sampling: Any,
    ) -> Tensor:
        """Return the tokens that continue the prompts (batch, new), with the key-value cache.

        Args:
            prompts: Ids (batch, seq), or a (seq,) for each row, of any lengths: what follows a
                prompt does not depend on the others.
            max_new_tokens: Tokens to add at most.
            generator: Where the randomness comes from.
            stop_ids: A row that draws one of these repeats it to the end.
            **sampling: ``temperature``, ``top_k``, ``top_p``, ``dry_multiplier``: see
                :class:`pile_lightning.nn.Sampling`.

        Raises:
            ValueError: For a prompt longer than the context, or a sampling value out of range.
        """
        tokens = self.stream(
            prompts,
            max_new_tokens=max_new_tokens,
            generator=generator,
            stop_ids=stop_ids,
            **sampling,
        )
        found = list(tokens)
        if not found:
            return torch.empty(len(prompts), 0, dtype=torch.long, device=prompts[0].device)
        return torch.stack(found, dim=1)

    def optimize_for_inference(
        self, *, dtype: torch.dtype | None = None, quantize: Quantization = "none"
    ) -> Self:
        """Cast and lay out the weights for generation, in place and for good.

        Args:
            dtype: What weights become; ``None`` for bf16 where the device multiplies it faster.
            quantize: ``int8`` rounds the weights of linear layers to one byte.

        Returns:
            This model, which cannot be trained any more.

        Raises:
            ValueError: If the network is spread over ranks, or ``quantize`` is unknown.
        """
        chosen = fast_dtype(self.device) if dtype is None else dtype
        optimize_for_inference(self.built_network, dtype=chosen, quantize=quantize)
        self.eval()
        return self


def _where(batch: TokenBatch) -> dict[str, Tensor | None]:
    return {
        "position_ids": batch.get("position_ids"),
        "document_ids": batch.get("document_ids"),
    }
