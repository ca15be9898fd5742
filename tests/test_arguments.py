"""What a Python caller of the model may get wrong: one line says what is wanted and what was got."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from snac import SNAC, SnacError
from snac.config import SpectralConfig, Stack

WAVEFORM = {
    "sampling_rate": 8000, "encoder_dim": 16, "encoder_rates": [2, 4], "decoder_dim": 64,
    "decoder_rates": [4, 2], "attn_window_size": 4, "codebook_size": 50, "vq_strides": [2, 1],
}  # fmt: skip
SPECTRAL = SpectralConfig(
    sampling_rate=8000, hop_length=8, window_length=32, latent_dim=8, encoder=Stack(4, 8, 1),
    decoder=Stack(4, 8, 1), codebook_size=50, vq_strides=(2, 1),
)  # fmt: skip


@pytest.fixture(scope="module", params=["waveform", "spectral"])
def model(request: pytest.FixtureRequest) -> SNAC:
    made = SNAC(**WAVEFORM) if request.param == "waveform" else SNAC.from_model_config(SPECTRAL)
    return made.eval()


def refusal(kind: type[Exception], function: Any, *arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        function(*arguments)
    assert isinstance(caught.value, SnacError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


WANTED = "audio must be a (batch, 1, samples) tensor of float32 in -1 to 1 at 8000 Hz, not "


@pytest.mark.parametrize(
    ("audio", "kind", "got"),
    [
        (torch.zeros(800, 2), ValueError, "of shape (800, 2): give audio.T[:, None], each channel by itself"),
        (torch.zeros(2, 800), ValueError, "of shape (2, 800): give audio[:, None], each channel by itself"),
        (torch.zeros(800), ValueError, "of shape (800,): give audio[None, None]"),
        (torch.zeros(1, 2, 800), ValueError, "of shape (1, 2, 800): give audio.flatten(0, 1)[:, None]"),
        (torch.zeros(1, 1, 1, 800), ValueError, "of shape (1, 1, 1, 800)"),
        (torch.tensor(0.5), ValueError, "of shape ()"),
        (torch.zeros(1, 1, 0), ValueError, "of shape (1, 1, 0): there are no samples"),
        (torch.zeros(0, 1, 800), ValueError, "of shape (0, 1, 800): there are no samples"),
        (torch.zeros(1, 1, 800, dtype=torch.int16), TypeError, "int16: divide 16-bit samples by 32768"),
        (torch.zeros(1, 1, 800, dtype=torch.int64), TypeError, "int64"),
        (torch.zeros(1, 1, 800, dtype=torch.complex64), TypeError, "complex64"),
        (torch.zeros(1, 1, 800, dtype=torch.float64), TypeError, "float64: give audio.float()"),
        (np.zeros((1, 1, 800), np.float32), TypeError, "a ndarray: torch.from_numpy makes one of it"),
        ([0.0] * 800, TypeError, "a list"),
        (None, TypeError, "a NoneType"),
    ],
)
def test_audio_that_cannot_be_encoded(model: SNAC, audio: Any, kind: type[Exception], got: str) -> None:
    for function in (model.encode, model):
        message = refusal(kind, function, audio)
        assert message.startswith(WANTED + got), message


def codes(first: Any = (1, 2), second: Any = (1, 2, 3, 4)) -> list[Any]:
    return [torch.tensor([first]), torch.tensor([second])]


@pytest.mark.parametrize(
    ("given", "kind", "got"),
    [
        (codes((1, 50)), ValueError, "below 50; level 0 has 50"),
        (codes((1, 2), (1, 2, -3, 4)), ValueError, "below 50; level 1 has -3"),
        (codes((1, 2), (1, 2, 3, 1 << 40)), ValueError, f"level 1 has {1 << 40}"),
        (codes((1.0, 2.0)), TypeError, "level 0 is of float32"),
        (codes((True, False)), TypeError, "level 0 is of bool"),
        (
            [torch.tensor([1, 2]), torch.tensor([1, 2, 3, 4])],
            ValueError,
            "of shape (2,): give code.unsqueeze(0)",
        ),
        ([torch.zeros(1, 1, 2, dtype=torch.int64)], ValueError, "level 0 is of shape (1, 1, 2)"),
        (torch.tensor([[1, 2]]), ValueError, "level 0 is of shape (2,)"),
        ([[1, 2], [1, 2, 3, 4]], TypeError, "level 0 is a list"),
        ([np.zeros((1, 2), np.int64)], TypeError, "level 0 is a ndarray"),
        (7, TypeError, "not a int"),
        ("codes", TypeError, "not a str"),
        ({0: torch.tensor([[1, 2]])}, TypeError, "not a dict"),
        ([], ValueError, "1 to 2 levels, not 0"),
        ([*codes(), torch.tensor([[1, 2, 3, 4]])], ValueError, "1 to 2 levels, not 3"),
        (codes((1, 2), (1, 2, 3)), ValueError, "levels of [2, 3] tokens do not fit the strides [2, 1]"),
        ([torch.zeros(1, 0, dtype=torch.int64)], ValueError, "at least one token"),
        ([torch.zeros(0, 2, dtype=torch.int64)], ValueError, "at least one token"),
        ([torch.tensor([[1, 2]]), torch.tensor([[1, 2, 3, 4]] * 2)], ValueError, "different batches: [1, 2]"),
    ],
)
def test_codes_that_cannot_be_decoded(model: SNAC, given: Any, kind: type[Exception], got: str) -> None:
    assert got in refusal(kind, model.decode, given)


@torch.no_grad()
def test_codes_of_every_width_of_whole_numbers_are_taken(model: SNAC) -> None:
    expected = model.decode(codes())
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(model.decode([code.to(dtype) for code in codes()]), expected)
    assert torch.equal(model.decode(tuple(codes())), expected)
    assert torch.equal(model.decode(code for code in codes()), expected)  # type: ignore[arg-type]


def test_attention_takes_whole_windows() -> None:
    model = SNAC(**WAVEFORM).eval()
    message = refusal(ValueError, model.decode, codes((1, 2, 3), (1, 2, 3, 4, 5, 6)))
    assert message.startswith("codes of 6 latent frames are no multiple of 4, the attention's window")
    assert message.endswith("leave out 1 of the 3 tokens of the first level")


@torch.no_grad()
def test_audio_of_the_type_of_the_weights_is_taken() -> None:
    double = SNAC.from_model_config(SPECTRAL).double().eval()
    assert len(double.encode(torch.zeros(1, 1, 16, dtype=torch.float64))) == 2
