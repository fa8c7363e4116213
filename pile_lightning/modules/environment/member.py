"""One of the models of an environment, and how it fares."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.optim import Optimizer

from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.environment.random_stream import RandomStream
from pile_lightning.modules.environment.specs import MemberSpec
from pile_lightning.modules.environment.weights import read_weights
from pile_lightning.modules.hooks import overridden
from pile_lightning.nn import stop_waiting, weights_follow
from pile_lightning.optim import NonFiniteGradients

__all__ = ["Fate", "Member"]

_BAD_LOSS = 1e9

_CALLED = {
    "configure_gradient_clipping",
    "configure_model",
    "configure_optimizers",
    "on_before_optimizer_step",
    "on_test_epoch_end",
    "on_train_batch_end",
    "on_train_start",
    "on_validation_epoch_end",
    "predict_step",
    "setup",
}
"""The hooks of a member that an environment calls."""

_INSTEAD = {
    "training_step": "say what it computes by loss_sum",
    "validation_step": "say what it computes by token_nll",
    "test_step": "say what it computes by token_nll",
}


@dataclass
class Fate:
    """What has become of a member: plain data in the checkpoint."""

    stopped_step: int | None = None
    """Step whose weights a stopped member keeps; None while it trains."""
    reason: str | None = None
    """Why it was stopped."""
    skipped_steps: int = 0
    """Steps left out because a loss or gradient was not finite."""
    in_a_row: int = 0
    """The latest of them that followed one another."""
    scored_step: int | None = None
    """Step of the latest validation."""
    loss: float = math.nan
    """Its held-out loss, in nats a token."""
    bits_per_byte: float = math.nan
    """Its held-out bits per byte."""
    trend: float | None = None
    """Its training loss, smoothed, where that decides who stops."""


def in_order(bits_per_byte: float, loss: float) -> tuple[bool, float, float]:
    """Return what sorts scores, the best first and those that are none last.

    Members read the same text, so that bits per byte and loss have one order; without bytes in the
    batches there is only the loss.

    Example:
        >>> scores = [(math.nan, 2.0), (math.nan, math.nan), (math.nan, 1.0)]
        >>> sorted(scores, key=lambda score: in_order(*score))
        [(nan, 1.0), (nan, 2.0), (nan, nan)]
    """
    score = loss if math.isnan(bits_per_byte) else bits_per_byte
    return not math.isfinite(score), score, loss


class Member:
    """A language module with a seed and a stream of random numbers of its own.

    Args:
        name: Its name.
        spec: What it is.
        vocab_size: Number of token ids.
        max_seq_len: Longest context in tokens.
        module: The module, where it is made already.
    """

    def __init__(
        self,
        name: str,
        spec: MemberSpec,
        *,
        vocab_size: int,
        max_seq_len: int,
        module: LanguageModule | None = None,
    ) -> None:
        for field, value in (("vocab_size", vocab_size), ("max_seq_len", max_seq_len)):
            asked = spec.from_data.get(field, value)
            if asked != value if field == "vocab_size" else asked < value:
                remedy = f"leave {field} out, or train this member in a run of its own"
                if spec.weights is not None:
                    remedy = f"give the data the tokenizer and the seq_len of {spec.weights}"
                raise ValueError(
                    f"member {name!r} has {field}={asked}, and the one stream that all members "
                    f"read has {value}: they share its tokenizer and its rows; {remedy}"
                )
        self.name = name
        self.spec = spec
        self.fate = Fate()
        # what seed_everything has set is the seed of a model alone
        self.seed = torch.initial_seed() if spec.seed is None else spec.seed
        self.stream = RandomStream(self.seed)
        if module is None:
            with self.stream.built():
                module = spec.build(
                    vocab_size=vocab_size,
                    max_seq_len=spec.from_data.get("max_seq_len", max_seq_len),
                )
        _check_hooks(name, type(module))
        self.module = module
        self.here = True
        """Whether this rank trains it."""
        self.lent = False
        """Whether it is whole here though another rank trains it."""
        self._is_outline = False
        self.shared: set[nn.Parameter] = set()
        """Parameters that others have too."""
        self.borrowed: set[nn.Parameter] = set()
        """Those of them that another's optimizer steps."""
        self.left_out: list[list[int]] = []
        """Where these would be in each group of its own optimizer."""
        self.losses: list[Tensor] = []
        """Of the micro-batches of this step."""
        self.trend: Tensor | None = None
        """Training loss, smoothed over some twenty batches."""
        self.logged: dict[str, float] = {}
        """Losses and scores that it has logged and nobody has looked at."""
        self.train_metrics: set[str] = set()
        """What it logs in training."""

    @property
    def key(self) -> str:
        """What the module is called among the environment's, where a dot would part names."""
        return self.name.replace(".", "_")

    @property
    def trains(self) -> bool:
        """Whether it was not stopped, and is not frozen."""
        return self.fate.stopped_step is None and not self.spec.frozen

    @property
    def optimizer(self) -> Optimizer:
        """What steps it, once it is made."""
        assert self.module.own_optimizer is not None
        return self.module.own_optimizer

    def configure_model(self) -> None:
        """Build the network, with the weights that it would have alone, or those from elsewhere."""
        self._forget_outline()
        if self.module.network is None:
            with self.stream.built():
                self.module.configure_model()
            if self.spec.weights is not None:
                read_weights(self.module, self.spec.weights, of=f"member {self.name!r}")
        if self.spec.frozen:
            self.module.requires_grad_(False)
            # until training starts: Lightning warns of what is in the other mode then
            self.module.train()

    def outline(self) -> None:
        """Build the network without memory, if it can be built so: it has names and sizes."""
        if self.lent:
            self.module.network, self.lent = None, False
        if self.module.network is not None:
            return
        with isolate_rng():
            try:
                with torch.device("meta"):
                    self.module.configure_model()
                self._is_outline = True
            except Exception:  # it looks at numbers while it is made, or there is an error to show
                self.module.network = None
                self.module.configure_model()
        stop_waiting(self.module)  # nothing is computed with them here

    def borrow(self, device: torch.device) -> None:
        """Build the network of a member of another rank, for its weights to be put in.

        Args:
            device: Where to.
        """
        self._forget_outline()
        with isolate_rng(), device, weights_follow():
            self.module.configure_model()
        stop_waiting(self.module)
        self.lent = True

    def _forget_outline(self) -> None:
        if self._is_outline:
            self.module.network, self._is_outline = None, False

    def watch(self) -> None:
        """Prepare to look for gradients that are not finite, of what it has for itself."""
        self.losses.clear()
        own = (p for p in self.module.parameters() if p not in self.shared)
        self.gradients = NonFiniteGradients(own)

    def num_parameters(self) -> int:
        """Count the parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def is_bad(self) -> Tensor:
        """Return whether a loss or gradient of this step is not finite, on the device."""
        losses, self.losses = self.losses, []
        return self.gradients.found().bool() | ~torch.stack(losses).isfinite().all()

    def follow(self, loss: Tensor) -> None:
        """Take a batch's mean loss into the smoothed one."""
        finite = loss.nan_to_num(nan=_BAD_LOSS, posinf=_BAD_LOSS)
        if self.trend is None:
            self.trend = finite.clone()
        else:
            self.trend.lerp_(finite, 0.05)

    def untouched(self) -> list[Tensor]:
        """Return a zero of each parameter: a gradient of zeros for those who wait for one."""
        return [_nothing_of(p) for p in self.module.parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """Return how it fares and where its random numbers are."""
        self.fate.trend = None if self.trend is None else float(self.trend)
        module = self.module
        mean = module.restored_mean
        if mean is None and self.here and hasattr(module, "token_mean"):
            mean = module.token_mean.state_dict()
        return {
            "fate": dict(vars(self.fate)),
            "random": self.stream.state_dict(),
            "token_mean": mean,
            "train_metrics": sorted(self.train_metrics),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.fate = Fate(**state["fate"])
        if self.fate.trend is not None:
            self.trend = torch.tensor(self.fate.trend, device=self.module.device)
        self.stream.load_state_dict(state["random"])
        self.module.restored_mean = state.get("token_mean")
        self.train_metrics = set(state.get("train_metrics", ()))


def _check_hooks(name: str, kind: type) -> None:
    """Refuse a hook of a member's own that would never be called."""
    for hook in overridden(kind, base=LanguageModule):
        if hook not in _CALLED:
            instead = _INSTEAD.get(hook, "override it in a sub-class of Environment")
            raise ValueError(
                f"member {name!r}: {kind.__name__} overrides {hook}, which an environment "
                f"does not call; {instead}"
            )


def _nothing_of(parameter: nn.Parameter) -> Tensor:
    # of no element: of one element times zero, what is not finite would stay so
    return parameter.flatten()[:0].sum()
