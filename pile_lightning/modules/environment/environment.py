"""Several models that train side by side on one stream, in one Trainer.

Each row is read, tokenized, packed and moved to the device once. The sum of the members' losses is
back-propagated: where they share no part, each gets the gradient that it would get alone. One
optimizer steps them all, so that steps, accumulation, logging and checkpoints are those of one
model. All else is each member's own, also its random numbers: alone and in the environment it comes
to the same weights, bit for bit.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pile_lightning.batch import IGNORE_INDEX, TokenBatch, check_batch
from pile_lightning.config import from_plain
from pile_lightning.modules.base import LanguageModule, check_from_data
from pile_lightning.modules.environment.coupling import Coupling
from pile_lightning.modules.environment.engines import Engine, Sequential
from pile_lightning.modules.environment.halving import Halving
from pile_lightning.modules.environment.member import Member
from pile_lightning.modules.environment.optimizers import joint_optimizer
from pile_lightning.modules.environment.roster import Roster, mean_losses
from pile_lightning.modules.environment.scoring import ScoresMembers
from pile_lightning.modules.environment.settings import KnowsSettings
from pile_lightning.modules.environment.sharing import SharedPart, as_shares
from pile_lightning.modules.environment.specs import (
    PlainDict,
    PlainList,
    check_takes_members,
    member_specs,
)
from pile_lightning.modules.environment.stacking import EngineName, build_engine
from pile_lightning.modules.environment.together import Couplings, refuse_sharding
from pile_lightning.modules.environment.vocabulary import check_vocabularies
from pile_lightning.modules.hooks import check_supers, overridden
from pile_lightning.parallel import num_step_ranks

__all__ = ["Environment"]


class Environment(ScoresMembers, KnowsSettings):
    """Named models, each trained as it would be alone, in one run.

    Args:
        members: For each name a ``class_path`` with ``init_args``, and perhaps a ``seed`` and a
            ``gradient_clip_val`` of its own; in Python a module will do. ``weights`` names a run, a
            checkpoint or a folder of Hugging Face's to begin with, which says what is left out;
            with ``frozen: true`` it stays so, is scored, and may be imitated.
        vocab_size: Number of token ids; from the command line it comes from the data.
        max_seq_len: Longest context in tokens; from the command line it comes from the data.
        base: What all members of a sweep have: ``class_path`` and ``init_args``.
        sweep: Values to try for each field, such as ``optimizer.lr: [0.01, 0.02]``, of which all
            combinations become members; or a list of settings.
        coupling: What members learn from one another.
        share: Parts of their networks that several members have in common, such as
            ``{part: blocks, members: [one, two]}``: trained by the losses of all of them.
        halving: When the worst members stop.
        engine: How losses are computed: ``sequential`` takes one member after another, each bit for
            bit as it would be alone; ``stacked`` those of one shape as one, equal but for rounding;
            ``auto`` times both on the first batch.

    Raises:
        TypeError: For a sub-class that overrides a hook without ``super()``.
        ValueError: For members that there cannot be, couplings of those that there are not, and
            parts that cannot be shared.

    Example:
        >>> from pile_lightning import CausalLM, DecoderConfig
        >>> member = {"class_path": "CausalLM", "init_args": {"network": {"d_model": 32}}}
        >>> environment = Environment(
        ...     base=member, sweep={"optimizer.lr": [0.01, 0.02]}, vocab_size=65, max_seq_len=16
        ... )
        >>> [member.name for member in environment.roster]
        ['lr=0.01', 'lr=0.02']
    """

    kept_plain = ("members", "base", "sweep")

    def __init__(
        self,
        members: PlainDict | None = None,
        *,
        vocab_size: int,
        max_seq_len: int,
        base: PlainDict | None = None,
        sweep: PlainDict | PlainList | None = None,
        coupling: list[Coupling] | None = None,
        share: list[SharedPart] | None = None,
        halving: Halving | None = None,
        engine: EngineName = "sequential",
    ) -> None:
        super().__init__()
        check_supers(type(self), base=Environment, hooks=_OURS)
        check_from_data(vocab_size=vocab_size, max_seq_len=max_seq_len)
        specs = member_specs(members, base, sweep)
        self.hparams.update(vocab_size=vocab_size, max_seq_len=max_seq_len, coupling=coupling)
        # expanded: what a checkpoint's members are must not hang on how a sweep is read
        self.store_as("members", members, {name: spec.plain() for name, spec in specs.items()})
        self.store_as("base", base, None)
        self.store_as("sweep", sweep, None)
        self.roster = Roster(
            [
                Member(
                    name,
                    spec,
                    vocab_size=vocab_size,
                    max_seq_len=max_seq_len,
                    module=given if isinstance(given, LanguageModule) else None,
                )
                for name, spec in specs.items()
                for given in [(members or {}).get(name)]
            ],
            as_shares(share),
        )
        self.members = nn.ModuleDict(_by_key(self.roster))
        self.couplings = Couplings(from_plain(coupling or []), self.roster)
        self.halving: Halving | None = from_plain(halving)
        self.engine_name = engine
        self.engine: Engine = Sequential()
        self._engine_state: dict[str, Any] = {}
        self._halvings = 0

    def keep_arguments(self, given: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
        """Make the members the hyper-parameters, also those of a sweep."""
        check_takes_members(type(self), given)
        super().keep_arguments({"members": None, **given}, {"members": None, **noted})

    # -- building ---------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Attach the members to the trainer, and open their metrics."""
        refuse_sharding(self.trainer.strategy)
        self.check_ranks()
        check_vocabularies(self.roster, self.trainer)
        for member in self.roster:
            member.module.trainer = self.trainer
            member.module.log_to = partial(self._log_of, member)
            member.module.open_scores()
            member.module.setup(stage)
        self.couplings.setup(self.trainer)

    def configure_model(self) -> None:
        """Build the networks of this rank, each with the weights that it would have alone."""
        self.place_members()
        for member in self.roster:
            if member.here:
                member.configure_model()
        self.roster.sharing.tie()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the members, but for the frozen ones: they drop nothing out."""
        super().train(mode)
        for member in self.roster.frozen:
            member.module.eval()
        return self

    def configure_optimizers(self) -> dict[str, Any]:
        """Join the members' optimizers and schedules."""
        trained = [member for member in self.roster if not member.spec.frozen]
        return joint_optimizer(trained, together=self.engine_name != "sequential")

    # -- training ---------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Open the members' counters.

        Raises:
            ValueError: Where none of them trains any more.
        """
        if not self.roster.training:
            raise ValueError(
                "all members of this environment were stopped, and there is nothing left to train; "
                "begin anew, or take one on by itself, from its folder in members/"
            )
        for member in self.roster:
            if member.here:
                member.module.open_counters()
                member.module.on_train_start()
            member.watch()
        for member in self.roster.frozen:
            member.module.eval()
        self.engine = build_engine(self.engine_name, self.trainer)
        self.engine.load_state_dict(self._engine_state)

    def on_train_batch_start(self, batch: TokenBatch, batch_idx: int) -> None:
        """Stop the worst members where it is time: after the validation of that step."""
        if self.halving is None or batch_idx % self.trainer.accumulate_grad_batches:
            return
        due = sum(step <= self.trainer.global_step for step in self.halving.at)
        for _ in range(self._halvings, due):
            losses = mean_losses(self.roster.training, self.trainer)
            self.roster.halve(self.trainer.global_step, keep=self.halving.keep, losses=losses)
        self._halvings = due

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return the sum of what the members would back-propagate."""
        check_batch(batch, look_inside=batch_idx == 0)
        num_tokens = (batch["labels"] != IGNORE_INDEX).sum()
        self.engine.prepare(self.roster.training_here, batch)
        losses: dict[str, Tensor] = {}
        for name, loss in self.engine.losses(self.roster.computing, batch).items():
            if isinstance(loss, Exception):
                self.roster.fail(name, loss)
            else:
                losses[name] = loss
                self.roster[name].losses.append(loss.detach())
        progress = self.trainer.global_step / self.trainer.max_steps
        terms = self.couplings.terms(list(losses), batch, progress=progress)
        parts = [
            self.roster[name].module.token_mean.add(loss, num_tokens, more=terms.get(name))
            for name, loss in losses.items()
        ]
        if self.halving is not None:
            for name, loss in losses.items():
                self.roster[name].follow(loss.detach() / num_tokens.clamp(min=1))
        if num_step_ranks(self.trainer) > 1:
            # ddp waits for a gradient of every parameter, on every rank
            idle = [member for member in self.roster if member.name not in losses]
            parts += [zero for member in idle for zero in member.untouched()]
        if not parts and not self.is_spread:
            self.roster.judge(self.trainer)
        if not parts:  # other ranks may have some, and all of them come to the step
            return torch.zeros((), device=self.device, requires_grad=True)
        return torch.stack(parts).sum()

    def skip_at_most(self, in_a_row: int) -> None:
        """Stop a member after so many skipped steps in a row."""
        self.roster.most_skipped = in_a_row

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Drop the gradients of those that fail, and divide the others' by their tokens."""
        self.roster.judge(self.trainer)
        self.roster.sharing.carry()
        for member in self.roster:
            if not member.trains:
                member.gradients.drop()  # zeros, of ddp, would decay weights and move momenta
        for member in self.roster.training_here:
            member.module.divide_gradients()
            member.module.on_before_optimizer_step(member.optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each member by the norm of its own gradients."""
        for member in self.roster.training_here:
            own = member.spec.gradient_clip_val
            member.module.configure_gradient_clipping(
                member.optimizer,
                gradient_clip_val if own is None else own,
                gradient_clip_algorithm,
            )

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        """Let the members log, and log what the leading one has."""
        trainer = self.trainer
        for member in self.roster.training_here:
            member.module.log_training(None, batch_idx)
            member.module.on_train_batch_end(outputs, batch, batch_idx)
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:
            self._tell()
        self._log_leading()

    def on_predict_start(self) -> None:
        """Bring the best member to where it predicts."""
        self.lend_best()

    # -- checkpoints ------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how the members fare."""
        checkpoint["environment"] = {
            "members": self.roster.state_dict(),
            "halvings": self._halvings,
            "engine": self.engine.state_dict(),
            "left_out": {m.name: m.left_out for m in self.roster if m.borrowed},
            "num_groups": {
                m.name: len(m.optimizer.param_groups) for m in self.roster if not m.spec.frozen
            },
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from how the members fared."""
        state = checkpoint["environment"]
        self.roster.load_state_dict(state["members"])
        self._halvings = state["halvings"]
        self._engine_state = state["engine"]


_OURS = [name for name in overridden(Environment) if name != "predict_step"]
"""The hooks that an environment works in."""


def _by_key(roster: Roster) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {}
    for member in roster:
        if member.key in modules:
            raise ValueError(
                f"member {member.name!r} has the name of another but for dots, which parameters' "
                f"names have in their place as _; rename one"
            )
        modules[member.key] = member.module
    return modules
