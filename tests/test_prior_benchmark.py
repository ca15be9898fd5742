"""The pieces of tests/benchmarks/prior.py: where its clips come from, and what its figures are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli import entropy
from snaccli.codec import Codec, dumps
from tests.benchmarks.prior import HEAD, Bits, bits_of, clips_of, recordings_of, row

RATE = 24_000
SPEECH = sorted((Path(__file__).resolve().parents[1] / "examples" / "audio").glob("speech*"))[0]


def test_packs_and_folders_give_the_same_recordings(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    parts = [rng.integers(-30000, 30000, length).astype(np.int16) for length in (700, 400)]
    np.save(tmp_path / "set.npy", np.concatenate(parts))
    rows = [{"name": "a", "start": 0, "length": 700}, {"name": "b", "start": 700, "length": 400}]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, samples in zip("ab", parts, strict=True):
        soundfile.write(folder / f"{name}.wav", np.stack([samples, samples], axis=1), RATE)
    for place in (tmp_path / "set.npy", folder):
        found = list(recordings_of(place, RATE))
        assert [each.dtype for each in found] == [np.float32] * 2
        for each, samples in zip(found, parts, strict=True):
            np.testing.assert_array_equal(each[:, 0], samples.astype(np.float32) / 32768)
    assert [len(each) for each in recordings_of(tmp_path / "set.npy", RATE // 2)] == [350, 200]


def test_clips_lie_evenly_and_are_neither_long_nor_short() -> None:
    recordings = [np.full((length, 1), length, np.float32) for length in (25, 9, 4, 10)]
    clips = clips_of(iter(recordings), most=10, least=5, count=100)
    assert [(len(clip), clip[0, 0]) for clip in clips] == [(10, 25), (10, 25), (5, 25), (9, 9), (10, 10)]
    some = clips_of(iter(recordings), most=10, least=5, count=2)
    assert [(len(clip), clip[0, 0]) for clip in some] == [(10, 25), (5, 25)]
    assert clips_of(iter(recordings), most=10, least=26, count=2) == []


def test_bits_are_those_of_the_streams_and_of_the_file() -> None:
    codec = Codec.load("mini")
    (samples,) = clips_of(recordings_of(SPEECH, codec.rate), most=2 * codec.rate, least=0, count=1)
    recording = codec.encode([samples], codec.rate, 1)
    for prior in (None, codec.prior):
        found = bits_of(recording, codec, prior)
        streams = entropy.encode(recording.codes, codec.codebooks, prior=prior)
        assert found.tokens == recording.codes.tokens
        assert found.payload == 8 * sum(len(stream.payload) for stream in streams)
        assert found.file == 8 * len(dumps(recording, codec.codebooks, prior=prior)) > found.payload
    assert bits_of(recording, codec, codec.prior).payload < bits_of(recording, codec, None).payload


def test_a_row_gives_bits_a_token_and_what_is_saved() -> None:
    adaptive = Bits(100, 700, 800) + Bits(100, 1300, 1400)
    assert adaptive == Bits(200, 2000, 2200)
    line = row("voices", [7.5, 8.5], adaptive, Bits(200, 1700, 1980))
    assert line == "| voices | 2 | 8.0 | 10.00 | 8.50 | 15.0 % | 11.00 | 9.90 | 10.0 % |"
    assert HEAD[0].count("|") == HEAD[1].count("|") == line.count("|")


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.npy"):
        next(recordings_of(tmp_path / "missing.npy", RATE))
