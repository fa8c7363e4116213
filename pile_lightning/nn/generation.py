"""Generation: one token after another, from any network that gives logits."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pile_lightning.nn.checks import check_length
from pile_lightning.nn.repeats import RepeatIndex
from pile_lightning.nn.rows import Rows
from pile_lightning.nn.sampling import Sampling, noise

__all__ = ["Completion", "complete", "generate"]


class Completion(NamedTuple):
    """What followed a prompt."""

    prompt: int
    """Which one, from 0."""
    ids: list[int]
    """The tokens, with the one that ended it."""


def generate(
    network: nn.Module,
    prompts: Tensor | Sequence[Tensor],
    *,
    max_new_tokens: int,
    generator: torch.Generator | None = None,
    stop_ids: Collection[int] = (),
    max_seq_len: int | None = None,
    **sampling: Any,
) -> Iterator[Tensor]:
    """Yield the tokens that follow the prompts, one of each (batch,) at a time.

    A network that is ``Cached`` reads each token once; another reads its window again for each.
    Where the context is full, the most recent half of it is kept, read anew from position 0, and
    generation goes on. The network computes in eval mode and without gradients, and is as it was
    between two tokens, so that an abandoned iterator leaves no trace.

    Args:
        network: Gives logits (batch, seq, vocab) for ids (batch, seq).
        prompts: Ids (batch, seq), or a (seq,) for each row, of any lengths: at least one token a
            row. What a row is followed by does not depend on the others.
        max_new_tokens: Stop after this many.
        generator: Where the randomness comes from, on the device of the prompts.
        stop_ids: A row that draws one of these repeats it from then on, at no cost; when every row
            has, the iterator ends, the stop tokens being the last that it yielded.
        max_seq_len: Size of the context, at most the network's own; ``None`` takes that, and none
            at all where the network has none.
        **sampling: ``temperature``, ``top_k``, ``top_p``, ``dry_multiplier``: see ``Sampling``.

    Raises:
        ValueError: Here, not at the first token, if a prompt is empty or longer than the context,
            or a setting is out of range.

    Example:
        >>> from pile_lightning.nn import DecoderConfig
        >>> network = DecoderConfig(d_model=32).build(vocab_size=100, max_seq_len=16)
        >>> prompts = [torch.tensor([1, 2, 3]), torch.tensor([4])]
        >>> len(list(generate(network, prompts, max_new_tokens=5, top_k=10)))
        5
    """
    how = Sampling(**sampling)
    limit = _context(network, max_seq_len)
    texts = _texts(prompts)
    _check(texts, max_new_tokens=max_new_tokens, limit=limit)
    device = prompts.device if isinstance(prompts, Tensor) else prompts[0].device

    def tokens() -> Iterator[Tensor]:
        room = max(map(len, texts)) + max(0, max_new_tokens - 1)  # the last is never read
        rows = Rows(network, capacity=len(texts), room=room, limit=limit, device=device)
        prompt_of = list(range(len(texts)))
        latest = [0] * len(texts)
        repeats = [RepeatIndex() for _ in texts]
        logits = rows.add(texts) if max_new_tokens else None
        for number in range(max_new_tokens):
            # a number for every prompt, also one that has ended: the others draw what they would
            uniform = noise([generator], len(texts), device=device)[prompt_of]
            assert logits is not None
            how.follow(repeats, rows.texts)
            ids = how.draw(logits, uniform, repeats).tolist()
            for row, new in enumerate(ids):
                latest[prompt_of[row]] = new
            yield torch.tensor(latest, device=device)
            for row in reversed(range(len(ids))):
                if ids[row] in stop_ids:
                    _drop(row, prompt_of, repeats, ids)
                    rows.drop(row)
            if not ids:
                return
            logits = rows.step(ids) if number + 1 < max_new_tokens else None

    return tokens()


def complete(
    network: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 8,
    seed: int = 0,
    ended: Callable[[int, int], bool] | None = None,
    max_seq_len: int | None = None,
    device: torch.device | None = None,
    **sampling: Any,
) -> Iterator[Completion]:
    """Yield what follows each of many prompts, as soon as it is whole.

    So many of them are read side by side, and when one has ended, the next takes its place. What
    follows a prompt depends on it, the seed and its number, not on the others.

    Args:
        network: Gives logits (batch, seq, vocab) for ids (batch, seq).
        prompts: The ids of each, of any length from one token on.
        max_new_tokens: Tokens to add to each at most.
        batch_size: Prompts that are read side by side.
        seed: Of the draws.
        ended: Is told a prompt's index and each new id, and says whether that was the last.
        max_seq_len: Size of the context, at most the network's own, which ``None`` takes.
        device: Where the ids go.
        **sampling: ``temperature``, ``top_k``, ``top_p``, ``dry_multiplier``: see ``Sampling``.

    Raises:
        ValueError: Here, not at the first token, if a prompt is empty or longer than the context,
            or a setting is out of range.

    Example:
        >>> from pile_lightning.nn import DecoderConfig
        >>> network = DecoderConfig(d_model=32).build(vocab_size=100, max_seq_len=16)
        >>> found = complete(network, [[1, 2], [3], [4, 5, 6]], max_new_tokens=4, batch_size=2)
        >>> sorted(len(each.ids) for each in found)
        [4, 4, 4]
    """
    how = Sampling(**sampling)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} reads nothing; choose at least 1")
    limit = _context(network, max_seq_len)
    _check(prompts, max_new_tokens=max_new_tokens, limit=limit)
    place = torch.device("cpu") if device is None else device

    def completions() -> Iterator[Completion]:
        room = max(map(len, prompts)) + max(0, max_new_tokens - 1)
        capacity = min(batch_size, len(prompts))
        rows = Rows(network, capacity=capacity, room=room, limit=limit, device=place)
        waiting = deque(enumerate(prompts))
        reading: list[Completion] = []  # in the order of the rows
        generators: list[torch.Generator] = []
        repeats: list[RepeatIndex] = []
        logits = None
        while waiting or reading:
            fresh = [waiting.popleft() for _ in range(min(capacity - len(reading), len(waiting)))]
            if fresh:
                after = rows.add([text for _, text in fresh])
                logits = after if logits is None else torch.cat((logits, after))
                reading += [Completion(index, []) for index, _ in fresh]
                generators += [torch.Generator(place).manual_seed(seed + i) for i, _ in fresh]
                repeats += [RepeatIndex() for _ in fresh]
            assert logits is not None
            uniform = noise(generators, len(reading), device=place)
            how.follow(repeats, rows.texts)
            ids = how.draw(logits, uniform, repeats).tolist()
            for row in reversed(range(len(ids))):
                index, so_far = reading[row]
                so_far.append(ids[row])
                last = ended is not None and ended(index, ids[row])
                if last or len(so_far) == max_new_tokens:
                    yield reading[row]
                    _drop(row, reading, generators, repeats, ids)
                    rows.drop(row)
            logits = rows.step(ids) if ids else None

    return completions() if prompts and max_new_tokens else iter(_nothing(len(prompts)))


def _nothing(count: int) -> list[Completion]:
    return [Completion(index, []) for index in range(count)]


def _drop(row: int, *lists: list[Any]) -> None:
    """Take ``row`` out of each list; the last one takes its place, as in ``Rows``."""
    for each in lists:
        each[row] = each[-1]
        each.pop()


def _context(network: nn.Module, max_seq_len: int | None) -> int | None:
    """Return the size of the context, at most the network's own."""
    own: int | None = getattr(network, "max_seq_len", None)
    limit = own if max_seq_len is None else max_seq_len
    if limit is not None:
        check_length(limit, own)
    return limit


def _texts(prompts: Tensor | Sequence[Tensor]) -> list[list[int]]:
    """Return the ids of each prompt."""
    if isinstance(prompts, Tensor):
        shaped = prompts.ndim == 2 and prompts.shape[0] > 0
    else:
        shaped = len(prompts) > 0 and all(prompt.ndim == 1 for prompt in prompts)
    if not shaped:
        shapes = [tuple(p.shape) for p in ([prompts] if isinstance(prompts, Tensor) else prompts)]
        raise ValueError(
            f"prompts of shape {', '.join(map(str, shapes)) or '()'} are none; give (batch, seq), "
            f"or a list with a (seq,) for each row"
        )
    return [prompt.tolist() for prompt in prompts]


def _check(prompts: Sequence[Sequence[int]], *, max_new_tokens: int, limit: int | None) -> None:
    """Raise a ValueError where there is nothing to go on from, or too much."""
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} is negative; choose 0 or more")
    for index, prompt in enumerate(prompts):
        which = f"prompt {index}" if len(set(map(len, prompts))) > 1 else "the prompt"
        if len(prompt) < 1:
            raise ValueError(
                f"{which} has no tokens; give at least one, e.g. the one that starts a document"
            )
        if limit is not None and len(prompt) > limit:
            raise ValueError(
                f"{which} has {len(prompt)} tokens and the context holds max_seq_len={limit}; "
                f"shorten it, e.g. to its last {limit} tokens"
            )
