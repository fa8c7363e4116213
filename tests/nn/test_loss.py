"""The chunked loss is the plain loss: value and gradients, any chunk size, any labels, any type."""

import pytest
import torch
import torch.nn.functional as F

from pile_lightning.nn import cross_entropy_sum, linear_cross_entropy

# what may be done to logits, and added to the loss; large enough here that each changes it by far
SHAPES = [{}, {"logit_cap": 2.0}, {"z_loss": 0.02}, {"logit_cap": 2.0, "z_loss": 0.02}]


def problem(rows=(3, 7), vocab=19, dim=8, ignored="some", dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(*rows, dim, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab, dim, generator=generator).requires_grad_()
    labels = torch.randint(vocab, rows, generator=generator)
    if ignored == "some":
        labels[0, :5] = -100
        labels[2, 3] = -100
    elif ignored == "all":
        labels[:] = -100
    return hidden, weight, labels


def plain(hidden, weight, labels, reduction="sum", logit_cap=None, z_loss=0.0):
    logits = (hidden @ weight.to(hidden.dtype).T).float().flatten(0, -2)
    if logit_cap is not None:
        logits = logit_cap * torch.tanh(logits / logit_cap)
    flat = labels.flatten()
    nll = F.cross_entropy(logits, flat, ignore_index=-100, reduction="none")
    nll = nll + z_loss * torch.logsumexp(logits, -1) ** 2 * (flat != -100)
    return nll.sum() if reduction == "sum" else nll


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk_size", [1, 4, 7, 21, 1024])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
def test_sum_and_gradients_equal_plain(chunk_size, ignored, shape):
    hidden, weight, labels = problem(ignored=ignored)
    ours = linear_cross_entropy(hidden, weight, labels, chunk_size=chunk_size, **shape)
    theirs = plain(hidden, weight, labels, **shape)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    # not a factor of 1: the gradient that arrives must be used
    for mine, reference in zip(
        torch.autograd.grad(0.37 * ours, (hidden, weight)),
        torch.autograd.grad(0.37 * theirs, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk_size", [4, 1024])
def test_each_tokens_loss_and_its_gradient_equal_plain(chunk_size, shape):
    hidden, weight, labels = problem()
    shape = {**shape, "reduction": "none"}
    ours = linear_cross_entropy(hidden, weight, labels, chunk_size=chunk_size, **shape)
    theirs = plain(hidden, weight, labels, **shape).view(labels.shape)
    assert ours.shape == labels.shape
    assert (ours[labels == -100] == 0).all()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    factors = torch.randn(labels.shape)
    for mine, reference in zip(
        torch.autograd.grad((factors * ours).sum(), (hidden, weight)),
        torch.autograd.grad((factors * theirs).sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-6, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_compiled_equals_eager(dtype, shape):
    hidden, weight, labels = problem(vocab=300, dim=16, dtype=dtype)
    values, gradients = [], []
    for compiled in (False, True):
        value = linear_cross_entropy(
            hidden, weight, labels, chunk_size=7, compile=compiled, **shape
        )
        values.append(value)
        gradients += torch.autograd.grad(0.37 * value, (hidden, weight))
    torch.testing.assert_close(values[1], values[0], rtol=1e-6, atol=0)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(gradients[2:], gradients[:2], rtol=tolerance, atol=tolerance)


def test_large_logits_neither_overflow_nor_lose_the_small_ones():
    hidden, weight, labels = problem()
    ours = linear_cross_entropy(1000 * hidden, weight, labels)
    torch.testing.assert_close(ours, plain(1000 * hidden, weight, labels))
    assert torch.autograd.grad(ours, weight)[0].isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradients_are_those_of_the_value(reduction, shape):
    hidden, weight, labels = problem(rows=(1, 5), ignored="none", dtype=torch.float64)
    labels[0, 2] = -100

    def loss(hidden, weight):
        return linear_cross_entropy(
            hidden, weight, labels, chunk_size=2, reduction=reduction, **shape
        )

    torch.autograd.gradcheck(loss, (hidden, weight.detach().double().requires_grad_()))


@pytest.mark.parametrize("shape", SHAPES)
def test_bf16_sums_in_float32(shape):
    hidden, weight, labels = problem(rows=(8, 512), ignored="none", dtype=torch.bfloat16)
    ours = linear_cross_entropy(hidden, weight, labels, chunk_size=100, **shape)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain(hidden, weight, labels, **shape), rtol=1e-6, atol=0)
    grad_hidden, grad_weight = torch.autograd.grad(ours, (hidden, weight))
    assert (grad_hidden.dtype, grad_weight.dtype) == (torch.bfloat16, torch.float32)
    wide = hidden.detach().float().requires_grad_()
    narrowed = weight.detach().bfloat16().float().requires_grad_()
    exact = torch.autograd.grad(plain(wide, narrowed, labels, **shape), (wide, narrowed))
    torch.testing.assert_close(grad_hidden.float(), exact[0], rtol=2e-2, atol=4e-2)
    error = (grad_weight - exact[1]).norm() / exact[1].norm()
    assert error < 3.5e-3, "rounded to bf16 once it is 1.7e-3 off, summed in bf16 much more"


def test_autocast_computes_the_products_in_its_type_as_the_plain_head_does():
    hidden, weight, labels = problem()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = linear_cross_entropy(hidden, weight, labels)
        theirs = cross_entropy_sum(F.linear(hidden, weight), labels)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-5)
    assert not torch.equal(ours, linear_cross_entropy(hidden, weight, labels))
    for gradient in torch.autograd.grad(ours, (hidden, weight)):
        assert gradient.dtype == torch.float32


def test_nothing_is_kept_for_gradients_that_nobody_wants():
    hidden, weight, labels = problem()
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, labels).requires_grad
    assert not linear_cross_entropy(hidden.detach(), weight.detach(), labels).requires_grad
    loss = linear_cross_entropy(hidden, weight.detach(), labels)
    torch.testing.assert_close(
        torch.autograd.grad(loss, hidden),
        torch.autograd.grad(plain(hidden, weight, labels), hidden),
    )


def test_no_tensor_is_as_large_as_the_logits():
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    hidden, weight, labels = problem(rows=(4, 64), vocab=500, dim=4)
    with Watch():
        linear_cross_entropy(hidden, weight, labels, chunk_size=16).backward()
    assert 0 < largest <= 2 * 16 * 500, "a chunk, and a piece of one before it"


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_whole_logits_give_the_same(reduction, z_loss):
    hidden, weight, labels = problem()
    shape = {"reduction": reduction, "z_loss": z_loss}
    torch.testing.assert_close(
        cross_entropy_sum(hidden @ weight.T, labels, **shape),
        linear_cross_entropy(hidden, weight, labels, **shape),
    )


def test_shapes_must_fit_and_names_be_known():
    hidden, weight, labels = problem()
    with pytest.raises(ValueError, match=r"labels of shape \(3, 6\) do not fit \(3, 7, 8\)"):
        linear_cross_entropy(hidden, weight, labels[:, :-1])
    with pytest.raises(
        ValueError, match="reduction='mean' is unknown; choose one of 'none', 'sum'"
    ):
        linear_cross_entropy(hidden, weight, labels, reduction="mean")
    with pytest.raises(ValueError, match="chunk_size=0 is not positive; choose at least 1"):
        linear_cross_entropy(hidden, weight, labels, chunk_size=0)
    with pytest.raises(ValueError, match="logit_cap=0.0 is not above 0; choose e.g. 15, or null"):
        linear_cross_entropy(hidden, weight, labels, logit_cap=0.0)
    with pytest.raises(ValueError, match="z_loss=-0.1 is negative; choose e.g. 1e-4, or 0"):
        linear_cross_entropy(hidden, weight, labels, z_loss=-0.1)


def test_a_label_outside_the_vocabulary_is_not_taken_for_an_ignored_one():
    hidden, weight, labels = problem()
    labels[1, 1] = -1
    with pytest.raises(RuntimeError, match="out of bounds"):
        linear_cross_entropy(hidden, weight, labels)


@pytest.mark.parametrize("scale", [0.0, 0.05])
def test_float16_has_room_for_the_sum_over_a_large_vocabulary(scale):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(16, 8, generator=generator).half().requires_grad_()
    weight = (scale * torch.randn(150_000, 8, generator=generator)).requires_grad_()
    labels = torch.arange(16) * 9000
    ours = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), (hidden, weight))
    wide = hidden.detach().float().requires_grad_()
    narrowed = weight.detach().half().float().requires_grad_()
    exact = torch.autograd.grad(plain(wide, narrowed, labels), (wide, narrowed))
    torch.testing.assert_close(ours[0].float(), exact[0], rtol=1e-2, atol=1e-3)
    error = (ours[1] - exact[1]).norm() / exact[1].norm()
    assert error < 2e-3
