"""The model within graphs: compiled, exported, traced, without values, and under what torch.func makes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from snac import SNAC
from snac.nn.layers import snake

from .published import randomise

CLOSE = {"atol": 1e-5, "rtol": 0.0}


class Decoding(nn.Module):
    """Decoding as a module, whose inputs are three levels."""

    def __init__(self, model: SNAC) -> None:
        super().__init__()
        self.model = model

    def forward(self, *codes: Tensor) -> Tensor:
        return self.model.decode(codes)


@pytest.fixture(scope="module")
def model() -> SNAC:
    torch.manual_seed(0)
    rates = {"encoder_rates": (2, 4), "decoder_rates": (4, 2), "vq_strides": (4, 2, 1)}
    made = SNAC(24000, 8, decoder_dim=32, attn_window_size=None, codebook_size=64, codebook_dim=4, **rates)
    randomise(made, 0)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def audio() -> Tensor:
    return torch.randn(1, 1, 1024, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def codes(model: SNAC, audio: Tensor) -> list[Tensor]:
    return model.encode(audio)


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    torch.compiler.reset()


def twice(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat((tensor, tensor), dim=-1) for tensor in tensors]


@pytest.mark.slow
def test_decoding_is_compiled_as_one_graph_for_any_length(model: SNAC, codes: list[Tensor]) -> None:
    decode = torch.compile(model.decode, backend="eager", fullgraph=True, dynamic=True)
    for given in (codes, twice(codes)):
        expected = model.decode(given)
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(decode(given), expected, **CLOSE)
    assert not torch.allclose(model.decode(codes, seed=None), model.decode(codes), atol=1e-3)


@pytest.mark.slow
def test_a_compiled_model_gives_the_same(model: SNAC, audio: Tensor, codes: list[Tensor]) -> None:
    expected, _ = model(audio)
    other = copy.deepcopy(model)
    other.compile(backend="eager")
    for decoded, found in (other(audio), torch.compile(model, backend="eager", fullgraph=True)(audio)):
        torch.testing.assert_close(decoded, expected, **CLOSE)
        assert all(torch.equal(one, two) for one, two in zip(found, codes, strict=True))


@pytest.mark.slow
def test_a_compiled_decoder_may_take_the_place_of_the_decoder(model: SNAC, codes: list[Tensor]) -> None:
    other = copy.deepcopy(model)
    other.decoder = torch.compile(other.decoder, backend="eager", dynamic=True)  # type: ignore[assignment]
    for given in (codes, twice(codes)):
        torch.testing.assert_close(other.decode(given), model.decode(given), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_decoding_is_exported_with_lengths_left_open(model: SNAC, codes: list[Tensor], strict: bool) -> None:
    coarse = torch.export.Dim("coarse", min=2, max=4096)
    shapes = {"codes": ({1: coarse}, {1: 2 * coarse}, {1: 4 * coarse})}
    exported = torch.export.export(Decoding(model), tuple(codes), dynamic_shapes=shapes, strict=strict)
    for given in (codes, twice(codes)):
        torch.testing.assert_close(exported.module()(*given), model.decode(given), **CLOSE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_takes_other_lengths(model: SNAC, audio: Tensor, codes: list[Tensor]) -> None:
    decoding = torch.jit.trace(Decoding(model), tuple(codes))
    whole = torch.jit.trace(model, (audio,), check_trace=False)
    for levels, signal in ((codes, audio), (twice(codes), torch.cat((audio, audio), dim=-1))):
        torch.testing.assert_close(decoding(*levels), model.decode(levels), **CLOSE)
        torch.testing.assert_close(whole(signal)[0], model(signal)[0], **CLOSE)


def test_shapes_are_had_without_values(model: SNAC, codes: list[Tensor]) -> None:
    for each in (model, SNAC.from_pretrained("mini")):
        nowhere = copy.deepcopy(each).to("meta")
        unit = each.config.pad_multiple
        levels = nowhere.encode(torch.empty(2, 1, unit, device="meta"))
        assert nowhere.decode(levels).shape == (2, 1, unit)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of operations that torch maps one by one
def test_decoding_is_mapped_over_a_further_dimension(model: SNAC, codes: list[Tensor]) -> None:
    mapped = torch.func.vmap(lambda *levels: model.decode(levels))
    stacked = mapped(*(torch.stack((code, code.flip(-1))) for code in codes))
    torch.testing.assert_close(stacked[0], model.decode(codes), **CLOSE)
    torch.testing.assert_close(stacked[1], model.decode([code.flip(-1) for code in codes]), **CLOSE)


def test_snake_has_derivatives_of_every_kind() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=rng).requires_grad_()
    alpha = (torch.rand(1, 3, 1, dtype=torch.float64, generator=rng) + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(snake, (x, alpha), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(snake, (x, alpha), check_fwd_over_rev=True)
    for shape in ((2, 3, 1), (1, 3, 4), (3, 1), ()):  # whatever can be multiplied with x
        other = (torch.rand(shape, dtype=torch.float64, generator=rng) + 0.3).requires_grad_()
        assert torch.autograd.gradcheck(snake, (x, other))


def test_transforms_of_torch_func_go_through_the_encoder(model: SNAC, audio: Tensor) -> None:
    encoder, step = copy.deepcopy(model.encoder).double(), 1e-5
    signal = audio[..., :64].double()
    _, slope = torch.func.jvp(encoder, (signal,), (signal,))
    difference = (encoder(signal * (1 + step)) - encoder(signal * (1 - step))) / (2 * step)
    torch.testing.assert_close(slope, difference, atol=1e-6, rtol=1e-4)
    weights = dict(encoder.named_parameters())

    def loss(weights: dict[str, Tensor], example: Tensor) -> Tensor:
        return torch.func.functional_call(encoder, weights, (example[None],)).square().mean()

    both = torch.cat((signal, signal.flip(-1)))
    name = "block.1.block.0.block.0.alpha"
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, both)[name]
    torch.testing.assert_close(each[1], torch.func.grad(loss)(weights, both[1])[name])
    assert each.abs().max() > 0


def test_a_penalty_on_gradients_is_differentiated(model: SNAC, audio: Tensor) -> None:
    signal = audio.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.encoder(signal).square().mean(), signal, create_graph=True)
    gradient.square().sum().backward()
    assert signal.grad is not None
    assert signal.grad.abs().max() > 0
