"""The engine: the results of the torch modules, at every length, cut and number of threads, on both forms."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snac.config import ModelConfig, SpectralConfig, Stack
from snac.engine import Engine, build, build_engine, chain
from snac.engine.chain import Flow
from snac.engine.cpu import Arena
from snac.engine.torch_chain import FullPrecision, TorchBackend
from snac.hub.checkpoint import Checkpoint
from snac.hub.state import state_shapes
from snac.nn.model import SNAC
from snac.noise import Noise

from .published import FULL, SMALL, randomise, test_signal

RATE = 8000
SPECTRAL = {
    "spectral": SpectralConfig(
        sampling_rate=RATE, hop_length=40, window_length=160, latent_dim=32, codebook_size=64, codebook_dim=4,
        vq_strides=(4, 2, 1), encoder=Stack(24, 48, 2), decoder=Stack(24, 40, 2),
    ),
    "spectral-linear": SpectralConfig(
        sampling_rate=RATE, hop_length=64, window_length=192, linear_bins=20, phase_bins=9,
        running_phases=True, latent_dim=32, codebook_size=64, codebook_dim=4, vq_strides=(8, 4, 2, 1),
        encoder=Stack(16, 40, 1), decoder=Stack(32, 48, 3),
    ),
}  # fmt: skip
NAMES = [*SMALL, *SPECTRAL]


def config_of(name: str) -> ModelConfig:
    return SPECTRAL[name] if name in SPECTRAL else ModelConfig.from_dict(SMALL[name])


def checkpoint_of(model: SNAC) -> Checkpoint:
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return Checkpoint("small", model.config, arrays, model.fingerprint())


def made(name: str) -> SNAC:
    torch.manual_seed(1)
    model = SNAC.from_model_config(config_of(name)).eval()
    randomise(model, 1)
    return model


MODEL = {name: made(name) for name in NAMES}
ENGINE = {name: build_engine(checkpoint_of(MODEL[name]), threads=1) for name in NAMES}
THREADED = {name: build_engine(checkpoint_of(MODEL[name]), threads=3) for name in NAMES}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True, scope="module")
def shared_work() -> Iterator[None]:
    """Threads share the work of these small models, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "_LEAST", 1)
        yield


def audio_of(length: int, seed: int = 0) -> np.ndarray:
    return np.asarray(test_signal(length, RATE, seed)[0].numpy())


def encoded(engine: Engine, blocks: Sequence[np.ndarray], channels: int = 1) -> list[np.ndarray]:
    parts = list(engine.encode(blocks, channels))
    return [np.concatenate(level, axis=1) for level in zip(*parts, strict=True)]


def decoded(engine: Engine, codes: Sequence[np.ndarray], **options: Any) -> np.ndarray:
    return np.concatenate(list(engine.decode(codes, **options)), axis=1)


@torch.inference_mode()
def theirs(name: str, audio: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Codes of the torch modules, and what they decode them to."""
    codes = MODEL[name].encode(torch.from_numpy(audio)[:, None])
    return [code.numpy() for code in codes], MODEL[name].decode(codes)[:, 0].numpy()


def hostile_lengths(config: ModelConfig) -> list[int]:
    hop, unit = config.hop_length, config.pad_multiple
    return sorted(
        {1, 2, 997, 2503, hop - 1, hop, hop + 1, unit - 1, unit, unit + 1, 2 * unit + 1, 7 * unit + 1}
    )


def cut(audio: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    position = turn = 0
    while position < audio.shape[1]:
        size = sizes[turn % len(sizes)]
        yield audio[:, position : position + size]
        position, turn = position + size, turn + 1


def test_results_are_those_of_the_torch_modules(name: str) -> None:
    differing = tokens = 0
    for length in hostile_lengths(config_of(name)):
        audio = audio_of(length, length)
        codes, whole = theirs(name, audio)
        for engine in (ENGINE[name], THREADED[name]):
            ours = encoded(engine, list(cut(audio, (1, 333, 64))))
            assert [level.shape for level in ours] == [level.shape for level in codes]
            assert all(level.dtype == np.uint16 for level in ours)
            differing += sum(int((a != b).sum()) for a, b in zip(ours, codes, strict=True))
            tokens += sum(level.size for level in codes)
            np.testing.assert_allclose(decoded(engine, codes), whole, atol=1e-5, rtol=0)
    assert differing <= tokens // 1000  # ties at float rounding


@pytest.mark.parametrize("place", ["cpu", "cpu-half"])
def test_torch_computes_the_same_whatever_its_defaults_and_leaves_its_random_numbers(
    name: str, place: str
) -> None:
    audio = audio_of(1500)

    def results() -> tuple[list[np.ndarray], np.ndarray]:
        checkpoint = checkpoint_of(MODEL[name])
        backend = TorchBackend(checkpoint.config, checkpoint.arrays, place)
        engine = Engine(backend, checkpoint.fingerprint, 1)
        codes = encoded(engine, [audio])
        return codes, decoded(engine, codes)

    before = torch.get_rng_state()
    codes, samples = results()
    assert torch.equal(torch.get_rng_state(), before)
    try:
        torch.set_default_device("meta")
        for kind in (torch.float64, torch.bfloat16):
            torch.set_default_dtype(kind)
            again, same = results()
            assert all(np.array_equal(one, other) for one, other in zip(codes, again, strict=True))
            np.testing.assert_array_equal(same, samples)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("values", [1, 300, 5000])
def test_any_size_of_pieces_gives_the_same(name: str, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PIECE_VALUES", values)
    monkeypatch.setattr(build, "_PUSH_SECONDS", 0.05)
    engine = build_engine(checkpoint_of(MODEL[name]), threads=2)
    audio = audio_of(3000, 3)
    codes, whole = theirs(name, audio)
    ours = encoded(engine, list(cut(audio, (500, 77))))
    differing = sum(int((a != b).sum()) for a, b in zip(ours, codes, strict=True))
    assert differing <= sum(level.size for level in codes) // 500
    np.testing.assert_allclose(decoded(engine, codes), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", [3, None])
def test_noise_is_that_of_the_torch_modules(name: str, seed: int | None) -> None:
    codes, _ = theirs(name, audio_of(2500, 5))
    noise = Noise.none() if seed is None else Noise.seeded(seed)
    with torch.inference_mode():
        whole = MODEL[name].decode([torch.from_numpy(code) for code in codes], seed=seed)[:, 0].numpy()
    np.testing.assert_allclose(decoded(ENGINE[name], codes, noise=noise), whole, atol=1e-5, rtol=0)


def test_a_part_is_cut_from_the_whole(name: str) -> None:
    codes, whole = theirs(name, audio_of(4000, 7))
    hop = config_of(name).hop_length
    total = whole.shape[1] // hop
    for start, stop in ((0, 1), (3, 4), (5, total - 2), (total - 1, total), (7, None)):
        for engine in (ENGINE[name], THREADED[name]):
            part = decoded(engine, codes, start=start, stop=stop)
            np.testing.assert_allclose(part, whole[:, start * hop : (stop or total) * hop], atol=1e-5, rtol=0)
    assert list(ENGINE[name].decode(codes, start=5, stop=5)) == []


def test_fewer_levels_are_those_of_the_torch_modules(name: str) -> None:
    codes, _ = theirs(name, audio_of(2000, 8))
    with torch.inference_mode():
        whole = MODEL[name].decode([torch.from_numpy(code) for code in codes[:2]])[:, 0].numpy()
    np.testing.assert_allclose(decoded(ENGINE[name], codes[:2]), whole, atol=1e-5, rtol=0)


def test_channels_are_coded_by_themselves(name: str) -> None:
    both = np.concatenate((audio_of(2000, 1), audio_of(2000, 2)))
    for engine in (ENGINE[name], THREADED[name]):
        together, alone = encoded(engine, [both], 2), encoded(engine, [both[1:]])
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one[1:], other)
        np.testing.assert_allclose(decoded(engine, together)[1:], decoded(engine, alone), atol=1e-6, rtol=0)


def test_no_audio_gives_no_codes(name: str) -> None:
    assert list(ENGINE[name].encode([], 1)) == []
    assert list(ENGINE[name].encode([np.zeros((1, 0), np.float32)], 1)) == []


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.integers(0, 900), min_size=1, max_size=8))
def test_a_stream_of_samples_gives_the_codes_of_the_whole(name: str, sizes: list[int]) -> None:
    audio = audio_of(sum(sizes), 4)
    stream, parts, place = ENGINE[name].encoder_stream(), [], 0
    config = config_of(name)
    for size in sizes:
        parts.append(stream.push(audio[:, place : place + size]))
        place += size
        given = sum(part[-1].shape[1] for part in parts) * config.vq_strides[-1] * config.hop_length
        assert place - given <= stream.latency
    parts.append(stream.push(None, ended=True))
    ours = [np.concatenate(level, axis=1) for level in zip(*parts, strict=True)]
    whole = encoded(ENGINE[name], [audio]) if place else [np.zeros((1, 0))] * len(ours)
    differing = sum(int((a != b).sum()) for a, b in zip(ours, whole, strict=True))
    assert [level.shape for level in ours] == [level.shape for level in whole]
    assert differing <= sum(level.size for level in whole) // 500


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (np.zeros((100, 1), np.float32), "100 channels"),
        (np.zeros(100, np.float32), r"float32 \(100,\)"),
        (np.zeros((1, 100), np.int16), r"int16 \(1, 100\)"),
        ([0.0, 0.1], "got list"),
    ],
)
def test_audio_of_another_kind_is_refused(block: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"float32 arrays \(1, samples\) at 8000 Hz.*{told}"):
        list(ENGINE["spectral"].encode([block], 1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda codes: [], "1 to 3 levels, not 0"),
        (lambda codes: [*codes, codes[0]], "1 to 3 levels, not 4"),
        (lambda codes: [codes[0] + 64, *codes[1:]], r"level 0 has a code outside 0\.\.63"),
        (
            lambda codes: [codes[0].astype(float), *codes[1:]],
            "level 0 is of float64; codes are whole numbers",
        ),
        (lambda codes: [codes[0][0], *codes[1:]], r"level 0 has shape \(4,\); give \(channels, tokens\)"),
        (lambda codes: [codes[0], codes[1][:, :-1]], r"levels of \[4, 7\] tokens do not fit the strides"),
        (lambda codes: [codes[0], np.repeat(codes[1], 2, axis=0)], "level 1 has 2 channels instead of 1"),
    ],
)
def test_codes_of_another_kind_are_refused(change: Any, told: str) -> None:
    codes = [np.zeros((1, 4 * n), np.int64) for n in (1, 2, 4)]
    with pytest.raises(ValueError, match=told):
        list(ENGINE["spectral"].decode(change(codes)))


def test_the_torch_chain_gives_the_same(name: str) -> None:
    model = MODEL[name]
    engine = Engine(TorchBackend(model.config, checkpoint_of(model).arrays, "cpu"), "0" * 16, 1)
    audio = np.concatenate((audio_of(3001, 1), audio_of(3001, 2)))
    codes, whole = theirs(name, audio)
    ours = encoded(engine, list(cut(audio, (700, 11))), 2)
    assert all(level.dtype == np.uint16 for level in ours)
    differing = sum(int((a != b).sum()) for a, b in zip(ours, codes, strict=True))
    assert differing <= sum(level.size for level in codes) // 500
    np.testing.assert_allclose(decoded(engine, codes), whole, atol=1e-5, rtol=0)
    hop, total = model.config.hop_length, whole.shape[1] // model.config.hop_length
    part = decoded(engine, codes, start=3, stop=total - 1)
    np.testing.assert_allclose(part, whole[:, 3 * hop : -hop], atol=1e-5, rtol=0)


def test_latents_are_those_that_the_quantiser_takes(name: str) -> None:
    """Of both backends, however the signal is cut: quantised level by level they give the codes."""
    model = MODEL[name]
    torch_engine = Engine(TorchBackend(model.config, checkpoint_of(model).arrays, "cpu"), "0" * 16, 1)
    audio = np.concatenate((audio_of(3001, 1), audio_of(3001, 2)))
    found = []
    for engine in (ENGINE[name], torch_engine):
        pieces = list(engine.encode(cut(audio, (700, 11)), 2, latents=True))
        assert {len(piece) for piece in pieces} == {1}
        found.append(np.concatenate([latents for (latents,) in pieces], axis=1))
        assert found[-1].dtype == np.float32
        codes = encoded(engine, list(cut(audio, (700, 11))), 2)
        differing = 0
        for channel, latents in enumerate(found[-1]):
            residual = latents.copy()
            for tokens, level in zip(codes, engine.quantiser.parts, strict=True):
                differing += int((level.indices(level.project(residual)) != tokens[channel]).sum())
                residual -= level.latents(tokens[channel], 0, len(residual))
        assert differing <= sum(level.size for level in codes) // 500
    np.testing.assert_allclose(found[0], found[1], atol=1e-4, rtol=1e-4)
    assert list(ENGINE[name].encode([], 2, latents=True)) == []


def test_lower_precision_changes_little(name: str) -> None:
    half = build_engine(checkpoint_of(MODEL[name]), device="cpu-half")
    codes, whole = theirs(name, audio_of(4000, 5))
    ours = encoded(half, [audio_of(4000, 5)])
    assert [level.shape for level in ours] == [level.shape for level in codes]
    audio = decoded(half, codes)
    assert audio.dtype == np.float32
    assert not np.array_equal(audio, whole)
    assert np.linalg.norm(audio - whole) < 0.1 * np.linalg.norm(whole)


def test_one_engine_serves_several_threads_at_once(name: str) -> None:
    engine, audio = THREADED[name], [audio_of(2500, seed) for seed in range(4)]
    alone = [encoded(engine, [signal]) for signal in audio]
    sound = [decoded(engine, codes) for codes in alone]
    found: dict[int, tuple[list[np.ndarray], np.ndarray]] = {}

    def work(number: int) -> None:
        codes = encoded(engine, [audio[number]])
        found[number] = codes, decoded(engine, codes)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        for one, other in zip(found[number][0], alone[number], strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(found[number][1], sound[number])


def test_an_error_in_a_stage_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = THREADED["spectral"]

    def fail(self: Any, held: Any, x: Any, steps: int, position: int, out: Any) -> Any:
        raise RuntimeError("a stage that fails")

    monkeypatch.setattr("snac.engine.cpu.Layer.run", fail)
    with pytest.raises(RuntimeError, match="a stage that fails"):
        encoded(engine, [audio_of(1000)])


def test_what_is_held_does_not_grow() -> None:
    decoder = ENGINE["even-depthwise"]._backend.decoder(Noise.seeded(0))
    flow = Flow(decoder, ENGINE["even-depthwise"]._backend.workspace)
    sizes = []
    for _ in range(40):
        flow.push(np.zeros((1, 4, 32), np.float32))
        nodes = flow._lanes[0]
        sizes.append(sum(0 if node.held is None else node.held.size for node in nodes))
        assert not any(node.waiting for node in nodes)
    assert max(sizes[20:]) <= max(sizes[:20])


def test_reach_is_enough_and_not_wasteful(name: str) -> None:
    """Beyond the reach a changed input changes nothing; within it, it does."""
    model = MODEL[name]
    unit, hop = model.config.frame_alignment, model.config.hop_length
    stages = ENGINE[name]._backend.encoder.stages[:-1]
    middle = 30

    def reaching(low: int, high: int) -> tuple[int, int]:
        for stage in reversed(stages):
            low, high = stage.reaching(low, high)
        return low, high

    low, high = reaching(middle, middle)
    audio = test_signal((high // hop // unit + 3) * unit * hop, RATE, 3)
    with torch.inference_mode():
        quiet = model.encoder(audio)[..., middle]
        for first, last, same in ((0, low, True), (high + 1, None, True), (low, low + hop, False)):
            changed = audio.clone()
            changed[..., max(first, 0) : last] += 0.5
            assert torch.equal(model.encoder(changed)[..., middle], quiet) == same


FRESH = """
import sys
import numpy as np
from snac.config import SpectralConfig, Stack
from snac.engine import build_engine
from snac.hub.checkpoint import load_checkpoint
from snac.noise import Noise
engine = build_engine(load_checkpoint(sys.argv[1]))
codes = [np.concatenate(level, axis=1) for level in zip(*engine.encode([np.zeros((1, 9000), np.float32)], 1))]
audio = np.concatenate(list(engine.decode(codes, noise=Noise.seeded(1))), axis=1)
print(audio.shape, sorted({"torch", "numba"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", ["even-depthwise", "spectral"])
def test_a_fresh_process_codes_without_torch(name: str, tmp_path: Any) -> None:
    if not isinstance(ENGINE[name]._backend, build._CpuBackend):
        pytest.skip("no compiled kernels here")
    MODEL[name].save_pretrained(tmp_path)
    child = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    length = MODEL[name].config.frames_for(9000) * MODEL[name].config.hop_length
    assert child.stdout.strip() == f"(1, {length}) []"


@pytest.mark.parametrize("name", FULL)
def test_full_configurations_work_in_pieces_of_moderate_size(name: str) -> None:
    """Each stage of the published models takes some milliseconds to some seconds of a signal at once."""
    config = ModelConfig.from_dict(FULL[name])
    ones = {key: np.broadcast_to(np.float32(1), shape) for key, shape in state_shapes(config).items()}
    backend = build._CpuBackend(config, ones)
    rate = 1.0
    for stage, piece in zip(backend.encoder.stages, backend.encoder.pieces, strict=True):
        assert piece % stage.step == 0
        assert 0.005 < piece * rate / config.sampling_rate < 30
        rate *= stage.step / stage.up


def test_without_kernels_torch_computes_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "available", lambda *kernels: False)
    monkeypatch.setattr(build, "reason", lambda: "numba is of another time")
    engine = build_engine(checkpoint_of(MODEL["spectral"]))
    assert caplog.messages == [
        "no compiled kernels here (numba is of another time): torch computes instead, some times slower"
    ]
    codes, whole = theirs("spectral", audio_of(1000))
    np.testing.assert_allclose(decoded(engine, codes), whole, atol=1e-5, rtol=0)


def test_what_is_not_asked_for_is_not_made() -> None:
    for name in NAMES:
        engine = build_engine(checkpoint_of(MODEL[name]))
        backend: Any = engine._backend
        if not isinstance(backend, build._CpuBackend):
            pytest.skip("no compiled kernels here")
        codes = encoded(engine, [audio_of(500)])
        assert backend._decoder is None
        engine = build_engine(checkpoint_of(MODEL[name]))
        backend = engine._backend
        decoded(engine, codes)
        assert backend._encoder is None


def test_products_are_in_full_precision_while_any_thread_is_within() -> None:
    def settings() -> list[Any]:
        if hasattr(torch.backends.cudnn, "conv"):
            return [torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision]
        return [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]

    before, guard = settings(), FullPrecision()
    guard.__enter__()
    first = settings()
    with guard:
        guard.__exit__()  # the thread that came first leaves first
        assert settings() == first == (["ieee"] * 2 if isinstance(before[0], str) else [False] * 2)
    assert settings() == before != first


def test_a_model_of_very_few_frames_a_second_decodes() -> None:
    config = replace(config_of("spectral"), sampling_rate=1)
    assert isinstance(config, SpectralConfig)
    torch.manual_seed(0)
    engine = build_engine(checkpoint_of(SNAC.from_model_config(config).eval()))
    codes = [np.zeros((1, 8 // stride), dtype=np.uint16) for stride in config.vq_strides]
    assert sum(block.shape[1] for block in engine.decode(codes)) == 8 * config.hop_length


def test_zeros_after_an_array_lie_in_its_own_memory_where_there_is_room():
    arena = Arena()
    whole = arena.take(40, 3)
    whole[:] = np.arange(120).reshape(40, 3)
    for array, rows, is_there in ((whole, 20, True), (whole[10:30], 5, True), (whole, 4000, False)):
        before = array.copy()
        longer = arena.extended(array, rows)
        assert np.shares_memory(longer, whole) is is_there
        np.testing.assert_array_equal(longer, np.concatenate((before, np.zeros((rows, 3), np.float32))))
    own = np.ones((4, 3), np.float32)
    longer = arena.extended(own, 2)
    assert not np.shares_memory(longer, own)
    kept = arena.extended(arena.take(2000, 3), 9)
    kept[:] = 7
    other = arena.take(2000, 3)  # the block is still in use
    assert not np.shares_memory(other, kept)
