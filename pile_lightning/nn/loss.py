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
from torch.overrides import handle_torch_function, has_torch_function

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.nn.checks import check_name, check_size
from pile_lightning.nn.chunk_softmax import CompiledSoftmax, EagerSoftmax
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
    compile: bool = False,
) -> Tensor:
    """Sum the negative log-likelihoods of ``labels`` under logits ``hidden @ weight.T``.

    Products are made in the type of ``hidden`` (autocast's type under autocast, as ``F.linear``
    would), the softmax and all sums in float32.

    Args:
        hidden: What the head is applied to (..., d_model).
        weight: The head's matrix (vocab, d_model), also spread by rows over tensor-parallel peers,
            which all call this with the same ``hidden``.
        labels: The token to predict (...), or ``IGNORE_INDEX``, which adds nothing.
        chunk_size: Rows whose logits are held at one time, at most.
        reduction: ``"sum"`` for one float32 number in nats; ``"none"`` for one for each label, 0
            where it is ignored. The gradient of ``"none"`` computes the logits a second time.
        compile: Compile what is done to the logits between the products.

    Raises:
        ValueError: If shapes do not fit, or for an unknown reduction.

    Example:
        >>> weight = torch.zeros(4, 8)
        >>> linear_cross_entropy(torch.ones(1, 2, 8), weight, torch.tensor([[1, -100]]))
        tensor(1.3863)
    """
    if has_torch_function((hidden, weight, labels)):
        # as torch's own functions do: what computes several networks at once has another way
        nll: Tensor = handle_torch_function(
            linear_cross_entropy,
            (hidden, weight, labels),
            hidden,
            weight,
            labels,
            chunk_size=chunk_size,
            reduction=reduction,
            compile=compile,
        )
        return nll
    _check(hidden, labels, reduction=reduction)
    check_size(chunk_size=chunk_size)
    weight, vocabulary = split_vocabulary(weight)
    nll = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        to_autocast(hidden).flatten(0, -2),
        weight,
        labels.flatten(),
        vocabulary,
        chunk_size,
        compile,
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
        compile: bool,
        summed: bool,
        differentiable: bool,
    ) -> Tensor:
        ctx.settings = {"vocabulary": vocabulary, "chunk_size": chunk_size, "compile": compile}
        ctx.summed = summed
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
        return grad_hidden, grad_weight, None, None, None, None, None, None


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
    compile: bool,
    row_gradients: Tensor | None,
) -> _Walk:
    """Compute each row's negative log-likelihood, and gradients where ``row_gradients`` are given.

    Args:
        hidden: Rows (rows, d_model), in the type that products are made in.
        weight: The head's matrix (vocab, d_model), in any type; of peers, this rank's rows.
        labels: One for each row.
        vocabulary: Which ids the rows of ``weight`` are of.
        chunk_size: Rows at a time, at most.
        compile: Compile the softmax.
        row_gradients: Gradient of the result by each row's negative log-likelihood (rows,).
    """
    rows, vocab = hidden.shape[0], weight.shape[0]
    narrow_weight = weight.to(hidden.dtype)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    ignored = labels == IGNORE_INDEX
    columns, inside = vocabulary.locate(labels.masked_fill(ignored, 0)[:, None], vocab)
    inside = inside.to(wide)
    nll = hidden.new_zeros(rows, dtype=wide)
    grad_hidden = grad_weight = None
    if row_gradients is not None:
        row_gradients = row_gradients.masked_fill(ignored, 0)[:, None]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=wide)
        product = torch.empty_like(narrow_weight)
    # chunks of one size where they can be: each size is compiled once
    chunk_size = -(-rows // -(-rows // chunk_size)) if rows else 1
    # the same buffers for every chunk: fresh pages cost as much as a pass over them
    buffer = hidden.new_empty(chunk_size, vocab)
    softmax = CompiledSoftmax() if compile else EagerSoftmax(buffer, wide)
    for start in range(0, rows, chunk_size):
        chunk = slice(start, start + chunk_size)
        x, at = hidden[chunk], (columns[chunk], inside[chunk])
        z = torch.mm(x, narrow_weight.T, out=buffer[: len(x)])
        log_sum, label_logit = vocabulary.combine(*softmax.read(z, *at))
        nll[chunk] = (log_sum - label_logit).squeeze(-1)
        if row_gradients is not None and grad_hidden is not None and grad_weight is not None:
            softmax.differentiate(z, *at, log_sum, row_gradients[chunk])
            torch.mm(z, narrow_weight, out=grad_hidden[chunk])
            _add_product(grad_weight, z.T, x, product)
    if grad_hidden is not None:
        vocabulary.sum(grad_hidden)
    return _Walk(nll.masked_fill_(ignored, 0), grad_hidden, grad_weight)


def _add_product(total: Tensor, a: Tensor, b: Tensor, room: Tensor) -> None:
    """Add ``a @ b`` to ``total``, through ``room`` where ``total`` is wider."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += torch.mm(a, b, out=room)


def _check(x: Tensor, labels: Tensor, *, reduction: str) -> None:
    if x.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not fit {tuple(x.shape)}; every row but the "
            f"last dimension needs one label"
        )
    check_name(("sum", "none"), reduction=reduction)
