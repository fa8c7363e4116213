"""Generation: one token after another, from any network that gives logits."""

import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from pile_lightning.nn.cache import KVCache
from pile_lightning.nn.checks import check_length
from pile_lightning.nn.network import Cached

__all__ = ["generate", "sample"]


def sample(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one id (batch,) from each row of ``logits`` (batch, vocab).

    Args:
        logits: Unnormalised log-probabilities.
        temperature: Divides the logits: below 1 sharpens, 0 takes the likeliest.
        top_k: Draw from the k likeliest only.
        top_p: Draw from the likeliest that together reach this probability (Holtzman et al., 2020),
            after ``top_k``; there is always at least one.
        generator: Where the randomness comes from, on the device of ``logits``.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> sample(torch.tensor([[0.0, 3.0, 1.0]]), temperature=0)
        tensor([1])
    """
    _check_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered
        removed = (before >= top_p).scatter(1, order, before >= top_p)
        logits = logits.masked_fill(removed, -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)


def generate(
    network: nn.Module,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    stop_ids: Collection[int] = (),
    max_seq_len: int | None = None,
) -> Iterator[Tensor]:
    """Yield the tokens that follow ``input_ids``, one (batch,) at a time.

    A network that is ``Cached`` reads each token once; another reads its window again for each.
    Where the context is full, the most recent half of it is kept, read anew from position 0, and
    generation goes on. The network computes in eval mode and without gradients, and is as it was
    between two tokens, so that an abandoned iterator leaves no trace.

    Args:
        network: Gives logits (batch, seq, vocab) for ids (batch, seq).
        input_ids: The prompt, at least one token a row; all rows have the same length.
        max_new_tokens: Stop after this many.
        temperature: See ``sample``.
        top_k: See ``sample``.
        top_p: See ``sample``.
        generator: See ``sample``.
        stop_ids: A row that draws one of these repeats it from then on; when every row has, the
            iterator ends, the stop tokens being the last that it yielded.
        max_seq_len: Size of the context, at most the network's own; ``None`` takes that, and none
            at all where the network has none.

    Raises:
        ValueError: Here, not at the first token, if the prompt is empty or longer than the context,
            or a setting is out of range.

    Example:
        >>> from pile_lightning.nn import DecoderConfig
        >>> network = DecoderConfig(d_model=32).build(vocab_size=100, max_seq_len=16)
        >>> prompt = torch.tensor([[1, 2, 3]])
        >>> len(list(generate(network, prompt, max_new_tokens=5, top_k=10)))
        5
    """
    _check_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    own = getattr(network, "max_seq_len", None)
    limit = own if max_seq_len is None else max_seq_len
    if limit is not None:
        check_length(limit, own)
    _check_prompt(input_ids, max_new_tokens=max_new_tokens, limit=limit)

    def tokens() -> Iterator[Tensor]:
        reader = _Reader(network, input_ids, max_new_tokens=max_new_tokens, limit=limit)
        stops = torch.tensor(sorted(stop_ids), dtype=input_ids.dtype, device=input_ids.device)
        stopped = torch.zeros_like(input_ids[:, -1], dtype=torch.bool)
        for _ in range(max_new_tokens):
            logits = reader.next_logits()
            drawn = sample(
                logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
            )
            ids = torch.where(stopped, reader.window[:, -1], drawn)
            yield ids
            stopped |= torch.isin(ids, stops)
            if len(stops) and stopped.all():
                return
            reader.append(ids)

    return tokens()


class _Reader:
    """The window of text that the network sees, and how much of it the cache has."""

    def __init__(
        self, network: nn.Module, input_ids: Tensor, *, max_new_tokens: int, limit: int | None
    ) -> None:
        self.network = network
        self.limit = limit
        self.window = input_ids
        self.unread = input_ids
        batch, seq = input_ids.shape
        self.cached: tuple[Cached, KVCache] | None = None
        if isinstance(network, Cached):
            # the last token drawn is never read
            room = seq + max(0, max_new_tokens - 1)
            room = room if limit is None else min(room, limit)
            self.cached = network, network.make_cache(batch, max_len=room)

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        """Compute the logits (batch, vocab) after the window."""
        with _evaluating(self.network), _eager():
            if self.cached is None:
                logits: Tensor = self.network(self.window)
                return logits[:, -1]
            network, cache = self.cached
            return network.next_logits(self.unread, cache=cache)

    def append(self, ids: Tensor) -> None:
        """Put ``ids`` (batch,) at the end of the window, and halve it if it is too long."""
        self.unread = ids[:, None]
        self.window = torch.cat((self.window, self.unread), dim=1)
        if self.limit is not None and self.window.shape[1] > self.limit:
            self.window = self.unread = self.window[:, -max(1, self.limit // 2) :]
            if self.cached is not None:
                self.cached[1].reset()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put ``network`` in eval mode, and exactly those modules back that were not in it."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _eager() -> AbstractContextManager[None]:
    """Let no compiled part run: a window that grows would be compiled anew at every length."""
    # importing torch._dynamo takes a second, and where it was never imported nothing is compiled
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    eager: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return eager


def _check_sampling(*, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not temperature >= 0:
        raise ValueError(
            f"temperature={temperature} is negative; choose 0 for the likeliest token, 1 for the "
            f"network's own distribution"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} leaves no token; choose at least 1, or None for all")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} is no probability; choose above 0 and up to 1, or None")


def _check_prompt(input_ids: Tensor, *, max_new_tokens: int, limit: int | None) -> None:
    if input_ids.ndim != 2 or input_ids.shape[1] < 1:
        raise ValueError(
            f"input_ids of shape {tuple(input_ids.shape)} are no prompt; give (batch, seq) with at "
            f"least one token a row, e.g. the one that starts a document"
        )
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} is negative; choose 0 or more")
    if limit is not None and input_ids.shape[1] > limit:
        raise ValueError(
            f"the prompt has {input_ids.shape[1]} tokens and the context holds "
            f"max_seq_len={limit}; shorten the prompt, e.g. to its last {limit} tokens"
        )
