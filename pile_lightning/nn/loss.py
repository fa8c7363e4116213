"""Cross-entropy of next-token prediction, summed in nats, without ever holding the whole logits.

At a vocabulary of 32 thousand the logits of a batch outweigh everything else in memory.
``linear_cross_entropy`` takes what the head is applied to and walks over it, a chunk of rows at a
time; where gradients are wanted, it computes them in the same pass, while the chunk's logits are at
hand. It is an autograd function of our own because ``F.linear_cross_entropy`` (torch 2.13) sums the
loss in the type of the input: in bf16 it was 0.69 nats off.

Sums, not means: what a loss is divided by, the predicted tokens of the global batch, is known only
after accumulation and across ranks.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.nn.checks import check_name, check_size
from pile_lightning.nn.precision import to_autocast
from pile_lightning.nn.vocabulary import Vocabulary, split_vocabulary

__all__ = ["cross_entropy_sum", "linear_cross_entropy"]

Reduction = Literal["sum", "none"]


def cross_entropy_sum(logits: Tensor, labels: Tensor, *, reduction: Reduction = "sum") -> Tensor:
    """Sum the negative log-likelihoods of ``labels``, for a network that gives whole logits only.

    Args:
        logits: Logits (..., vocab), taken to float32 here.
        labels: The token to predict (...), or ``IGNORE_INDEX``.
        reduction: As for ``linear_cross_entropy``.

    Example:
        >>> cross_entropy_sum(torch.zeros(2, 4), torch.tensor([1, -100]))
        tensor(1.3863)
    """
    _check(logits, labels, reduction=reduction)
    nll = F.cross_entropy(
        logits.flatten(0, -2).float(),
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction=reduction,
    )
    return nll if reduction == "sum" else nll.view(labels.shape)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    chunk_size: int = 1024,
    reduction: Reduction = "sum",
) -> Tensor:
    """Sum the negative log-likelihoods of ``labels`` under logits ``hidden @ weight.T``.

    Products are made in the type of ``hidden`` (autocast's type under autocast, as ``F.linear``
    would), the softmax and all sums in float32.

    Args:
        hidden: What the head is applied to (..., d_model).
        weight: The head's matrix (vocab, d_model), also spread by rows over tensor-parallel peers,
            which all call this with the same ``hidden``.
        labels: The token to predict (...), or ``IGNORE_INDEX``, which adds nothing.
        chunk_size: Rows whose logits are held at one time.
        reduction: ``"sum"`` for one float32 number in nats; ``"none"`` for one for each label, 0
            where it is ignored. The gradient of ``"none"`` computes the logits a second time.

    Raises:
        ValueError: If shapes do not fit, or for an unknown reduction.

    Example:
        >>> weight = torch.zeros(4, 8)
        >>> linear_cross_entropy(torch.ones(1, 2, 8), weight, torch.tensor([[1, -100]]))
        tensor(1.3863)
    """
    _check(hidden, labels, reduction=reduction)
    check_size(chunk_size=chunk_size)
    weight, vocabulary = split_vocabulary(weight)
    nll: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        to_autocast(hidden).flatten(0, -2),
        weight,
        labels.flatten(),
        vocabulary,
        chunk_size,
        reduction == "sum",
        torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad),
    )
    return nll if reduction == "sum" else nll.view(labels.shape)


class _LinearCrossEntropy(torch.autograd.Function):
    """A sum's gradients are known but for a factor: the forward makes them; else the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        vocabulary: Vocabulary,
        chunk_size: int,
        summed: bool,
        differentiable: bool,
    ) -> Tensor:
        ctx.settings, ctx.summed = {"vocabulary": vocabulary, "chunk_size": chunk_size}, summed
        ones = torch.ones_like(labels, dtype=torch.float32) if summed and differentiable else None
        nll, *gradients = _walk(hidden, weight, labels, row_gradients=ones, **ctx.settings)
        if differentiable:
            ctx.save_for_backward(*(gradients if summed else (hidden, weight, labels)))
        return nll.sum() if summed else nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.summed:
            grad_hidden, grad_weight = (saved * grad for saved in ctx.saved_tensors)
        else:
            _, grad_hidden, grad_weight = _walk(
                *ctx.saved_tensors, row_gradients=grad, **ctx.settings
            )
        return grad_hidden, grad_weight, None, None, None, None, None


class _Walk(NamedTuple):
    nll: Tensor
    grad_hidden: Tensor | None
    grad_weight: Tensor | None


def _walk(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    vocabulary: Vocabulary,
    chunk_size: int,
    row_gradients: Tensor | None,
) -> _Walk:
    """Compute each row's negative log-likelihood, and gradients where ``row_gradients`` are given.

    Args:
        hidden: Rows (rows, d_model), in the type that products are made in.
        weight: The head's matrix (vocab, d_model), in any type; of peers, this rank's rows.
        labels: One for each row.
        vocabulary: Which ids the rows of ``weight`` are of.
        chunk_size: Rows at a time.
        row_gradients: Gradient of the result by each row's negative log-likelihood (rows,).
    """
    rows, vocab = hidden.shape[0], weight.shape[0]
    narrow_weight = weight.to(hidden.dtype)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    ignored = labels == IGNORE_INDEX
    columns = labels.masked_fill(ignored, 0)[:, None] - vocabulary.start
    if vocabulary.group is not None:
        elsewhere = (columns < 0) | (columns >= vocab)
        columns = columns.masked_fill(elsewhere, 0)
    nll = hidden.new_zeros(rows, dtype=wide)
    grad_hidden = grad_weight = None
    if row_gradients is not None:
        row_gradients = row_gradients.masked_fill(ignored, 0)[:, None]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=wide)
    # the same two buffers for every chunk: fresh pages cost as much as a pass over them
    product = hidden.new_empty(min(chunk_size, rows), vocab)
    logits = product if hidden.dtype == wide else torch.empty_like(product, dtype=wide)
    for start in range(0, rows, chunk_size):
        chunk = slice(start, start + chunk_size)
        x, column = hidden[chunk], columns[chunk]
        z = torch.mm(x, narrow_weight.T, out=product[: len(x)])
        if z.dtype != wide:
            z = logits[: len(x)].copy_(z)
        largest = vocabulary.max(z.amax(-1, keepdim=True))
        label_logits = z.sub_(largest).gather(1, column)
        e = z.exp_()
        s = e.sum(-1, keepdim=True)
        at_label: Tensor | float = 1.0
        if vocabulary.group is not None:
            at_label = (~elsewhere[chunk]).to(wide)
            s, label_logits = vocabulary.sum(torch.stack((s, label_logits * at_label)))
        nll[chunk] = (s.log() - label_logits).squeeze(-1)
        if row_gradients is not None and grad_hidden is not None and grad_weight is not None:
            # e / s are the probabilities, and the gradient by z is them, less 1 at the label
            e.scatter_add_(1, column, -s * at_label)
            scale = row_gradients[chunk] / s
            _add_gradients(e, scale, x, narrow_weight, product, grad_hidden[chunk], grad_weight)
    if grad_hidden is not None:
        vocabulary.sum(grad_hidden)
    return _Walk(nll.masked_fill_(ignored, 0), grad_hidden, grad_weight)


def _add_gradients(
    e: Tensor,
    scale: Tensor,
    x: Tensor,
    weight: Tensor,
    product: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
) -> None:
    """Turn ``e * scale``, the gradient by ``x @ weight.T``, into those by ``x`` and ``weight``.

    In float32 the narrow factors (rows of d_model) are scaled instead of the wide one (rows of
    vocab): one pass less over the logits. In bf16 the pass that narrows ``e`` scales it for
    nothing.
    """
    if e.dtype == x.dtype:
        torch.mm(e, weight, out=grad_x).mul_(scale)
        grad_weight.addmm_(e.T, x * scale)
    else:
        e = torch.mul(e, scale, out=product[: len(e)])
        torch.mm(e, weight, out=grad_x)
        grad_weight += torch.mm(e.T, x)


def _check(x: Tensor, labels: Tensor, *, reduction: str) -> None:
    if x.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not fit {tuple(x.shape)}; every row but the "
            f"last dimension needs one label"
        )
    check_name(("sum", "none"), reduction=reduction)
