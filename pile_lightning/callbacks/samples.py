"""Text from the model, kept by step while it trains."""

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from pile_lightning.callbacks.continuation import TextCodec, continue_text
from pile_lightning.callbacks.side_files import SideFiles
from pile_lightning.whole_file import write_file

__all__ = ["Samples"]


class Samples(Callback):
    """Write ``samples/step-<n>.txt`` in the run's folder at each validation.

    Args:
        prompts: Openings to continue; none for no samples.
        max_new_tokens: Tokens to add to each.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw among so many likeliest tokens.
        top_p: Draw among the likeliest tokens that together have this probability.
        dry_multiplier: How much less likely a token is that goes on with a repeat.
        seed: Of the draws, the same at each step.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        max_new_tokens: int = 120,
        temperature: float = 1.0,
        top_k: int | None = 50,
        top_p: float | None = 0.95,
        dry_multiplier: float = 0.4,
        seed: int = 0,
    ) -> None:
        self.prompts = [""] if prompts is None else prompts
        self.max_new_tokens = max_new_tokens
        self.sampling: dict[str, Any] = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "dry_multiplier": dry_multiplier,
        }
        self.seed = seed
        self.latest: str | None = None
        self._files = SideFiles()

    def state_dict(self) -> dict[str, Any]:
        """Return the latest sample, for the table that a run ends with."""
        return {"latest": self.latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.latest = state_dict["latest"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the samples, which are not drawn yet, so that no mistake costs an hour.

        Raises:
            ValueError: For a prompt longer than the context, or a setting out of range.
        """
        self._texts(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue each prompt and write what came."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:
            return
        texts = ["".join(text) for text in self._texts(trainer, pl_module)]
        if not texts:
            return
        self.latest = texts[0]
        folder = Path(trainer.log_dir or trainer.default_root_dir, "samples")
        if trainer.is_global_zero:
            rule = "\n" + "-" * 80 + "\n"
            path = folder / f"step-{trainer.global_step:06d}.txt"
            self._files.write(path, partial(write_file, path, rule.join(texts) + "\n"))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what could not be written before."""
        self._files.retry()

    def _texts(self, trainer: Trainer, model: Any) -> list[Iterator[str]]:
        """Return each prompt and what continues it; none for a model that is not asked for text."""
        codec: TextCodec | None = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if codec is None or not hasattr(model, "stream"):
            return []
        settings = {"max_new_tokens": self.max_new_tokens, "seed": self.seed, **self.sampling}
        return [
            chain([prompt], continue_text(model, codec, prompt, **settings))
            for prompt in self.prompts
        ]
