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
from pile_lightning.nn.checks import check_name, check_positive, check_size, check_weight
from pile_lightning.nn.chunk_softmax import exponentiate, piece_size
from pile_lightning.nn.logit_cap import cap_logits, cap_slope
from pile_lightning.nn.precision import to_autocast
from pile_lightning.nn.vocabulary import Vocabulary, split_vocabulary

__all__ = ["cross_entropy_sum", "linear_cross_entropy"]

Reduction = Literal["sum", "none"]

_CHUNK_NUMBERS = 2**23
_PRODUCT_NUMBERS = 2**20


def cross_entropy_sum(
    logits: Tensor, labels: Tensor, *, reduction: Reduction = "sum", z_loss: float = 0.0
) -> Tensor:
    """Sum the negative log-likelihoods of ``labels``, for a network that gives whole logits only.

    Args:
        logits: Logits (..., vocab), taken to float32 here.
        labels: The token to predict (...), or ``IGNORE_INDEX``.
        reduction: As for ``linear_cross_entropy``.
        z_loss: As for ``linear_cross_entropy``.

    Example:
        >>> cross_entropy_sum(torch.zeros(2, 4), torch.tensor([1, -100]))
        tensor(1.3863)
    """
    _check(logits, labels, reduction=reduction, z_loss=z_loss)
    wide, flat = logits.flatten(0, -2).float(), labels.flatten()
    nll = F.cross_entropy(wide, flat, ignore_index=IGNORE_INDEX, reduction=reduction)
    if z_loss:
        squares = z_loss * wide.logsumexp(-1).square().masked_fill(flat == IGNORE_INDEX, 0)
        nll = nll + (squares.sum() if reduction == "sum" else squares)
    return nll if reduction == "sum" else nll.view(labels.shape)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    chunk_size: int | None = None,
    reduction: Reduction = "sum",
    compile: bool = False,
    logit_cap: float | None = None,
    z_loss: float = 0.0,
) -> Tensor:
    """Sum the negative log-likelihoods of ``labels`` under logits ``hidden @ weight.T``.

    Products are made in the type of ``hidden`` (autocast's type under autocast, as ``F.linear``
    would), the softmax and all sums in float32.

    Args:
        hidden: What the head is applied to (..., d_model).
        weight: The head's matrix (vocab, d_model), also spread by rows over tensor-parallel peers,
            which all call this with the same ``hidden``.
        labels: The token to predict (...), or ``IGNORE_INDEX``, which adds nothing.
        chunk_size: Rows whose logits are held at one time, at most; ``None`` for as many as have
            some eight million logits, and not below 512.
        reduction: ``"sum"`` for one float32 number in nats; ``"none"`` for one for each label, 0
            where it is ignored. The gradient of ``"none"`` computes the logits a second time.
        compile: Compile what is done to the logits between the products.
        logit_cap: Bound that the logits are bent to, see ``cap_logits``; ``None`` for none.
        z_loss: Weight of the squared log-sum-exp of the logits, added to each label's loss: it
            keeps the sum behind the softmax near 1 (Chowdhery et al., PaLM, 2022, section 5).

    Raises:
        ValueError: If shapes do not fit, for an unknown reduction, a bound that is not positive, or
            a negative weight.

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
            logit_cap=logit_cap,
            z_loss=z_loss,
        )
        return nll
    _check(hidden, labels, reduction=reduction, z_loss=z_loss)
    if logit_cap is not None:
        check_positive(logit_cap=logit_cap)
    weight, vocabulary = split_vocabulary(weight)
    if chunk_size is None:
        # measured in bf16: of 8192 logits a row, 1024 rows are 7 % faster than 512; of 32768, none
        chunk_size = max(512, _CHUNK_NUMBERS // weight.shape[0])
    check_size(chunk_size=chunk_size)
    nll = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        to_autocast(hidden).flatten(0, -2),
        weight,
        labels.flatten(),
        _Settings(vocabulary, chunk_size, compile, logit_cap, z_loss),
        reduction == "sum",
        torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad),
    )
    return nll if reduction == "sum" else nll.view(labels.shape)


class _Settings(NamedTuple):
    """What a walk over the rows is told, beside the rows: see ``linear_cross_entropy``."""

    vocabulary: Vocabulary
    """Which ids the rows of the head's matrix are of."""
    chunk_size: int
    compile: bool
    logit_cap: float | None
    z_loss: float


class _LinearCrossEntropy(torch.autograd.Function):
    """A sum's gradients are known but for a factor: the forward makes them; else the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        settings: _Settings,
        summed: bool,
        differentiable: bool,
    ) -> Tensor:
        ctx.settings = settings
        ones = torch.ones_like(labels, dtype=torch.float32) if summed and differentiable else None
        nll, *gradients = _walk(hidden, weight, labels, settings, row_gradients=ones)
        ctx.gradients = gradients if summed else None
        if differentiable:
            ctx.save_for_backward(hidden, weight, labels)
        return nll.sum() if summed else nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # handed over, not kept: a gradient as large as the head would be in memory twice
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is not None:
            grad_hidden, grad_weight = (gradient.mul_(grad) for gradient in gradients)
        else:
            hidden, weight, labels = ctx.saved_tensors
            _, grad_hidden, grad_weight = _walk(
                hidden, weight, labels, ctx.settings, row_gradients=grad.expand(len(labels))
            )
        return grad_hidden, grad_weight, None, None, None, None


class _Walk(NamedTuple):
    nll: Tensor
    grad_hidden: Tensor | None
    grad_weight: Tensor | None


def _walk(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    settings: _Settings,
    *,
    row_gradients: Tensor | None,
) -> _Walk:
    """Compute each row's loss, and gradients where ``row_gradients`` are given.

    Args:
        hidden: Rows (rows, d_model), in the type that products are made in.
        weight: The head's matrix (vocab, d_model), in any type; of peers, this rank's rows.
        labels: One for each row.
        settings: How it is walked, and what the loss is.
        row_gradients: Gradient of the result by each row's loss (rows,).
    """
    vocabulary, cap = settings.vocabulary, settings.logit_cap
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
    # chunks of one size where they can be
    chunk_size = -(-rows // -(-rows // settings.chunk_size)) if rows else 1
    piece = piece_size(chunk_size, vocab, hidden.device)
    room = piece * -(-chunk_size // piece)
    # one buffer for the logits and exponentials of all chunks, which stand a piece before the
    # logits: fresh pages cost as much as a pass over them
    buffer = hidden.new_empty(piece + room, vocab)
    numbers = torch.arange(chunk_size, device=hidden.device)[:, None]
    for start in range(0, rows, chunk_size):
        chunk = slice(start, start + chunk_size)
        x, column, here = hidden[chunk], columns[chunk], inside[chunk]
        count = len(x)
        z = torch.mm(x, narrow_weight.T, out=buffer[piece : piece + count])
        at_label = cap_logits(z.gather(1, column).to(wide), cap)
        # also of rows that there are not, in the last chunk, so that one size is compiled
        reference, total = (
            each[:count]
            for each in exponentiate(
                buffer[piece:],
                buffer[:room],
                piece=piece,
                wide=wide,
                compile=settings.compile,
                cap=cap,
            )
        )
        e = buffer[:count]
        log_sum, label_logit = vocabulary.combine(reference + total.log(), at_label * here)
        loss, share = log_sum - label_logit, (reference - log_sum).exp()
        if settings.z_loss:
            loss += settings.z_loss * log_sum.square()
            share *= 1 + 2 * settings.z_loss * log_sum
        nll[chunk] = loss.squeeze(-1)
        if row_gradients is not None and grad_hidden is not None and grad_weight is not None:
            # by the logits it is a factor of the row times (exponentials - a number at the label)
            label = (at_label - reference).exp() - here / share
            if cap is not None:
                label *= cap_slope(at_label, cap)
            rounded = label.to(e.dtype)
            e[numbers[:count], column] = rounded
            # the label's number outweighs the others: what rounding took from it goes to the factor
            kept = torch.where(rounded == 0, 1.0, label / rounded)
            factor = share * row_gradients[chunk] * kept
            torch.mm(e, narrow_weight, out=grad_hidden[chunk]).mul_(factor)
            _add_product(grad_weight, e, (x * factor).to(x.dtype))
    if grad_hidden is not None:
        vocabulary.sum(grad_hidden)
    return _Walk(nll.masked_fill_(ignored, 0), grad_hidden, grad_weight)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add ``a.T @ b`` to ``total``: where that is wider, a few rows at a time, fresh from cache."""
    if total.dtype == a.dtype:
        total.addmm_(a.T, b)
        return
    step = max(1, _PRODUCT_NUMBERS // b.shape[1]) if a.device.type == "cpu" else a.shape[1]
    for part, columns in zip(torch.split(total, step), torch.split(a, step, dim=1), strict=True):
        part += torch.mm(columns.T, b)


def _check(x: Tensor, labels: Tensor, *, reduction: str, z_loss: float) -> None:
    if x.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not fit {tuple(x.shape)}; every row but the "
            f"last dimension needs one label"
        )
    check_name(("sum", "none"), reduction=reduction)
    check_weight(z_loss=z_loss)
