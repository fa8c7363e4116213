"""Texts of any lengths that a network reads side by side, one more token of each at a time."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from pile_lightning.nn.cache import KVCache
from pile_lightning.nn.network import Cached

__all__ = ["Rows"]

# tokens that are read at once: on a GPU some hundred MB at width 4096, on CPU what stays near the
# caches, where larger is slower
_AT_ONCE = {"cpu": 1024}
_AT_ONCE_ELSEWHERE = 8192


class Rows:
    """Texts, and the logits of what follows each.

    A network that is ``Cached`` reads each token once; another reads whole texts again, those of
    one length together. A text that outgrows the context keeps its most recent half, read anew from
    position 0. The network computes in eval mode and without gradients, and is as it was between
    two calls.

    Args:
        network: Gives logits (batch, seq, vocab) for ids (batch, seq).
        capacity: Rows at most.
        room: Tokens of a row at most, as far as the context allows.
        limit: Size of the context; ``None`` for no end.
        device: Where the ids go.

    Example:
        >>> from pile_lightning.nn import DecoderConfig
        >>> network = DecoderConfig(d_model=32).build(vocab_size=100, max_seq_len=16)
        >>> rows = Rows(network, capacity=2, room=8, limit=16, device=torch.device("cpu"))
        >>> rows.add([[1, 2, 3], [4]]).shape
        torch.Size([2, 100])
        >>> rows.step([5, 6]).shape
        torch.Size([2, 100])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        capacity: int,
        room: int,
        limit: int | None,
        device: torch.device,
    ) -> None:
        self.network = network
        self.modules = list(network.modules())
        # faster by 6 % of a token; a network that trains may keep what it computes, and need it
        self.frozen = not any(parameter.requires_grad for parameter in network.parameters())
        self.limit = limit
        self.device = device
        self.at_once = _AT_ONCE.get(device.type, _AT_ONCE_ELSEWHERE)
        self.texts: list[list[int]] = []
        """The ids of each row that still count."""
        self.cached: tuple[Cached, KVCache] | None = None
        if isinstance(network, Cached):
            room = max(1, room if limit is None else min(room, limit))
            self.cached = network, network.make_cache(capacity, max_len=room)
            self.cached[1].clear()

    def add(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Read ``texts``, as further rows, and compute the logits (texts, vocab) after each."""
        first = len(self.texts)
        self.texts += [list(text) for text in texts]
        with _inference(self.modules, frozen=self.frozen):
            return self._read(range(first, len(self.texts)))

    def step(self, ids: Sequence[int]) -> Tensor:
        """Put one of ``ids`` at the end of each row, and compute the logits (rows, vocab) after."""
        for text, new in zip(self.texts, ids, strict=True):
            text.append(new)
        full = [
            row
            for row, text in enumerate(self.texts)
            if self.limit is not None and len(text) > self.limit
        ]
        for row in full:
            del self.texts[row][: -max(1, (self.limit or 0) // 2)]
        with _inference(self.modules, frozen=self.frozen):
            if self.cached is None:
                return self._read(range(len(self.texts)))
            if full:
                self._read(full, without_last=True)
            network, cache = self.cached
            return network.next_logits(torch.tensor(ids, device=self.device)[:, None], cache=cache)

    def drop(self, row: int) -> None:
        """Read no more of ``row``; the last row takes its place."""
        self.texts[row] = self.texts[-1]
        self.texts.pop()
        if self.cached is not None:
            with _inference(self.modules, frozen=self.frozen):
                self.cached[1].drop(row)

    def _read(self, rows: Sequence[int], *, without_last: bool = False) -> Tensor:
        """Read the texts of ``rows`` from their start; return the logits after each."""
        logits: dict[int, Tensor] = {}
        for group in self._alike(rows):
            texts = [self.texts[row][: -1 if without_last else None] for row in group]
            if not texts[0]:
                for row in group:
                    self._put(row, None, 0)
                continue
            ids = torch.tensor(texts, device=self.device)
            after, cache = self._read_together(ids, group)
            for number, row in enumerate(group):
                logits[row] = after[number]
                self._put(row, cache, number)
        return torch.stack([logits[row] for row in rows]) if logits else torch.empty(0)

    def _alike(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Yield rows whose texts are as long, no more than are read at once."""
        by_length: dict[int, list[int]] = {}
        for row in rows:
            by_length.setdefault(len(self.texts[row]), []).append(row)
        for length, alike in by_length.items():
            size = max(1, self.at_once // length)
            for start in range(0, len(alike), size):
                yield alike[start : start + size]

    def _read_together(self, ids: Tensor, rows: Sequence[int]) -> tuple[Tensor, KVCache | None]:
        """Read texts of one length (batch, seq) on their own; return logits, and what is kept."""
        if self.cached is None:
            out: Tensor = self.network(ids)
            return out[:, -1], None
        network, own = self.cached
        if rows[-1] - rows[0] + 1 == len(rows):
            cache = own.part(rows[0], len(rows))
        else:
            cache = network.make_cache(len(ids), max_len=ids.shape[1])
        for part in torch.split(ids, max(1, self.at_once // len(ids)), dim=1):
            logits = network.next_logits(part, cache=cache)
        return logits, cache

    def _put(self, row: int, cache: KVCache | None, number: int) -> None:
        if self.cached is not None:
            self.cached[1].put(row, cache, number)


@contextmanager
def _inference(modules: Sequence[nn.Module], *, frozen: bool) -> Iterator[None]:
    """Put ``modules`` in eval mode, and exactly those back that were not; compile nothing.

    Args:
        modules: All of a network.
        frozen: Whether no gradient will ever be asked for.
    """
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode() if frozen else torch.no_grad(), _eager():
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
