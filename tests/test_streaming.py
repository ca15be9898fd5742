"""Streaming decode: the samples of the whole, final when they are returned, however the codes arrive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snac.engine import build
from snac.engine.torch_chain import FoldedModel
from snac.errors import InputTypeError, InputValueError
from snac.hub.registry import MODELS
from snac.hub.state import state_shapes
from snac.nn.model import SNAC
from snac.streaming import StreamingDecoder
from snaccli.codec import Codec
from snaccli.codec.codec import Device

from .published import randomise
from .test_engine import NAMES, config_of

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "tokens.md"


def small(name: str) -> SNAC:
    torch.manual_seed(1)
    model = SNAC.from_model_config(config_of(name)).eval()
    randomise(model, 1)
    return model


MODEL = {name: small(name) for name in NAMES}
FOLDED = {id(model): model.fold() for model in MODEL.values()}


def folded(model: SNAC) -> FoldedModel:
    return FOLDED[id(model)]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> SNAC:
    return MODEL[request.param]


def random_codes(model: SNAC, units: int, batch: int = 1, seed: int = 0) -> list[Tensor]:
    """Codes of ``units`` times as many latent frames as a signal is padded to."""
    rng = torch.Generator().manual_seed(seed)
    frames = units * model.config.frame_alignment
    size = model.codebook_size
    return [torch.randint(size, (batch, frames // s), generator=rng) for s in model.vq_strides]


def frames_of(model: SNAC, codes: Sequence[Tensor], sizes: Sequence[int]) -> Iterator[list[Tensor]]:
    """The codes in pieces of so many of the coarsest tokens each, in turn."""
    position, coarsest, turn = 0, model.vq_strides[0], 0
    while position < codes[0].shape[1]:
        end = position + sizes[turn % len(sizes)]
        yield [
            code[:, position * coarsest // s : end * coarsest // s]
            for code, s in zip(codes, model.vq_strides, strict=False)
        ]
        position, turn = end, turn + 1


def streamed(model: SNAC, pieces: Iterator[list[Tensor]], seed: int | None = 0) -> Tensor:
    decoder = StreamingDecoder(folded(model), seed=seed)
    parts = [decoder.push(piece) for piece in pieces]
    return torch.cat([*parts, decoder.finish()], dim=-1)


def whole(model: SNAC, codes: Sequence[Tensor], seed: int | None = 0) -> Tensor:
    with torch.inference_mode():
        return model.decode(codes, seed=seed)


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert one.abs().max() > 0.01


@pytest.mark.parametrize("seed", [0, 3, None])
@pytest.mark.parametrize("sizes", [(1,), (2, 1, 5), (1000,)])
def test_pieces_equal_the_whole(model: SNAC, sizes: tuple[int, ...], seed: int | None) -> None:
    for units in (1, 5):
        codes = random_codes(model, units, batch=2, seed=units)
        assert_same(streamed(model, frames_of(model, codes, sizes), seed), whole(model, codes, seed))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(NAMES)), st.data())
def test_single_tokens_in_any_order_of_levels_equal_the_whole(name: str, data: st.DataObject) -> None:
    model = MODEL[name]
    codes = random_codes(model, data.draw(st.integers(1, 3)), seed=data.draw(st.integers(0, 9)))
    codes = codes[: data.draw(st.integers(1, len(codes)))]
    done = [0] * len(codes)
    decoder, parts = StreamingDecoder(folded(model)), []
    while any(place < code.shape[1] for place, code in zip(done, codes, strict=True)):
        steps = data.draw(st.tuples(*[st.integers(0, 5)] * len(codes)).filter(any))
        parts.append(decoder.push([c[:, d : d + n] for c, d, n in zip(codes, done, steps, strict=True)]))
        done = [min(d + n, c.shape[1]) for c, d, n in zip(codes, done, steps, strict=True)]
    assert_same(torch.cat([*parts, decoder.finish()], dim=-1), whole(model, codes))


def test_what_is_returned_is_final_and_no_later_than_said(model: SNAC) -> None:
    """Other codes afterwards change nothing, and never is more held back than `latency`."""
    units = 96 // model.config.frame_alignment
    codes, others = random_codes(model, units, seed=1), random_codes(model, units, seed=2)
    expected = whole(model, codes)[0, 0]
    held, pieces = [], list(frames_of(model, codes, (1,)))
    for count in (3, 10, 17):
        mixed = pieces[:count] + list(frames_of(model, others, (1,)))[count:]
        decoder = StreamingDecoder(folded(model))
        returned = torch.cat([decoder.push(piece) for piece in mixed[:count]], dim=-1)[0, 0]
        torch.testing.assert_close(returned, expected[: len(returned)], atol=1e-5, rtol=0)
        assert not torch.equal(whole(model, [torch.cat(c, 1) for c in zip(*mixed, strict=True)]), expected)
    decoder, got = StreamingDecoder(folded(model)), 0
    for number, piece in enumerate(pieces):
        got += decoder.push(piece).shape[-1]
        held.append((number + 1) * model.vq_strides[0] * model.hop_length - got)
    assert max(held) <= decoder.latency
    window = (model.config.attention_window or 1) * model.hop_length
    assert max(held) > decoder.latency - window, "the latency said is not larger than need be"


def test_one_sample_less_latency_would_be_wrong() -> None:
    """The first sample held back does depend on codes to come."""
    model = MODEL["even-depthwise"]
    codes, others = random_codes(model, 9, seed=1), random_codes(model, 9, seed=2)
    cut = 6
    decoder = StreamingDecoder(folded(model))
    given = sum(decoder.push(piece).shape[-1] for piece in list(frames_of(model, codes, (1,)))[:cut])
    mixed = [
        torch.cat((code[:, : cut * model.vq_strides[0] // s], other[:, cut * model.vq_strides[0] // s :]), 1)
        for code, other, s in zip(codes, others, model.vq_strides, strict=True)
    ]
    differ = (whole(model, codes) - whole(model, mixed))[0, 0].abs() > 1e-7
    first = int(differ.nonzero()[0])
    assert given <= first < given + model.hop_length


def test_memory_held_does_not_grow(model: SNAC) -> None:
    decoder = StreamingDecoder(folded(model))
    sizes = []
    for piece in frames_of(model, random_codes(model, 40), (1,)):
        decoder.push(piece)
        stream = decoder._stream
        assert stream is not None
        held = [node.held for nodes in stream._flow._lanes for node in nodes if node.held is not None]
        sizes.append(sum(array.size for array in (*held, *stream._tokens)))
        assert not any(node.waiting for nodes in stream._flow._lanes for node in nodes)
    assert max(sizes[len(sizes) // 2 :]) <= max(sizes[: len(sizes) // 2])


def test_equals_the_decoding_of_a_long_recording(model: SNAC, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_PUSH_SECONDS", 3 * model.config.frame_alignment / model.config.frame_rate)
    codes = random_codes(model, 30)
    assert_same(streamed(model, frames_of(model, codes, (4, 1))), folded(model).decode(codes))


def test_an_engine_streams_arrays(model: SNAC) -> None:
    codes = random_codes(model, 3, batch=2)
    decoder = StreamingDecoder(folded(model).engine)
    parts = [decoder.push([level.numpy() for level in piece]) for piece in frames_of(model, codes, (1, 2))]
    audio = torch.from_numpy(np.concatenate([*parts, decoder.finish()], axis=1))
    assert_same(audio[:, None], whole(model, codes))
    assert decoder.latency == StreamingDecoder(folded(model)).latency


def test_what_has_an_engine_streams_arrays() -> None:
    model = MODEL["odd-attention"]
    codec = Codec(folded(model).engine, "odd", Device("cpu"))
    decoder, codes = StreamingDecoder(codec), random_codes(model, 2)
    for levels in (codes, [code.numpy() for code in codes]):
        parts = [decoder.push(levels), decoder.finish()]
        assert all(isinstance(part, np.ndarray) for part in parts)
        assert_same(torch.from_numpy(np.concatenate(parts, axis=1))[:, None], whole(model, codes))


@pytest.mark.parametrize("other", [5, "mini", None, nn.Identity(), object])
def test_a_decoder_is_not_made_of_anything_else(other: Any) -> None:
    with pytest.raises(InputTypeError, match=r"made of a SNAC, .* not of a (int|str|NoneType|Identity|type)"):
        StreamingDecoder(other)


def test_a_decoder_begins_anew_after_the_end() -> None:
    model = MODEL["odd-attention"]
    decoder = StreamingDecoder(folded(model))
    for batch in (1, 3):
        codes = random_codes(model, 2, batch)
        again = torch.cat([decoder.push(codes), decoder.finish()], dim=-1)
        assert_same(again, whole(model, codes))
    assert decoder.finish().shape == (1, 1, 0)


def test_wrong_codes_are_refused_and_change_nothing() -> None:
    model = MODEL["odd-attention"]
    decoder, codes = StreamingDecoder(folded(model)), random_codes(model, 1)
    with pytest.raises(InputValueError, match="1 to 4 levels, not 5"):
        decoder.push([*codes, codes[-1]])
    wrong = codes[2].clone()
    wrong[0, 1] = 64
    with pytest.raises(InputValueError, match=r"level 2 has a code outside 0\.\.63: 64, token 1 of.* row 0"):
        decoder.push([codes[0], codes[1], wrong, codes[3]])
    with pytest.raises(InputValueError, match=r"level 1 is of float32"):
        decoder.push([codes[0], codes[1].float(), codes[2], codes[3]])
    with pytest.raises(InputTypeError, match="not a int"):
        decoder.push(5)  # type: ignore[arg-type]
    with pytest.raises(InputValueError, match=r"level 1 has shape \(2,\)"):
        decoder.push([codes[0], codes[1][0], codes[2], codes[3]])
    decoder.push(codes)
    with pytest.raises(InputValueError, match="finish the stream first"):
        decoder.push(codes[:2])
    assert_same(decoder.finish(), whole(model, codes))


def test_what_decode_would_not_take_does_not_end() -> None:
    model = MODEL["odd-attention"]
    decoder, codes = StreamingDecoder(folded(model)), random_codes(model, 1)
    decoder.push([codes[0], codes[1], codes[2], codes[3][:, :-1]])
    with pytest.raises(InputValueError, match=r"levels of \[1, 2, 4, 7\] tokens"):
        decoder.finish()
    decoder.push([code[:, :0] for code in codes[:3]] + [codes[3][:, -1:]])
    assert_same(decoder.finish(), whole(model, codes))
    model = MODEL["no-noise-attention"]
    decoder, codes = StreamingDecoder(folded(model)), random_codes(model, 1)
    decoder.push([code[:, : code.shape[1] // 2] for code in codes])
    with pytest.raises(InputValueError, match="8 latent frames are no multiple of the 16"):
        decoder.finish()


@pytest.mark.parametrize("name", MODELS)
def test_latencies_are_those_documented(name: str) -> None:
    config = MODELS[name].config
    arrays = {key: np.broadcast_to(np.float32(1), shape) for key, shape in state_shapes(config).items()}
    engine = build.Engine(build._CpuBackend(config, arrays), "0" * 16, 1)
    decoder, encoder = StreamingDecoder(engine), engine.encoder_stream()
    row = re.search(rf"^\| `{name}` \|(.*)\|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    frame = config.vq_strides[0] * config.hop_length
    # With attention nothing comes before the first window's codes, and three latent frames more, are there.
    window = config.attention_window or 1
    first = -(-(window + 3) // config.vq_strides[0]) if window > 1 else decoder.latency // frame + 1
    milliseconds = [round(1000 * n / config.sampling_rate) for n in (frame, decoder.latency, encoder.latency)]
    assert [cell.strip() for cell in row[1].split("|")] == [
        str(sum(config.vq_strides[0] // s for s in config.vq_strides)),
        f"{milliseconds[0]} ms",
        f"{decoder.latency} samples, {milliseconds[1]} ms",
        f"{first}",
        f"{encoder.latency} samples, {milliseconds[2]} ms",
    ]
