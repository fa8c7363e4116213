"""What the members of an environment score on held-out text, and what stands for all of them."""

import math

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from pile_lightning.batch import TokenBatch, check_batch
from pile_lightning.checkpoint.ranks import gather
from pile_lightning.modules.environment.failing import agree
from pile_lightning.modules.environment.member import Member, in_order
from pile_lightning.modules.environment.telling import TellsOfMembers

__all__ = ["ScoresMembers"]


class ScoresMembers(TellsOfMembers):
    """Several models, each of which is scored; one that fails in it does not keep the others."""

    def _scored(self) -> list[Member]:
        """Return those to score: one that was stopped costs nothing while others train."""
        every = self.trainer.state.fn != "fit"
        return [
            member
            for member in self.roster
            if (every or member.trains or member.spec.frozen) and member.name not in self._unscored
        ]

    def on_validation_epoch_start(self) -> None:
        """Forget who failed the last time."""
        self._errors: dict[str, Exception] = {}
        """By name, what went wrong in this validation, on this rank."""
        self._unscored: set[str] = set()
        """Those that failed in this validation, on any rank."""

    def on_test_epoch_start(self) -> None:
        """Forget who failed the last time."""
        self.on_validation_epoch_start()

    def _scored_here(self) -> list[Member]:
        return [member for member in self._scored() if member.here]

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores of each member."""
        check_batch(batch, look_inside=batch_idx == 0)
        nats: dict[str, Tensor] = {}
        for member in self._scored_here():
            if member.name in self._errors:
                continue
            try:
                token_nll = member.module.token_nll(batch)
                member.module.add_scores(token_nll, batch)
            except Exception as error:  # a user's own network may raise anything
                self._errors[member.name] = error
            else:
                nats[member.name] = token_nll
        self.couplings.score(nats, batch)

    def test_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores of each member."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of each member, and under ``val/`` those of the best.

        Raises:
            RuntimeError: Where no member could be scored, or the last that trains could not.
        """
        self._leave_out_failed()
        for member in self._scored_here():
            member.module.log_scores("val")
            member.module.on_validation_epoch_end()
        self._log_best("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of each member, and under ``test/`` those of the best.

        Raises:
            RuntimeError: Where no member could be scored.
        """
        self._leave_out_failed()
        for member in self._scored_here():
            member.module.log_scores("test")
            member.module.on_test_epoch_end()
        self._log_best("test")

    def _leave_out_failed(self) -> None:
        """Score no further who failed on any rank, and in training stop them: on all ranks alike.

        What their metrics hold is dropped, as adding it up over ranks waits for all of them.
        """
        scored = self._scored()
        reasons = agree(self._errors, [member.name for member in scored], self.trainer)
        if not reasons:
            return
        for member in scored:
            if member.name in reasons:
                member.module.perplexity.reset()
                member.module.bits_per_byte.reset()
        self._unscored = set(reasons)
        if self.trainer.state.fn == "fit":
            self.roster.stop_failed(reasons, self._errors, step=self.trainer.global_step)
        elif not self._scored():
            name = next(iter(reasons))
            message = f"no member could be scored; {name!r} failed with {reasons[name]}"
            raise RuntimeError(message) from self._errors.get(name)
        else:
            for name, reason in reasons.items():
                rank_zero_warn(f"member {name!r} could not be scored, unlike the others: {reason}")

    def _log_best(self, prefix: str) -> None:
        self._tell()
        scores = []
        for member in self._scored():
            loss, bits = (
                member.logged.pop(f"{prefix}/{score}", math.nan)
                for score in ("loss", "bits_per_byte")
            )
            if not member.spec.frozen:
                scores.append((bits, loss))
            if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
                member.fate.scored_step = self.trainer.global_step
                member.fate.loss, member.fate.bits_per_byte = loss, bits
        bits, loss = min(scores or [(math.nan, math.nan)], key=lambda each: in_order(*each))
        best = {f"{prefix}/loss": loss}
        if not math.isnan(bits) or math.isnan(loss):
            best[f"{prefix}/bits_per_byte"] = bits
        together = self.couplings.scores(prefix)
        if self.is_spread:
            together = {name: score for each in gather(together) for name, score in each.items()}
        # equal on all ranks, so that their largest is exact; Lightning warns where it is not told
        # to reduce
        self.log_dict(best | together, sync_dist=True, reduce_fx="max")
        if prefix == "val":
            self.lend_best()
