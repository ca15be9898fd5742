"""``snac prior``, and files that are coded with what it learned."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from snac.hub import registry
from snaccli import decode_file, encode_file, read
from snaccli.cli.app import run
from snaccli.cli.commands import encode as encode_command
from snaccli.cli.ui.console import Console
from snaccli.codec import Codec
from snaccli.codec.cluster import EncodeUnit, EncodeWork
from snaccli.codec.rate_distortion import SMALLER
from snaccli.codec.recording import dumps, loads
from snaccli.codes import Coder, Codes
from snaccli.container import read_header
from snaccli.entropy import prior as priors
from snaccli.errors import PriorError
from tests.hub_standin import Repository, StandIn


def call(*arguments: object) -> tuple[int, str, str]:
    console = Console(io.StringIO(), io.StringIO(), {})
    status = run([str(argument) for argument in arguments], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """Recordings, a copy of a tiny model, and a prior that has learned one of them by heart."""
    folder = tmp_path_factory.mktemp("prior")
    for number, name in enumerate(("held-out", "known")):
        noise = np.random.default_rng(number).standard_normal(24_000)
        soundfile.write(folder / f"{name}.wav", 0.3 * noise, 16_000)
    shutil.copytree(tiny_model_folder, folder / "model")
    codec = Codec.load(str(folder / "model"), prior=False)
    priors.save(by_heart(codec, folder / "known.wav"), folder / "prior.safetensors")
    return folder


def by_heart(codec: Codec, path: Path) -> priors.Prior:
    """A prior that expects no other codewords than those of one recording."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    codes = codec.encode([samples], rate, 1).codes
    layers = []
    for level, inputs in zip(codes.levels, priors.inputs_of(codes.strides, 0), strict=True):
        bias = np.full(codes.codebook_size, -100_000, np.int32)
        bias[level] = 0
        layers.append(
            priors.Layer(
                first=np.zeros((inputs.tokens * 2, 3), np.int8),
                first_bias=np.zeros((inputs.phases, 3), np.int32),
                second=np.zeros((4, 3), np.int8),
                second_bias=np.zeros(4, np.int32),
                table=np.zeros((codes.codebook_size, 4), np.int16),
                table_bias=bias,
                shifts=np.zeros(2, np.int32),
            )
        )
    embedding = np.zeros((len(codes.levels), codes.codebook_size, 2), np.int8)
    return priors.Prior(embedding, tuple(layers), codes.strides, codec.name, codec.fingerprint)


def coders(path: Path) -> set[int]:
    with path.open("rb") as file:
        return {entry.coder for entry in read_header(file).entries}


def test_what_a_prior_knows_takes_fewer_bytes_and_decodes_to_the_same(material: Path, tmp_path: Path):
    model, prior, known = material / "model", material / "prior.safetensors", material / "known.wav"
    plain = encode_file(known, tmp_path / "plain.snac", model=str(model))
    small = encode_file(known, tmp_path / "small.snac", model=str(model), prior=prior)
    assert small.bytes < plain.bytes
    assert Coder.PRIOR in coders(tmp_path / "small.snac")
    assert Coder.PRIOR not in coders(tmp_path / "plain.snac")
    decode_file(tmp_path / "plain.snac", tmp_path / "plain.wav", model=str(model))
    decode_file(tmp_path / "small.snac", tmp_path / "small.wav", model=str(model), prior=str(prior))
    assert (tmp_path / "small.wav").read_bytes() == (tmp_path / "plain.wav").read_bytes()


def test_a_prior_beside_the_weights_is_found(material: Path, tmp_path: Path):
    model = shutil.copytree(material / "model", tmp_path / "model")
    shutil.copy(material / "prior.safetensors", model)
    known = material / "known.wav"
    assert call("encode", known, "-m", model, "-o", tmp_path / "a.snac")[0] == 0
    assert Coder.PRIOR in coders(tmp_path / "a.snac")
    assert call("encode", known, "-m", model, "-o", tmp_path / "b.snac", "--no-prior")[0] == 0
    assert Coder.PRIOR not in coders(tmp_path / "b.snac")
    assert call("decode", tmp_path / "a.snac", "-m", model, "-o", tmp_path / "a.wav")[0] == 0
    first, second = (read(tmp_path / f"{name}.snac", model=str(model))[0] for name in "ab")
    np.testing.assert_array_equal(first, second)


def test_the_models_commands_tell_of_a_prior(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = shutil.copytree(material / "model", tmp_path / "model")
    assert json.loads(call("models", "show", model, "--json")[1])["prior"] is None
    shutil.copy(material / "prior.safetensors", model)
    wanted = priors.load(model / "prior.safetensors")
    for arguments in (("models", "show", model), ("models", "pull", model)):
        found = json.loads(call(*arguments, "--json")[1])["prior"]
        assert found["path"] == str(model / "prior.safetensors")
        assert found["bytes"] == (model / "prior.safetensors").stat().st_size
        assert (found["fingerprint"], found["model_fingerprint"]) == (
            wanted.fingerprint,
            wanted.model_fingerprint,
        )
    assert wanted.fingerprint in call("models", "show", model)[1]
    assert "with a learned prior" in call("models", "pull", model)[1]
    known = registry.KnownModel("mini", "shipped")
    monkeypatch.setattr(registry, "MODELS", {"mini": known})
    monkeypatch.setattr(registry.KnownModel, "folder", model)
    (entry,) = json.loads(call("models", "list", "--json")[1])
    assert entry["prior"]["fingerprint"] == wanted.fingerprint
    assert "with a learned prior" in call("models", "list")[1]


def test_a_model_of_the_hub_brings_its_prior(material: Path, tmp_path: Path):
    """By processes of their own: the Hub's client reads its environment when it is imported."""
    model = material / "model"
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}

    def snac(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-m", "snaccli", *map(str, arguments)]
        environment = server.environment(HF_HUB_CACHE=str(tmp_path / "cache"))
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr

    with StandIn() as server:
        repository = server.repositories["me/voice"] = Repository()
        repository.commit(files | {"prior.safetensors": (material / "prior.safetensors").read_bytes()})
        status, told = snac("encode", material / "known.wav", "-m", "me/voice", "-o", tmp_path / "a.snac")
        assert status == 0, told
        assert Coder.PRIOR in coders(tmp_path / "a.snac")
        assert snac("decode", tmp_path / "a.snac", "-m", "me/voice", "-o", tmp_path / "a.wav")[0] == 0
        # A file's word alone fetches nothing.
        server.requests.clear()
        shutil.rmtree(tmp_path / "cache")
        assert snac("decode", tmp_path / "a.snac", "-o", tmp_path / "b.wav")[0] == 1
        assert server.requests == []


def test_workers_of_a_cluster_take_the_prior_too(material: Path, tmp_path: Path):
    unit = EncodeUnit(((str(material / "known.wav"), str(tmp_path / "a.snac")),))
    taken = {}
    for prior in (str(material / "prior.safetensors"), False):
        work = EncodeWork(str(material / "model"), "cpu", 1, "mono", prior=prior)
        work.start()
        assert [done.error for done in work(unit).recordings] == [None]
        taken[prior] = Coder.PRIOR in coders(tmp_path / "a.snac")
    assert list(taken.values()) == [True, False]
    work = EncodeWork(str(material / "model"), "cpu", 1, "mono", prior=str(material / "known.wav"))
    with pytest.raises(PriorError, match=r"known\.wav"):
        work.start()


@pytest.mark.parametrize(
    ("options", "prior", "price"),
    [
        ((), True, 0.0),
        (("--no-prior",), False, 0.0),
        (("--prior", "p.safetensors", "--smaller"), "p.safetensors", SMALLER),
    ],
)
def test_options_reach_the_workers(
    material: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    prior: bool | str,
    price: float,
):
    given: list[EncodeWork] = []

    def taken(console: Console, told: object, work: EncodeWork, *rest: object, **named: object) -> int:
        given.append(work)
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode_command, "run_on_cluster", taken)
    arguments = ("encode", material / "known.wav", "-m", material / "model", "-o", "a.snac")
    assert call(*arguments, "--cluster", "local", *options)[0] == 0
    wanted = str(tmp_path / prior) if isinstance(prior, str) else prior
    assert [(work.prior, work.rate_distortion) for work in given] == [(wanted, price)]


def test_a_reader_without_the_prior_says_which_it_needs(material: Path, tmp_path: Path):
    model, prior = material / "model", material / "prior.safetensors"
    arguments = ("encode", material / "known.wav", "-m", model, "-o", tmp_path / "a.snac", "--prior", prior)
    assert call(*arguments)[0] == 0
    status, _, told = call("decode", tmp_path / "a.snac", "-m", model, "-o", tmp_path / "a.wav")
    assert (status, "defect" in told) == (1, False)
    assert priors.load(prior).fingerprint in told
    assert "--prior" in told
    with pytest.raises(PriorError, match="prior="):
        read(tmp_path / "a.snac", model=str(model))
    done = call("decode", tmp_path / "a.snac", "-m", model, "-o", tmp_path / "a.wav", "--prior", prior)
    assert done[0] == 0


def test_levels_without_the_prior_need_none(material: Path):
    """A file needs the prior for those of its levels alone that are decoded and coded with it."""
    codec = Codec.load(str(material / "model"), prior=material / "prior.safetensors")
    recording = codec.encode([np.zeros((8000, 1), np.float32)], 16_000, 1)
    data = dumps(recording, codec.codebooks)
    assert loads(io.BytesIO(data)).decode(codec).codes.tokens == recording.codes.tokens


def test_a_prior_of_other_weights_is_refused(material: Path, tmp_path: Path):
    prior = priors.load(material / "prior.safetensors")
    other = priors.Prior(prior.embedding, prior.layers, prior.strides, "other", "00" * 8)
    priors.save(other, tmp_path / "other.safetensors")
    arguments = ("encode", material / "known.wav", "-m", material / "model", "-o", tmp_path / "a.snac")
    status, _, told = call(*arguments, "--prior", tmp_path / "other.safetensors")
    assert status == 1
    assert "not for 'model'" in told
    assert not (tmp_path / "a.snac").exists()
    assert call(*arguments, "--prior", "x", "--no-prior")[0] == 2


def test_train_and_show(material: Path, tmp_path: Path):
    names = (material / "held-out.wav", material / "known.wav")
    arguments = ("-m", material / "model", "-o", tmp_path / "p.safetensors", "--steps", "2", "--json")
    status, out, _ = call("prior", "train", *names, *arguments)
    assert (status, json.loads(out)["model"], json.loads(out)["summary"]["steps"]) == (0, "model", 2)
    status, again, _ = call("prior", "show", tmp_path / "p.safetensors", "--json")
    value = json.loads(out)
    assert (status, again) == (0, out)
    assert value["fingerprint"] == priors.load(tmp_path / "p.safetensors").fingerprint
    assert len(value["summary"]["held_out_bits"]) == len(value["strides"])
    arguments = ("-m", material / "model", "-o", tmp_path / "q.safetensors", "--minutes", "0.01", "--json")
    status, out, _ = call("prior", "train", *names, *arguments)
    assert status == 0
    assert json.loads(out)["summary"]["steps"] > 0  # those done, where minutes were asked for
    status, _, told = call("prior", "show", material / "known.wav")
    assert status == 1
    assert "known.wav" in told


def test_learning_from_files_of_tokens(material: Path, tmp_path: Path):
    for name in ("held-out", "known"):
        encode_file(material / f"{name}.wav", tmp_path / f"{name}.snac", model=str(material / "model"))
    arguments = ("-m", material / "model", "-o", tmp_path / "p.safetensors", "--steps", "3")
    assert call("prior", "train", tmp_path, *arguments)[0] == 0
    assert call("prior", "train", tmp_path, *arguments)[0] == 1  # exists already
    assert call("prior", "train", tmp_path / "known.snac", *arguments, "-f")[0] == 2  # one alone


def test_recordings_at_other_speeds_are_learned_too(material: Path, tmp_path: Path):
    """Of two recordings the first, held-out.wav, is measured by: at its own speed alone."""
    names = (material / "held-out.wav", material / "known.wav")
    arguments = ("prior", "train", *names, "-m", material / "model", "--steps", "2", "--json")

    def learned(output: str, *more: object) -> tuple[int, list[float]]:
        status, out, _ = call(*arguments, "-o", tmp_path / output, *more)
        assert status == 0
        summary = json.loads(out)["summary"]
        return summary["tokens"], summary["held_out_bits"]

    plain, plain_bits = learned("plain")
    more, bits = learned("more", "--speed", "0.5", "--speed", "2")
    assert plain * 3.4 < more < plain * 3.6  # 1 + 2 + 1/2, up to the last frame of each
    assert len(bits) == len(plain_bits)
    assert call(*arguments, "-o", tmp_path / "p", "--speed", "0")[0] == 2


def test_packed_sets_are_learned_recording_by_recording(material: Path, tmp_path: Path):
    rate = Codec.load(str(material / "model"), prior=False).rate
    parts = [np.random.default_rng(number).standard_normal(rate * (number + 1)) / 4 for number in range(3)]
    samples = [np.rint(part.clip(-1, 0.99) * 32768).astype(np.int16) for part in parts]
    lengths = [len(part) for part in samples]
    starts = np.cumsum([0, *lengths])
    np.save(tmp_path / "set.npy", np.concatenate(samples))
    rows = [{"start": int(start), "length": length} for start, length in zip(starts, lengths, strict=False)]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    (tmp_path / "files").mkdir()
    for number, part in enumerate(samples):
        soundfile.write(tmp_path / "files" / f"{number}.wav", part, rate)

    def learned(*sources: Path) -> dict[str, Any]:
        arguments = ("-m", material / "model", "--steps", "2", "--speed", "0.9", "--json")
        status, out, _ = call("prior", "train", *sources, *arguments, "-o", tmp_path / "p", "-f")
        assert status == 0
        summary: dict[str, Any] = json.loads(out)["summary"]
        return summary

    packed = learned(tmp_path / "set.npy")
    assert packed == learned(tmp_path / "files")
    assert packed["tokens"] > 0
    (tmp_path / "set.json").unlink()
    status, _, err = call(
        "prior", "train", tmp_path / "set.npy", "-m", material / "model", "-o", tmp_path / "q"
    )
    assert status == 1
    assert "set.npy" in err


def test_a_bad_recording_is_named_and_left_out(material: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("held-out", "known"):
        shutil.copy(material / f"{name}.wav", tmp_path / "in")
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF of nothing")
    command = ("prior", "train", tmp_path / "in", "-m", material / "model", "--steps", "1")
    status, _, err = call(*command, "-o", tmp_path / "q")
    assert status == 1  # as of any run in which a file failed
    assert "bad.wav" in err
    assert priors.load(tmp_path / "q").summary["steps"] == 1
    (tmp_path / "in" / "known.wav").unlink()
    assert call(*command, "-o", tmp_path / "r")[0] == 1


def test_an_interrupted_training_goes_on(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from snaccli.training import prior as module

    codec = Codec.load(str(material / "model"), prior=False)
    tones = [codec.encode([np.ones((9000, 1), np.float32) * 0.1], 16_000, 1).codes for _ in range(2)]
    state = tmp_path / "state"
    told: list[module.Report] = []

    def stop(report: module.Report) -> None:
        raise KeyboardInterrupt

    def train(report: object) -> priors.Prior:
        return module.train_prior(
            tones[:1],
            tones[1:],
            codec.codebooks,
            model="model",
            fingerprint=codec.fingerprint,
            config=module.PriorConfig(steps=40, hidden=8, batch=64),
            state=state,
            report=report,
        )

    with pytest.raises(KeyboardInterrupt):
        train(stop)
    assert state.exists()
    prior = train(told.append)
    assert told[0].steps == 40  # 20 steps were done before
    assert prior.summary["steps"] == 40
    assert not state.exists()


def test_a_full_disk_leaves_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from snaccli.training import prior as module
    from snaccli.training.corpus import Corpus
    from snaccli.training.state import TrainingError

    grid = [Codes((np.arange(16, dtype=np.uint16)[None] % 4,), (1,), 4)]
    config = module.PriorConfig(steps=2, width=2, hidden=4, out=2, batch=8)
    net = module.PriorNet([np.eye(4, dtype=np.float32)], (1,), config)
    run = module._Run(net, Corpus(grid), config, tmp_path / "state")
    run.keep()
    before = (tmp_path / "state").read_bytes()

    def full(state: object, file: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("torch's own words") from None

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"no space left on the disk.*; the former checkpoint stands"):
        run.keep()
    assert os.listdir(tmp_path) == ["state"]
    assert (tmp_path / "state").read_bytes() == before


def test_learning_begins_from_another_prior(material: Path, tmp_path: Path):
    from snaccli.training import prior as module
    from snaccli.training.corpus import Corpus
    from snaccli.training.rounding import quantised, scales_of

    codec = Codec.load(str(material / "model"), prior=False)
    rng = np.random.default_rng(0)
    noise = [codec.encode([rng.standard_normal((40_000, 1)) * 0.2], 16_000, 1).codes for _ in range(2)]
    told = {"model": "model", "fingerprint": codec.fingerprint}
    config = module.PriorConfig(steps=120, hidden=16, out=8, width=8, batch=256, rate=5e-3)
    first = module.train_prior(noise, noise, codec.codebooks, config=config, **told)
    net = module.PriorNet(codec.codebooks, codec.strides, config)
    fresh = module.measure(net, Corpus(noise))
    net.take(first)
    learned = module.measure(net, Corpus(noise))
    # But for the rounding to integers, which few hidden units feel.
    np.testing.assert_allclose(learned, first.summary["held_out_bits"], atol=0.02)
    assert sum(fresh) > sum(learned) + 1
    for windows in (config.windows, (8, 64)):
        larger = module.PriorConfig(hidden=24, out=12, width=8, windows=windows)
        grown = module.PriorNet(codec.codebooks, codec.strides, larger)
        grown.take(first)
        bits = module.measure(grown, Corpus(noise))
        if windows == config.windows:
            np.testing.assert_allclose(bits, learned, atol=1e-4)
        assert sum(fresh) > sum(bits) + 0.5  # even without what was known of means
    scales = scales_of(net, Corpus(noise), net.means(Corpus(noise)))
    again = quantised(net, scales, "model", codec.fingerprint, {})
    assert [layer.first.shape for layer in again.layers] == [layer.first.shape for layer in first.layers]

    priors.save(first, tmp_path / "small")
    names = (material / "held-out.wav", material / "known.wav")
    arguments = (
        "prior",
        "train",
        *names,
        "-m",
        material / "model",
        "--steps",
        "1",
        "-o",
        tmp_path / "p",
        "-f",
    )
    assert call(*arguments)[0] == 0
    rate = priors.load(tmp_path / "p").summary["rate"]
    assert call(*arguments, "--init", tmp_path / "p")[0] == 0  # read before it is replaced
    assert priors.load(tmp_path / "p").summary["rate"] == rate / 2
    status, _, err = call(*arguments, "--init", tmp_path / "small")
    assert status == 1
    assert "another width" in err


def test_an_interrupted_training_says_that_the_same_command_goes_on(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snaccli.cli.commands import prior as command

    state = tmp_path / "new.safetensors.state"
    arguments = ["prior", "train", material / "known.wav", "-m", material / "model"]
    arguments += ["-o", tmp_path / "new.safetensors"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_learn", interrupted)
    assert call(*arguments) == (130, "", "snac: interrupted\n")
    state.touch()
    told = f"what was learned is in {state}; the same command goes on"
    assert call(*arguments) == (130, "", f"snac: interrupted: {told}\n")


def test_a_prior_that_is_not_there_is_told_in_plain_words(material: Path) -> None:
    status, _, err = call("prior", "show", "absent")
    assert (status, err) == (1, "snac: absent cannot be read as a prior: no such file: check the name\n")
