"""Text that continues text: streamed to a reader, or of many prompts at once."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Continuation", "TextCodec", "TokenStream", "continue_text", "continue_texts"]


class TokenStream(Protocol):
    """A model that yields tokens one by one."""

    device: torch.device

    def stream(self, prompts: Tensor, *, max_new_tokens: int, **sampling: Any) -> Iterator[Tensor]:
        """Yield one new token (batch,) after another."""


class Completer(Protocol):
    """A model that completes many prompts side by side."""

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, **settings: Any
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield the number of each prompt and the ids that follow it."""


class TextCodec(Protocol):
    """A tokenizer, as far as text generation needs it."""

    start_id: int

    def encode_batch(self, texts: list[str]) -> list[np.ndarray[Any, Any]]:
        """Return the ids of each text."""

    def decode_stream(self) -> Any:
        """Return a decoder with ``step(id) -> str`` and ``flush() -> str``."""


class Continuation(NamedTuple):
    """What followed a prompt."""

    prompt: int
    """Which one, from 0."""
    text: str
    """The text, without the stop string that ended it."""
    num_tokens: int
    """Tokens that were drawn for it."""


class _Spoken:
    """Text that grows by tokens, up to its end or a stop string."""

    def __init__(self, codec: TextCodec, stop: Sequence[str]) -> None:
        self.start_id = codec.start_id
        self.decoder = codec.decode_stream()
        self.stop = stop
        self.held = ""
        """Text that may be the beginning of a stop string."""
        self.ended = False

    def add(self, token: int) -> str:
        """Return what a further token lets be said."""
        if token == self.start_id:
            return self.finish()
        self.held += self.decoder.step(token)
        # the first to be complete: what is said must not depend on how tokens split the text
        found = [(at + len(s), at) for s in self.stop if (at := self.held.find(s)) >= 0]
        if found:
            self.ended = True
            return self.held[: min(found)[1]]
        safe = len(self.held) - _overlap(self.held, self.stop)
        said, self.held = self.held[:safe], self.held[safe:]
        return said

    def finish(self) -> str:
        """Return what is left to be said."""
        if self.ended:
            return ""
        self.ended = True
        rest: str = self.held + self.decoder.flush()
        return rest


def _overlap(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of ``text`` with which a stop string begins."""
    longest = max((len(s) - 1 for s in stop), default=0)
    for size in range(min(longest, len(text)), 0, -1):
        if any(s.startswith(text[-size:]) for s in stop):
            return size
    return 0


def continue_text(
    model: TokenStream,
    codec: TextCodec,
    prompt: str,
    *,
    max_new_tokens: int,
    seed: int = 0,
    stop: Sequence[str] = (),
    **sampling: Any,
) -> Iterator[str]:
    """Return the text that continues ``prompt``, piece by piece, until its end or a stop string.

    Args:
        model: What yields tokens.
        codec: What turns text into tokens and back.
        prompt: Opening of the document.
        max_new_tokens: Tokens to add at most.
        seed: Of the draws.
        stop: Strings that end the text; they are not yielded.
        **sampling: How tokens are drawn, see ``nn.Sampling``.

    Raises:
        ValueError: Here, not at the first piece, for a prompt longer than the context, or a setting
            out of range.
    """
    generator = torch.Generator(device=model.device).manual_seed(seed)
    tokens = model.stream(
        torch.tensor(_encode(codec, [prompt]), device=model.device),
        max_new_tokens=max_new_tokens,
        generator=generator,
        stop_ids=(codec.start_id,),
        **sampling,
    )
    return _speak(tokens, _Spoken(codec, stop))


def _speak(tokens: Iterator[Tensor], spoken: _Spoken) -> Iterator[str]:
    """Yield what tokens (1,) let be said, up to its end."""
    for token in tokens:
        if said := spoken.add(int(token)):
            yield said
        if spoken.ended:
            return
    if said := spoken.finish():
        yield said


def continue_texts(
    model: Completer,
    codec: TextCodec,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 8,
    seed: int = 0,
    stop: Sequence[str] = (),
    **sampling: Any,
) -> Iterator[Continuation]:
    """Yield the text that continues each of ``prompts``, as soon as it is whole.

    What continues a prompt depends on it, the seed and its number: not on the others.

    Args:
        model: What completes prompts.
        codec: What turns text into tokens and back.
        prompts: Openings of documents.
        max_new_tokens: Tokens to add to each at most.
        batch_size: Prompts that are continued side by side.
        seed: Of the draws.
        stop: Strings that end a text; they are no part of it.
        **sampling: How tokens are drawn, see ``nn.Sampling``.

    Raises:
        ValueError: Here, not at the first text, for a prompt longer than the context, or a setting
            out of range.
    """
    spoken = [_Spoken(codec, stop) for _ in prompts]
    said = [""] * len(prompts)

    def ended(prompt: int, token: int) -> bool:
        said[prompt] += spoken[prompt].add(token)
        return spoken[prompt].ended

    completions = model.complete(
        _encode(codec, prompts),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed,
        ended=ended,
        **sampling,
    )
    return (
        Continuation(prompt, said[prompt] + spoken[prompt].finish(), len(ids))
        for prompt, ids in completions
    )


def _encode(codec: TextCodec, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text, from the start of its document."""
    return [[codec.start_id, *ids.tolist()] for ids in codec.encode_batch(list(texts))]
