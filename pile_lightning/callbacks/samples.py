"""Text from the model: streamed to a reader, and kept by step while it trains."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

__all__ = ["Samples", "TextCodec", "TokenStream", "continue_text"]


class TokenStream(Protocol):
    """A model that yields tokens one by one."""

    device: torch.device

    def stream(
        self, input_ids: Tensor, *, max_new_tokens: int, **sampling: Any
    ) -> Iterator[Tensor]:
        """Yield one new token (batch,) after another."""


class TextCodec(Protocol):
    """A tokenizer, as far as text generation needs it."""

    start_id: int

    def encode_batch(self, texts: list[str]) -> list[np.ndarray[Any, Any]]:
        """Return the ids of each text."""

    def decode_stream(self) -> Any:
        """Return a decoder with ``step(id) -> str`` and ``flush() -> str``."""


def continue_text(
    model: TokenStream,
    codec: TextCodec,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Yield the text that continues ``prompt``, piece by piece, until its end or a stop string.

    Args:
        model: What yields tokens.
        codec: What turns text into tokens and back.
        prompt: Opening of the document.
        max_new_tokens: Tokens to add at most.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw among so many likeliest tokens.
        top_p: Draw among the likeliest tokens that together have this probability.
        seed: Of the draws.
        stop: Strings that end the text; they are not yielded.
    """
    ids = [codec.start_id, *codec.encode_batch([prompt])[0].tolist()]
    generator = torch.Generator(device=model.device).manual_seed(seed)
    tokens = model.stream(
        torch.tensor([ids], device=model.device),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=generator,
        stop_ids=(codec.start_id,),
    )
    decoder = codec.decode_stream()
    held = ""  # text that may be the beginning of a stop string
    for token in tokens:
        if int(token) == codec.start_id:
            break
        held += decoder.step(int(token))
        # the first to be complete: what is said must not depend on how tokens split the text
        found = [(at + len(s), at) for s in stop if (at := held.find(s)) >= 0]
        if found:
            yield held[: min(found)[1]]
            return
        safe = len(held) - _overlap(held, stop)
        if safe:
            yield held[:safe]
            held = held[safe:]
    held += decoder.flush()
    if held:
        yield held


def _overlap(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of ``text`` with which a stop string begins."""
    longest = max((len(s) - 1 for s in stop), default=0)
    for size in range(min(longest, len(text)), 0, -1):
        if any(s.startswith(text[-size:]) for s in stop):
            return size
    return 0


class Samples(Callback):
    """Write ``samples/step-<n>.txt`` in the run's folder at each validation.

    Args:
        prompts: Openings to continue; none for no samples.
        max_new_tokens: Tokens to add to each.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw among so many likeliest tokens.
        seed: Of the draws, the same at each step.
    """

    def __init__(
        self,
        prompts: list[str] | None = None,
        max_new_tokens: int = 120,
        temperature: float = 0.8,
        top_k: int | None = 50,
        seed: int = 0,
    ) -> None:
        self.prompts = [""] if prompts is None else prompts
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_k = top_k
        self.seed = seed
        self.latest: str | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue each prompt and write what came."""
        codec = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:
            return
        if codec is None or not hasattr(pl_module, "stream") or not self.prompts:
            return
        texts = [p + "".join(self._continue(pl_module, codec, p)) for p in self.prompts]
        self.latest = texts[0]
        folder = Path(trainer.log_dir or trainer.default_root_dir, "samples")
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            rule = "\n" + "-" * 80 + "\n"
            path = folder / f"step-{trainer.global_step:06d}.txt"
            path.write_text(rule.join(texts) + "\n", encoding="utf-8")

    def _continue(self, model: Any, codec: TextCodec, prompt: str) -> Iterator[str]:
        return continue_text(
            model,
            codec,
            prompt,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            seed=self.seed,
        )
