"""The couplings of an environment at work: terms added to losses, and what is scored together."""

import torch
from lightning import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.metrics import BitsPerByte, Perplexity
from pile_lightning.modules.causal import CausalLM
from pile_lightning.modules.environment.coupling import Coupling
from pile_lightning.modules.environment.parse import check_member
from pile_lightning.modules.environment.roster import Roster
from pile_lightning.modules.scores import open_scores

__all__ = ["Couplings", "check_couplings", "refuse_sharding"]


def refuse_sharding(strategy: Strategy) -> None:
    """Refuse a strategy that spreads parameters over ranks.

    Raises:
        ValueError: For one that does.
    """
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        raise ValueError(
            f"{type(strategy).__name__} spreads one network over ranks, and an environment holds "
            f"many small ones; use trainer.strategy spread, or ddp"
        )


def check_couplings(couplings: list[Coupling], names: list[str]) -> None:
    """Refuse couplings of members that there are not.

    Raises:
        ValueError: For such a coupling, and for a second ensemble.
    """
    for coupling in couplings:
        for name in coupling.names:
            check_member(name, names, of=f"coupling {type(coupling).__name__}")
    if any(type(each).token_nll is not Coupling.token_nll for each in couplings) and (
        "ensemble" in names
    ):
        raise ValueError("a member is called 'ensemble', as what is scored together; rename it")


class Couplings:
    """All couplings of an environment.

    Args:
        couplings: Them.
        roster: The members.

    Raises:
        ValueError: For a member that there is not, or that gives no logits.
    """

    def __init__(self, couplings: list[Coupling], roster: Roster) -> None:
        check_couplings(couplings, [member.name for member in roster])
        self.couplings = couplings
        self.roster = roster
        self._asked = {name for each in couplings if each.wants_logits for name in each.names}
        self._frozen = [member.name for member in roster.frozen if member.name in self._asked]
        for coupling in couplings:
            for name in getattr(coupling, "students", ()):
                if roster[name].spec.frozen:
                    raise ValueError(
                        f"coupling {type(coupling).__name__} has {name!r} as a student, and it is "
                        f"frozen and learns nothing; leave it out, or let it train"
                    )
        for name in self._asked:
            module = roster[name].module
            if not isinstance(module, CausalLM):
                raise ValueError(
                    f"member {name!r} is coupled by its logits, which {type(module).__name__} has "
                    f"no method for; derive it from CausalLM"
                )
            # of one frozen there is no loss, and nothing to keep for its logits
            module.keeps_hidden = not roster[name].spec.frozen
        self._scores: tuple[BitsPerByte, Perplexity] | None = None

    def setup(self, trainer: Trainer) -> None:
        """Open the scores."""
        if any(type(each).token_nll is not Coupling.token_nll for each in self.couplings):
            self._scores = open_scores(trainer)

    def terms(self, names: list[str], batch: TokenBatch, *, progress: float) -> dict[str, Tensor]:
        """Return by name what couplings add to members' losses.

        Args:
            names: Of the members whose losses were computed.
            batch: What they were computed on, just now.
            progress: Share of the run's steps that were taken.
        """
        found: dict[str, Tensor] = {}
        begun = [each for each in self.couplings if each.wants_logits and progress >= each.begin]
        asked = {name for each in begun for name in each.names}
        logits = {name: self._logits(name, batch) for name in names if name in asked}
        if logits:
            with torch.no_grad():
                logits |= {
                    name: self._logits(name, batch)
                    for name in self._frozen
                    if name in asked and self.roster[name].here
                }
        for coupling in begun:
            own = {name: logits[name] for name in coupling.names if name in logits}
            for name, term in coupling.losses(own, batch).items():
                found[name] = found[name] + term if name in found else term
        return found

    def _logits(self, name: str, batch: TokenBatch) -> Tensor:
        module = self.roster[name].module
        assert isinstance(module, CausalLM)
        return module.logits(batch)

    def score(self, nats: dict[str, Tensor], batch: TokenBatch) -> None:
        """Add rows to the scores of what members make together."""
        for coupling in self.couplings:
            together = coupling.token_nll({n: nats[n] for n in coupling.names if n in nats})
            if together is None or self._scores is None:
                continue
            rows = together.sum(dim=1)
            bits_per_byte, perplexity = (each.to(rows.device) for each in self._scores)
            if "num_bytes" in batch:
                bits_per_byte.update(rows, batch["num_bytes"])
            perplexity.update(rows, (batch["labels"] != IGNORE_INDEX).sum(dim=1))

    def _are_here(self) -> bool:
        return all(
            self.roster[name].here
            for each in self.couplings
            if type(each).token_nll is not Coupling.token_nll
            for name in each.names
        )

    def scores(self, prefix: str) -> dict[str, Tensor]:
        """Return the scores of what members make together on this rank, and begin anew."""
        if self._scores is None or not self._are_here():
            return {}
        bits_per_byte, perplexity = self._scores
        found = {f"{prefix}/ensemble/loss": perplexity.compute().log().float()}
        if bits_per_byte.num_counted():
            found[f"{prefix}/ensemble/bits_per_byte"] = bits_per_byte.compute().float()
        bits_per_byte.reset()
        perplexity.reset()
        return found
