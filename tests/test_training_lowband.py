"""The low-band path: a waveform coder within the model, from the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from snac.nn.model import SNAC
from snaccli.errors import UsageError
from snaccli.training.losses import LowBandLoss
from snaccli.training.lowband import LowBandPath, bands_below, lapped_transform, with_codebook_dim

RATE = 8000
CONFIG = {
    "sampling_rate": RATE,
    "encoder_dim": 8,
    "encoder_rates": [4, 5],
    "decoder_dim": 64,
    "decoder_rates": [5, 4],
    "attn_window_size": None,
    "codebook_size": 256,
    "codebook_dim": 4,
    "vq_strides": [2, 1],
}


@pytest.fixture
def model() -> SNAC:
    torch.manual_seed(0)
    return SNAC(**CONFIG).eval()  # type: ignore[arg-type]


def tones(count: int, length: int = 4000) -> Tensor:
    """Clips (count, 1, length) of three tones below 500 Hz each."""
    time = torch.arange(length) / RATE
    generator = torch.Generator().manual_seed(1)
    pitches = 80 + 420 * torch.rand(count, 3, 1, generator=generator)
    phases = 6.3 * torch.rand(count, 3, 1, generator=generator)
    return 0.1 * torch.sin(2 * torch.pi * pitches * time + phases).sum(1, keepdim=True)


@pytest.mark.parametrize("bands", [2, 4, 5])
def test_overlapping_transforms_are_inverted_by_their_transpose(bands: int) -> None:
    basis = lapped_transform(bands)
    signal = torch.randn(1, 1, 12 * bands)
    split = torch.nn.functional.conv1d(signal, basis[:, None], stride=bands)
    joined = torch.nn.functional.conv_transpose1d(split, basis[:, None], stride=bands)
    torch.testing.assert_close(joined[..., bands:-bands], signal[..., bands:-bands], atol=1e-5, rtol=0)


def test_bands_cover_the_frequency_asked_for() -> None:
    assert bands_below(1100, 24000, [4, 4, 4, 5]) == [1, 1, 2, 6, 30]
    assert bands_below(1e6, 8000, [2, 4]) == [1, 2, 8]


@torch.no_grad()
def test_low_tones_pass_through_an_untrained_model(model: SNAC) -> None:
    audio, loss = tones(4), LowBandLoss(RATE)
    before = float(loss(model.decoder(model.encoder(audio))[:, 0], audio[:, 0]))
    path = LowBandPath.least_used(model, below=1000)
    path.build(model)
    latents = torch.zeros_like(model.encoder(audio))
    channels = list(path.encoder[-1])
    latents[:, channels] = model.encoder(audio)[:, channels]
    after = float(loss(model.decoder(latents)[:, 0], audio[:, 0]))
    assert before > 0.9
    assert after < 0.5  # what the random layers beside the path make of it


@torch.no_grad()
def test_the_finest_level_alone_carries_the_waveform(model: SNAC) -> None:
    model = with_codebook_dim(model, 12)
    path = LowBandPath.least_used(model, below=1000)
    path.build(model)
    path.fit(model, [tones(32)], [tones(64)], torch.Generator().manual_seed(0))
    audio, loss = tones(4), LowBandLoss(RATE)
    z_q, _ = model.quantizer(model.encoder(audio))
    quiet = torch.zeros_like(z_q)
    channels = list(path.encoder[-1])
    quiet[:, channels] = z_q[:, channels]
    assert float(loss(model.decoder(quiet)[:, 0], audio[:, 0])) < 0.7


@torch.no_grad()
def test_wider_codewords_change_nothing(model: SNAC) -> None:
    wide = with_codebook_dim(model, 9)
    audio = tones(1)
    assert all(torch.equal(a, b) for a, b in zip(model.encode(audio), wide.encode(audio), strict=True))
    codes = model.encode(audio)
    torch.testing.assert_close(model.decode(codes), wide.decode(codes), atol=1e-5, rtol=0)


def test_training_leaves_the_path_where_it_is_and_moves_the_rest(model: SNAC) -> None:
    path = LowBandPath.least_used(model, below=1000)
    path.build(model)
    path.hold(model.train())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    decoded, _ = model(tones(2))
    decoded.square().mean().backward()
    optimizer.step()
    after = model.state_dict()
    rows = list(path.encoder[-1])
    kept, moved = "encoder.block.3.parametrizations.weight.original1", "decoder.model.1.bias"
    assert torch.equal(after[kept][rows], before[kept][rows])
    assert not torch.equal(after[kept], before[kept])
    assert not torch.equal(after[moved], before[moved])
    fine = "quantizer.quantizers.1.in_proj.parametrizations.weight.original1"
    assert torch.equal(after[fine], before[fine])


def test_a_path_is_kept_beside_the_model(model: SNAC, tmp_path: Path) -> None:
    path = LowBandPath.least_used(model)
    path.write(tmp_path)
    assert LowBandPath.read(tmp_path) == path
    with pytest.raises(UsageError, match="no low-band path"):
        LowBandPath.read(tmp_path / "none")


def test_models_of_another_kind_are_refused() -> None:
    odd = SNAC(**(CONFIG | {"depthwise": False}))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="depthwise"):
        LowBandPath.least_used(odd)
