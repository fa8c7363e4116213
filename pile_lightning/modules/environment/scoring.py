"""What the members of an environment score on held-out text, and what stands for all of them."""

import math

from torch import Tensor

from pile_lightning.batch import TokenBatch
from pile_lightning.checkpoint.ranks import gather
from pile_lightning.modules.environment.member import Member
from pile_lightning.modules.environment.telling import TellsOfMembers

__all__ = ["ScoresMembers"]


class ScoresMembers(TellsOfMembers):
    """Several models, each of which is scored."""

    def _scored(self) -> list[Member]:
        """Return those to score: one that was stopped costs nothing while others train."""
        return self.roster.training if self.trainer.state.fn == "fit" else list(self.roster)

    def _scored_here(self) -> list[Member]:
        return [member for member in self._scored() if member.here]

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores of each member."""
        nats: dict[str, Tensor] = {}
        for member in self._scored_here():
            nats[member.name] = member.module.token_nll(batch)
            member.module.add_scores(nats[member.name], batch)
        self.couplings.score(nats, batch)

    def test_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores of each member."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of each member, and under ``val/`` those of the best."""
        for member in self._scored_here():
            member.module.on_validation_epoch_end()
        self._log_best("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of each member, and under ``test/`` those of the best."""
        for member in self._scored_here():
            member.module.on_test_epoch_end()
        self._log_best("test")

    def _log_best(self, prefix: str) -> None:
        self._tell()
        scores = []
        for member in self._scored():
            loss, bits = (member.logged.pop(f"{prefix}/{n}") for n in ("loss", "bits_per_byte"))
            scores.append((bits, loss))
            if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
                member.fate.scored_step = self.trainer.global_step
                member.fate.loss, member.fate.bits_per_byte = loss, bits
        bits, loss = min(scores, key=lambda score: (math.isnan(score[0]), score[0]))
        best = {f"{prefix}/loss": loss, f"{prefix}/bits_per_byte": bits}
        together = self.couplings.scores(prefix)
        if self.is_spread:
            together = {name: score for each in gather(together) for name, score in each.items()}
        # equal on all ranks, so that their largest is exact; Lightning warns where it is not told
        # to reduce
        self.log_dict(best | together, sync_dist=True, reduce_fx="max")
        if prefix == "val":
            self.lend_best()
