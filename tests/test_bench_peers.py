"""Codecs beside the models, their delays, the measures of speech, and how far means can be trusted."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli import bench
from snaccli.bench import Peer, PeerError, parse_peers, perceptual
from snaccli.bench.peers import KINDS, delay
from snaccli.bench.results import FileResult, interval, ranking
from snaccli.cli.ui.text import explain
from snaccli.errors import ParameterError
from tests.pcm_codec import install, write

ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / "examples" / "audio" / "speech-nl.flac"


@pytest.fixture(autouse=True)
def pcm_codec(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    return install(monkeypatch)


@pytest.fixture(scope="module")
def speech() -> tuple[np.ndarray, int]:
    """Four seconds of speech, mono."""
    with soundfile.SoundFile(SPEECH) as file:
        file.seek(2 * file.samplerate)
        return file.read(4 * file.samplerate, dtype="float32", always_2d=True).mean(axis=1), file.samplerate


# Names


def test_names_of_peers() -> None:
    assert parse_peers(["opus:6,12", "codec2:700C", "mp3:32", "opus:6"]) == [
        Peer("opus", "6"), Peer("opus", "12"), Peer("codec2", "700C"), Peer("mp3", "32"),
    ]  # fmt: skip
    assert parse_peers(["opus:6"])[0].name == "opus:6"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("flac:8", "there are opus:RATE"),
        ("opus", "nothing is no setting of opus"),
        ("opus:", "give kbit/s"),
        ("opus:6,", "nothing is no setting"),
        ("opus:1", "1 is no setting of opus"),
        ("opus:-6", "give kbit/s"),
        ("opus:nan", "give kbit/s"),
        ("codec2:3201", "one of 3200 2400"),
        ("mp3:--help", "give kbit/s"),
        ("x\x1b[2J:6", "there are"),
    ],
)
def test_wrong_names_are_refused(given: str, told: str) -> None:
    with pytest.raises(ParameterError, match=r"^against=") as caught:
        parse_peers([given])
    assert told in str(caught.value)
    assert explain(caught.value).startswith("--against ")
    assert str(caught.value).isprintable()


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerError, match="no c2enc on the PATH; install codec2"):
        Peer("codec2", "3200").check()


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand in for programs")
def test_a_program_that_fails_fails_the_recording_with_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speech: tuple[np.ndarray, int]
) -> None:
    for name in ("opusenc", "opusdec"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'a first line' >&2\necho 'bad \033[2J bits' >&2\nexit 3\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    recording = write(tmp_path / "a.wav", speech[0][:8000], speech[1])
    _, result = bench.run([recording], ["pcm"], against=[Peer("opus", "6")])
    (failed,) = result.failed
    assert failed.error == "opus:6: opusenc failed with status 3: bad \\x1b[2J bits"
    assert result.summary["bitrate_kbps"] is None


# Delays


@pytest.mark.parametrize("late", [0, 1, 480, -700, 5000])
def test_a_delay_is_found_to_the_sample(speech: tuple[np.ndarray, int], late: int) -> None:
    samples, rate = speech
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    decoded = np.roll(samples, late) + noise
    assert delay(samples, decoded, rate) == late


@pytest.mark.parametrize("late_ms", [0, 17, 60])
def test_without_a_waveform_the_loudness_tells_the_delay(
    speech: tuple[np.ndarray, int], late_ms: int
) -> None:
    samples, rate = speech
    loudness = np.convolve(np.abs(samples), np.ones(rate // 100) / (rate // 100), mode="same")
    vocoded = loudness * np.random.default_rng(0).standard_normal(len(samples))
    decoded = np.roll(vocoded, round(late_ms * rate / 1000)).astype(np.float32)
    assert delay(samples, decoded, rate) == pytest.approx(late_ms * rate / 1000, abs=0.004 * rate)


def test_silence_has_no_delay() -> None:
    sound, silence = np.ones(1000, np.float32), np.zeros(1000, np.float32)
    assert delay(silence, sound, 8000) == delay(sound, silence, 8000) == 0
    assert delay(silence[:0], sound[:0], 8000) == 0


# Real programs


@pytest.mark.parametrize(
    ("name", "kbits", "least_stoi"),
    [("opus:12", 12.0, 0.9), ("codec2:3200", 3.2, 0.6), ("mp3:32", 32.0, 0.95)],
)
def test_a_real_codec_is_measured(
    name: str, kbits: float, least_stoi: float, tmp_path: Path, speech: tuple[np.ndarray, int]
) -> None:
    (peer,) = parse_peers([name])
    for program in peer.kind.programs:
        if shutil.which(program) is None:
            pytest.skip(f"{name}: no {program} here (Debian: {peer.kind.package})")
    stereo = np.stack([speech[0], speech[0] * 0.9], axis=1)
    recording = write(tmp_path / "odd -name.wav", stereo, speech[1])
    model, result = bench.run([recording], ["pcm"], against=[peer])
    (file,) = result.files
    assert file.error is None
    assert (result.kind, result.model, result.label) == ("peer", name, name)
    assert result.tool
    assert file.bitrate_kbps == pytest.approx(8 * file.bytes / 4000)
    assert kbits <= file.bitrate_kbps < kbits + 3  # the container's bytes count
    assert file.bits_per_token is None
    assert file.duration_s == model.files[0].duration_s
    assert "mono" in file.note
    assert file.stoi is not None
    assert file.stoi > least_stoi  # 17 ms of delay would leave codec2 at 0.5
    assert file.encode_x_realtime > 0
    if name.startswith("opus"):
        assert file.si_sdr_db > 5  # so it was aligned to the sample


def test_every_peer_says_what_it_needs() -> None:
    assert {kind.package for kind in KINDS.values()} == {"opus-tools", "codec2", "ffmpeg"}


# Measures of speech


def test_stoi_and_pesq_of_the_same_speech_are_at_their_best(speech: tuple[np.ndarray, int]) -> None:
    samples, rate = speech
    measured = perceptual.Perceptual(rate)
    for start in range(0, len(samples), 7001):
        block = samples[start : start + 7001, None]
        measured.update(block, block)
    figures = measured.result()
    assert figures["stoi"] == pytest.approx(1.0, abs=1e-4)
    assert figures["pesq"] == pytest.approx(4.64, abs=0.01)


def test_stretches_are_weighed_by_length(
    speech: tuple[np.ndarray, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.4, 0.8])
    monkeypatch.setattr(perceptual, "stoi", lambda reference, decoded: next(values))
    monkeypatch.setattr(perceptual, "pesq", lambda reference, decoded: None)
    measured = perceptual.Perceptual(1000)
    block = np.zeros((40_000, 1), np.float32)  # 30 s and 10 s
    measured.update(block, block)
    assert measured.result() == {"stoi": pytest.approx(0.5), "pesq": None}


@pytest.mark.parametrize("frames", [0, 1, 1000, 16000])
def test_silence_and_snippets_have_neither(frames: int) -> None:
    measured = perceptual.Perceptual(16000)
    measured.update(np.zeros((frames, 1), np.float32), np.zeros((frames, 1), np.float32))
    assert measured.result() == {"stoi": None, "pesq": None}


def test_without_the_extra_it_is_said_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert perceptual.remark() == ""
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None if name == "pesq" else object())
    assert perceptual.remark() == "PESQ is left out; for it: pip install 'snaccli[metrics]'"
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    assert perceptual.remark() == "STOI and PESQ are left out; for them: pip install 'snaccli[metrics]'"
    measured = perceptual.Perceptual(16000)
    measured.update(np.ones((16000, 1), np.float32), np.ones((16000, 1), np.float32))
    assert measured.result() == {"stoi": None, "pesq": None}


# Word errors


def test_word_errors_are_counted_over_the_words_of_prompts(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="word errors: pocketsphinx is not installed")
    from tests.benchmarks.recogniser import errors, read_texts, words

    said = words("He volunteered a brand-new idea, didn't he?")
    assert said == ["he", "volunteered", "a", "brand", "new", "idea", "didn't", "he"]
    assert errors(said, said) == 0
    assert errors(said, said[1:]) == errors(said[1:], said) == 1
    assert errors(said, ["no", *said[1:], "so"]) == 2
    assert errors(said, []) == len(said)
    texts = tmp_path / "texts.txt"
    lines = (
        "; a comment: of many words, all to be left out",
        "a: one two three four five",
        "b: too short",
        "c: [a tone that lasts for ever and ever]",
        "d: press 1 for one more of these words",
    )
    texts.write_text("\n".join(lines))
    assert read_texts(texts) == {"a": ["one", "two", "three", "four", "five"]}


# Intervals


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = interval(generator.normal(3.0, 1.0, 40).tolist(), [1.0] * 40) or (0.0, 0.0)
        hits += low <= 3.0 <= high
    assert 178 <= hits <= 199


def test_an_interval_of_a_ratio_weighs_the_recordings() -> None:
    low, high = interval([10.0, 1.0], [10.0, 100.0]) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(0.01), pytest.approx(1.0))
    assert interval([1.0], [1.0]) is None
    assert interval([1.0, 2.0], [1.0, 0.0]) is None
    assert interval([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]) == (2.0, 2.0)


def test_the_worst_lead_the_ranking() -> None:
    files = [FileResult("a", mel_distance=1.0), FileResult("b"), FileResult("c", mel_distance=3.0)]
    assert ranking(files) == [2, 0]
