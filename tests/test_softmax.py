"""The cross-entropy that a prior is trained on, against that of torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from snaccli.training import softmax

COUNT, SIZE, WIDTH = 600, 50, 7  # more tokens than are computed at once, and not a multiple of that


def example(scale: float) -> tuple[list[Tensor], Tensor]:
    """Outputs, table and bias whose scores are of about such a size, and tokens."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((COUNT, WIDTH), (SIZE, WIDTH), (SIZE,))
    given = [torch.randn(shape, generator=generator) for shape in shapes]
    given[0] *= scale
    return [each.requires_grad_() for each in given], torch.randint(0, SIZE, (COUNT,), generator=generator)


@pytest.mark.parametrize("scale", [1.0, 100.0])  # with the latter the gains leave the range of float32
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_the_loss_and_its_gradients_are_those_of_torch(
    scale: float, kind: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "product_type", lambda: kind)
    (out, table, bias), target = example(scale)
    wanted = cross_entropy(out @ table.T + bias, target)
    loss = softmax.cross_entropy_of(out, table, bias, target)
    assert loss.item() == pytest.approx(wanted.item(), rel=tolerance)
    of_wanted = torch.autograd.grad(3 * wanted, (out, table, bias))
    of_loss = torch.autograd.grad(3 * loss, (out, table, bias))
    for own, theirs in zip(of_loss, of_wanted, strict=True):
        assert float((own - theirs).norm()) <= 2 * tolerance * float(theirs.norm())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_gradients_stay_finite_where_gains_nearly_leave_the_range(
    kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "product_type", lambda: kind)
    for shift in range(-120, 121, 4):
        (out, table, bias), target = example(0.01)  # all tokens alike
        loss = softmax.cross_entropy_of(out, table.abs() * 20, bias + shift, target)
        gradients = torch.autograd.grad(loss, (out, table, bias))
        assert all(bool(each.isfinite().all()) for each in (loss, *gradients))


def test_products_are_narrow_only_where_the_processor_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    softmax.product_type.cache_clear()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert softmax.product_type() is torch.float32
    softmax.product_type.cache_clear()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert softmax.product_type() is torch.bfloat16
    softmax.product_type.cache_clear()
