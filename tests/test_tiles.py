"""Tiles: the result of the whole signal, at every length and tile size."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from snac.engine.stages import inputs_reaching
from snac.engine.tiles import decode_tiles, decoder_reach, encode_tiles, tile_frames
from snac.nn.model import SNAC

from .published import FULL, SMALL, randomise, test_signal

RATE = 8000


@pytest.fixture(scope="module", params=SMALL)
def model(request: pytest.FixtureRequest) -> SNAC:
    torch.manual_seed(1)
    model = SNAC(**SMALL[request.param]).eval()
    randomise(model, 1)
    return model.fold()


def blocks_of(audio: Tensor, sizes: tuple[int, ...]) -> Iterator[Tensor]:
    position = 0
    while position < audio.shape[1]:
        for size in sizes:
            yield audio[:, position : position + size]
            position += size


def hostile_lengths(model: SNAC) -> list[int]:
    hop, unit = model.hop_length, model.config.pad_multiple
    tile = 2 * unit
    edges = [hop - 1, hop, hop + 1, unit - 1, unit, unit + 1, tile - 1, tile, tile + 1, 3 * tile + 1]
    return sorted({1, 2, 997, 2503, *edges})


@torch.inference_mode()
def test_tiles_equal_the_whole(model: SNAC) -> None:
    differing = tokens = 0
    for length in hostile_lengths(model):
        audio = test_signal(length, RATE, length)
        whole_codes = model.encode(audio)
        whole_audio = model.decode(whole_codes)[:, 0]
        for tiles, workers in ((1, 1), (2, 3), (5, 2)):
            frames = tiles * model.config.frame_alignment
            parts = list(encode_tiles(model, blocks_of(audio[0], (1, 333, 64)), 1, frames, workers))
            codes = [torch.cat(level, dim=1) for level in zip(*parts, strict=True)]
            assert [code.shape for code in codes] == [code.shape for code in whole_codes]
            differing += sum(int((a != b).sum()) for a, b in zip(codes, whole_codes, strict=True))
            tokens += sum(code.numel() for code in codes)
            decoded = torch.cat(list(decode_tiles(model, whole_codes, frames=frames, workers=workers)), dim=1)
            torch.testing.assert_close(decoded, whole_audio, atol=1e-5, rtol=0)
    assert differing <= tokens // 1000  # ties at float rounding


@torch.inference_mode()
def test_a_part_is_cut_from_the_whole(model: SNAC) -> None:
    codes = model.encode(test_signal(4000, RATE, 7))
    whole = model.decode(codes)[:, 0]
    total = whole.shape[1] // model.hop_length
    for start, stop in ((0, 1), (3, 4), (5, total - 2), (total - 1, total), (7, None)):
        part = torch.cat(list(decode_tiles(model, codes, start=start, stop=stop)), dim=1)
        wanted = whole[:, start * model.hop_length : (stop or total) * model.hop_length]
        torch.testing.assert_close(part, wanted, atol=1e-5, rtol=0)


def test_reach_is_enough_and_not_wasteful(model: SNAC) -> None:
    """Beyond the reach a changed input changes nothing; within it, it does."""
    unit, hop = model.config.frame_alignment, model.hop_length
    middle = -(inputs_reaching(model.encoder.block, 0, 0)[0] // hop) + 2 * unit
    low, high = inputs_reaching(model.encoder.block, middle, middle)
    audio = test_signal(high + 1 + 2 * unit * hop, RATE, 3)
    audio = audio[..., : audio.shape[-1] // (unit * hop) * unit * hop]
    with torch.inference_mode():
        quiet = model.encoder(audio)[..., middle]
        for first, last, same in ((0, low, True), (high + 1, None, True), (low, low + hop, False)):
            changed = audio.clone()
            changed[..., max(first, 0) : last] += 0.5
            assert torch.equal(model.encoder(changed)[..., middle], quiet) == same


@torch.inference_mode()
def test_channels_are_coded_by_themselves(model: SNAC) -> None:
    left, right = test_signal(2000, RATE, 1)[0], test_signal(2000, RATE, 2)[0]
    both = list(encode_tiles(model, [torch.cat((left, right))], 2))
    alone = list(encode_tiles(model, [right], 1))
    for level in range(model.n_codebooks):
        assert torch.equal(both[0][level][1:], alone[0][level])


def test_no_audio_gives_no_tiles(model: SNAC) -> None:
    assert list(encode_tiles(model, [], 1)) == []
    assert list(encode_tiles(model, [torch.zeros(1, 0)], 1)) == []


def test_full_configurations_have_tiles_of_moderate_length() -> None:
    for config in FULL.values():
        model = SNAC(**config)
        seconds = tile_frames(model) * model.hop_length / model.sampling_rate
        assert 0.3 < seconds < 4
        assert tile_frames(model) % model.config.frame_alignment == 0
        assert 0 < decoder_reach(model)[0] <= 2 * model.config.frame_alignment + 16


@torch.inference_mode()
def test_lower_precision_changes_little(model: SNAC) -> None:
    half = copy.deepcopy(model)
    fingerprint = model.fingerprint()
    half.lower_precision(torch.bfloat16)
    audio = test_signal(4000, RATE, 5)[0]
    codes = [torch.cat(level, dim=1) for level in zip(*encode_tiles(model, [audio], 1), strict=True)]
    others = [torch.cat(level, dim=1) for level in zip(*encode_tiles(half, [audio], 1), strict=True)]
    assert [code.shape for code in codes] == [code.shape for code in others]
    decoded, other = (torch.cat(list(decode_tiles(each, codes)), dim=1) for each in (model, half))
    assert other.dtype == torch.float32
    assert half.fingerprint() == fingerprint
    assert not torch.equal(decoded, other)
    assert (decoded - other).norm() < 0.1 * decoded.norm()
