"""What an environment answers where one model is asked: its best member does."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

from lightning import Callback
from torch import Tensor

from pile_lightning.batch import TokenBatch
from pile_lightning.checkpoint.trainers import trainer_of_data
from pile_lightning.loop_state import LoopState
from pile_lightning.modules.bookkeeping import CheckWeights, add_missing
from pile_lightning.modules.environment.roster import Roster
from pile_lightning.modules.environment.split import split_checkpoint
from pile_lightning.modules.restorable import RestorableModule
from pile_lightning.nn import Counted

__all__ = ["SpeaksAsBest"]


class SpeaksAsBest(RestorableModule):
    """Several models, of which the best so far predicts and generates."""

    roster: Roster
    trainer = trainer_of_data

    def configure_callbacks(self) -> list[Callback]:
        """Return what checks weights and keeps progress; add callbacks of your own to these."""
        return add_missing(self.trainer, CheckWeights(), LoopState())

    @property
    def best(self) -> Any:
        """The module of the member with the best held-out score."""
        return self.roster.best().module

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return the logits of every position (batch, seq, vocab)."""
        logits: Tensor = self.best(batch)
        return logits

    def predict_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return the probabilities of the token after each row's last label (batch, vocab)."""
        probabilities: Tensor = self.best.predict_step(batch, batch_idx)
        return probabilities

    def stream(self, prompts: Any, *, max_new_tokens: int, **sampling: Any) -> Iterator[Tensor]:
        """Yield one new token (batch,) after another; see :meth:`CausalLM.stream`."""
        stream: Iterator[Tensor] = self.best.stream(
            prompts, max_new_tokens=max_new_tokens, **sampling
        )
        return stream

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, **settings: Any
    ) -> Iterator[Any]:
        """Yield what follows each of many prompts; see :meth:`CausalLM.complete`."""
        found: Iterator[Any] = self.best.complete(
            prompts, max_new_tokens=max_new_tokens, **settings
        )
        return found

    def generate(self, prompts: Any, **settings: Any) -> Tensor:
        """Return the tokens that continue the prompts; see :meth:`CausalLM.generate`."""
        tokens: Tensor = self.best.generate(prompts, **settings)
        return tokens

    def optimize_for_inference(self, **settings: Any) -> Self:
        """Lay out the weights of the best member; see :meth:`CausalLM.optimize_for_inference`."""
        self.best.optimize_for_inference(**settings)
        self.eval()
        return self

    def flops_per_token(self, seq_len: int) -> float:
        """Count the operations of training all that train on one token; see ``nn.Counted``."""
        networks: list[Any] = [member.module.network for member in self.roster.training]
        return sum(n.flops_per_token(seq_len) for n in networks if isinstance(n, Counted))

    def ranking(self) -> list[dict[str, Any]]:
        """Return a row a member, the best first: see :meth:`Roster.ranking`."""
        return self.roster.ranking()

    @staticmethod
    def split_checkpoint(checkpoint: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return a checkpoint of each member alone, made of the environment's."""
        return split_checkpoint(checkpoint)
