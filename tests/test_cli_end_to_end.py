"""The command line with a real, if tiny and untrained, model: there and back, and bad input of every kind."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.cli.app import run
from snaccli.cli.ui.console import Console

RATE = 16000


def call(*arguments):
    console = Console(io.StringIO(), io.StringIO(), {})
    status = run([str(argument) for argument in arguments], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


def environment():
    """That of this process, with the package found from any folder."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(*arguments, **options):
    """A run of the program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "snaccli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        **{"stdin": subprocess.DEVNULL} | options,
    )


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(tiny_model_folder):
    return str(tiny_model_folder)


def noise(seconds, channels=1, rate=RATE):
    shape = (round(seconds * rate), channels)
    return 0.1 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def write(name, samples, rate=RATE, **options):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, samples, rate, **options)


@pytest.fixture
def coded(model):
    """A .snac file of a second and a bit."""
    write("talk.wav", noise(1.3))
    assert call("encode", "-q", "talk.wav", "-m", model) == (0, "", "")
    return "talk.snac"


def test_a_recording_comes_back_at_its_rate_and_length(recording, model):
    status, _, err = call("encode", recording, "-m", model, "-o", "talk.snac")
    assert status == 0
    assert "talk.snac  3.0 s  " in err
    assert "real time" in err
    assert call("decode", "talk.snac", "-m", model, "-q") == (0, "", "")
    was, now = soundfile.info(recording), soundfile.info("talk.wav")
    assert (now.samplerate, now.frames, now.format) == (was.samplerate, was.frames, "WAV")


def test_stereo_is_mixed_down_and_said_or_kept(model):
    write("a.wav", noise(0.5, channels=2), 44100)
    status, out, _ = call("encode", "a.wav", "-m", model, "--json")
    told = json.loads(out)
    assert (status, told["channels"], told["source_channels"]) == (0, 1, 2)
    assert "mono" in told["note"]
    status, out, _ = call("encode", "a.wav", "-m", model, "--json", "-f", "--channels", "keep")
    assert json.loads(out)["channels"] == 2
    assert call("decode", "a.snac", "-m", model, "-o", "b.flac")[0] == 0
    info = soundfile.info("b.flac")
    assert (info.channels, info.samplerate, info.frames) == (2, 44100, 8000)


def test_the_options_of_decode(coded, model):
    def samples(*options):
        assert call("decode", coded, "-m", model, "-o", "out.wav", "-q", "-f", *options) == (0, "", "")
        return soundfile.read("out.wav", dtype="int16")[0]

    whole = samples()
    assert len(whole) == round(1.3 * RATE)
    part = samples("--start", "0:00.5", "--duration", "0.25")
    assert len(part) == RATE // 4
    assert np.abs(part.astype(int) - whole[RATE // 2 : RATE * 3 // 4]).max() <= 1
    assert not np.array_equal(samples("--levels", "1"), whole)
    assert not np.array_equal(samples("--seed", "1"), whole)
    assert not np.array_equal(samples("--no-noise"), whole)
    assert np.array_equal(samples("--seed", "0"), whole)
    write("high.wav", noise(0.5, rate=48000), 48000)
    assert call("encode", "high.wav", "-m", model)[0] == 0
    assert call("decode", "high.snac", "-m", model, "-o", "low.wav", "--rate", "model")[0] == 0
    assert soundfile.info("low.wav").samplerate == RATE


def test_info_and_verify(coded):
    status, out, err = call("info", coded)
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "talk.snac"
    assert "1.3 s, mono, 16000 Hz" in out
    status, out, _ = call("info", "--json", coded)
    told = json.loads(out)
    keys = "path format_version model fingerprint prior codebook_size sample_rate model_rate channels samples"
    more = "frames duration_s bytes bitrate_bps overhead_bytes levels missing_bytes"
    assert list(told) == [*keys.split(), *more.split()]
    assert (told["samples"], told["bytes"]) == (round(1.3 * RATE), os.path.getsize(coded))
    assert told["missing_bytes"] == 0
    assert len(json.loads(call("info", "--json", coded, coded)[1])) == 2
    assert call("verify", coded) == (0, "talk.snac: ok\n", "")


@pytest.mark.parametrize(("kind", "words"), [("cut", "cut off (3 bytes"), ("longer", "1 bytes too many")])
def test_info_tells_the_size_of_the_file(coded, kind, words):
    damage(coded, kind)
    assert words in call("info", coded)[1]
    told = json.loads(call("info", "--json", coded)[1])
    assert told["bytes"] == os.path.getsize(coded)
    assert told["missing_bytes"] == {"cut": 3, "longer": -1}[kind]


def damage(name, kind):
    data = bytearray(Path(name).read_bytes())
    if kind == "flipped":
        data[-3] ^= 1
    elif kind == "cut":
        del data[-3:]
    elif kind == "longer":
        data += b"x"
    elif kind == "header":
        data[8] ^= 1
    elif kind == "other":
        data[:4] = b"RIFF"
    elif kind == "empty":
        del data[:]
    Path(name).write_bytes(data)


@pytest.mark.parametrize("kind", ["flipped", "cut", "longer", "header", "other", "empty"])
def test_damage_is_found_and_named(coded, model, kind):
    shutil.copy(coded, "good.snac")
    damage(coded, kind)
    status, out, err = call("verify", coded, "good.snac")
    assert (status, out) == (1, "good.snac: ok\n")
    first, last = err.splitlines()
    assert first.startswith("snac: talk.snac")
    assert last == "1 of 2 files whole, 1 not"
    status, out, err = call("decode", coded, "-m", model, "-o", "x.wav")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("snac: talk.snac")
    assert not Path("x.wav").exists()


def test_what_is_whole_of_a_damaged_file_can_be_saved(coded, model):
    damage(coded, "cut")
    status, _, err = call("decode", coded, "-m", model, "-o", "saved.wav", "--salvage")
    assert status == 0
    assert "(" in err, "the summary says what was lost"
    assert soundfile.info("saved.wav").frames == round(1.3 * RATE)


def test_other_weights_are_refused_unless_forced(coded, model, tmp_path):
    other = tmp_path / "other"
    other_weights(model, other)
    status, out, err = call("decode", coded, "-m", other, "-o", "x.wav")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert not Path("x.wav").exists()
    assert call("decode", coded, "-m", other, "-o", "x.wav", "--any-weights")[0] == 0


def test_a_model_that_only_the_file_names_is_asked_for(coded, model):
    os.symlink(model, "tiny")  # not to be read only because a file says so
    status, out, err = call("decode", coded, "-o", "x.wav")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("snac: talk.snac: ")
    assert "-m" in err


def test_a_part_that_is_not_there_is_wrong_usage(coded, model):
    for options in (["--start", "2"], ["--levels", "5"]):
        status, out, err = call("decode", coded, "-m", model, "-o", "x.wav", *options)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("snac: talk.snac")


def other_weights(model, folder):
    from snac.config import ModelConfig
    from snac.hub.checkpoint import read_weights, save_checkpoint

    weights = read_weights(next(Path(model).glob("*.safetensors")))
    changed = {
        name: np.roll(value, 1, 0) if name.startswith("decoder.") else value
        for name, value in weights.items()
    }
    save_checkpoint(folder, ModelConfig.from_file(Path(model) / "config.json"), changed)


BAD = {
    "text.wav": lambda name: Path(name).write_text("this is no audio\n" * 50),
    "empty.wav": lambda name: Path(name).write_bytes(b""),
    "head.wav": lambda name: Path(name).write_bytes(b"RIFF\x24\0\0\0WAVEfmt "),
    "nan.wav": lambda name: write(name, with_sample(np.nan), subtype="FLOAT"),
    "infinite.wav": lambda name: write(name, with_sample(-np.inf), subtype="FLOAT"),
    "channels.wav": lambda name: write(name, noise(0.2, channels=17)),
    "folder.wav": lambda name: Path(name).mkdir(),
    "random.mp3": lambda name: Path(name).write_bytes(np.random.default_rng(1).bytes(5000)),
    "picture.png": lambda name: Path(name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "coded.snac": lambda name: Path(name).write_bytes(b"snac" + bytes(100)),
    "loop.wav": lambda name: os.symlink(name, name),
    "missing.wav": lambda name: None,
}


def with_sample(value):
    samples = noise(0.5)
    samples[4000] = value
    return samples


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing_behind(name, model):
    BAD[name](name)
    before = sorted(os.listdir())
    status, out, err = call("encode", name, "-m", model, "-o", "out.snac")
    assert (status, out) == (1, "")
    assert err.startswith(f"snac: {name}"), err
    assert err.count("\n") == 1
    assert "defect" not in err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("rate", "channels", "count"), [(1, 1, 3), (768000, 1, 9000), (8000, 8, 800), (8000, 1, 0)]
)
def test_unusual_recordings_come_back_whole(rate, channels, count, model):
    write("a.wav", noise(count / rate, channels, rate), rate)
    assert call("encode", "a.wav", "-m", model, "--channels", "keep", "-q") == (0, "", "")
    assert call("decode", "a.snac", "-m", model, "-o", "b.wav", "-q") == (0, "", "")
    info = soundfile.info("b.wav")
    assert (info.samplerate, info.channels, info.frames) == (rate, channels, count)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk: no /dev/full on this system")
def test_a_full_disk_is_one_line(model, coded):
    for command in (["encode", "talk.wav"], ["decode", coded]):
        status, out, err = call(*command, "-m", model, "-o", "/dev/full")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "no space left" in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk: no /dev/full on this system")
def test_debug_shows_what_an_error_was_made_of(model, coded):
    status, out, err = call("encode", "talk.wav", "-m", model, "-o", "/dev/full", "--debug")
    assert (status, out) == (1, "")
    assert err.startswith("Traceback")
    assert "OSError: [Errno 28]" in err
    assert "direct cause of the following exception" in err
    assert err.splitlines()[-1].startswith("snac: talk.wav: /dev/full")


def test_an_output_of_an_unknown_kind(coded, model):
    status, _, err = call("decode", coded, "-m", model, "-o", "x.docx")
    assert (status, err.count("\n")) == (1, 1)
    assert "wav" in err
    assert not Path("x.docx").exists()
    assert call("decode", coded, "-m", model, "--format", "docx")[0] != 0


def test_fifty_files_three_of_them_broken(model):
    for n in range(50):
        write(f"in/{n % 5}/{n:02}.wav", noise(0.1))
    for n, kind in ((7, "text.wav"), (23, "nan.wav"), (41, "empty.wav")):
        os.unlink(f"in/{n % 5}/{n:02}.wav")
        BAD[kind](f"in/{n % 5}/{n:02}.wav")
    status, out, err = call("encode", "in", "-o", "out", "-m", model, "-j", "3")
    assert (status, out) == (1, "")
    made = sorted(path.name for path in Path("out").rglob("*") if path.is_file())
    assert made == [f"{n:02}.snac" for n in range(50) if n not in (7, 23, 41)]
    summary = err[err.index("47 of 50 files encoded, 3 failed") :].splitlines()
    assert summary[2] == "failed:"
    assert [line.split()[0].rstrip(":") for line in sorted(summary[3:])] == [
        "in/1/41.wav",
        "in/2/07.wav",
        "in/3/23.wav",
    ]
    status, _, err = call("decode", "out", "-o", "back", "-m", model, "-q", "-j", "3")
    assert (status, err) == (0, "")
    assert len([path for path in Path("back").rglob("*.wav") if soundfile.info(path).frames == 1600]) == 47


def test_an_existing_output_survives_a_failing_run(model):
    write("a.wav", with_sample(np.nan), subtype="FLOAT")
    Path("a.snac").write_bytes(b"precious")
    assert call("encode", "-f", "a.wav", "-m", model)[0] == 1
    assert Path("a.snac").read_bytes() == b"precious"
    assert sorted(os.listdir()) == ["a.snac", "a.wav"]


def test_models_show_a_folder(model):
    status, out, _ = call("models", "show", model, "--json")
    told = json.loads(out)
    assert (status, told["rate"], told["strides"], told["codebook_size"]) == (0, RATE, [8, 4, 2, 1], 256)
    assert "16000 Hz" in call("models", "show", model)[1]
    status, out, err = call("models", "show", "nowhere/at-all")
    assert (status, out, err.count("\n")) == (1, "", 1)
    status, out, err = call("encode", model, "-m", "no-such-model")
    assert (status, out, err.count("\n")) == (1, "", 1)


def test_bench_in_each_form(model):
    write("in/a.wav", noise(1.2))
    status, out, err = call("bench", "in", "-m", model, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert {"model", "device", "threads", "files", "summary"} <= set(told)
    assert told["files"][0]["path"] == os.path.join("in", "a.wav")
    status, out, _ = call("bench", "in", "-m", model, "--csv")
    assert status == 0
    assert [line.count(",") > 5 for line in out.splitlines()] == [True, True]
    Path("bad.wav").write_text("no audio")
    status, out, err = call("bench", "in/a.wav", "bad.wav", "-m", model)
    assert status == 1
    assert "kbit/s" in out
    assert "bad.wav" in out
    assert call("bench", "in", "--json", "--csv")[0] == 2


def test_pipes_all_the_way(model):
    write("a.wav", noise(0.5))
    with open("a.wav", "rb") as source:
        encoder = start("encode", "-", "-m", model, "-q", stdin=source)
    decoder = start("decode", "-", "-m", model, "-q", stdin=encoder.stdout)
    audio, err = decoder.communicate(timeout=300)
    assert (encoder.wait(), decoder.returncode, err) == (0, 0, b"")
    assert soundfile.info(io.BytesIO(audio)).frames == 8000


def test_a_reader_that_stops_early_is_no_error(coded, model):
    write("long.wav", noise(30))
    assert call("encode", "long.wav", "-m", model, "-q")[0] == 0
    decoder = start("decode", "long.snac", "-m", model, "-o", "-", "-q")
    assert decoder.stdout.read(100).startswith(b"RIFF")
    decoder.stdout.close()
    assert decoder.stderr.read() == b""
    assert decoder.wait(timeout=300) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX, on Windows")
@pytest.mark.parametrize(("jobs", "number"), [("1", signal.SIGTERM), ("2", signal.SIGINT)])
def test_a_signal_stops_the_run_and_leaves_no_half_file(model, number, jobs):
    for n in range(40):
        write(f"in/{n:02}.wav", noise(10))
    encoder = start("encode", "in", "-o", "out", "-m", model, "-j", jobs)
    first = encoder.stderr.readline()
    encoder.send_signal(number)
    rest = encoder.stderr.read().decode()
    assert encoder.wait(timeout=300) == -number  # as a shell and others tell it from a program that failed
    assert b" -> " in first
    lines = rest.splitlines()
    assert lines[-1] == ("snac: interrupted" if number == signal.SIGINT else "snac: terminated")
    assert "not done" in rest
    assert "Traceback" not in rest
    made = os.listdir("out")
    assert made
    assert all(name.endswith(".snac") and not name.startswith(".") for name in made)
    assert call("verify", "-q", "out")[0] == 0


def test_info_of_a_file_imports_no_large_package(coded):
    script = (
        "import sys\n"
        "from snaccli.cli.app import run\n"
        "assert run(['info', 'talk.snac']) == 0\n"
        "assert run(['verify', 'talk.snac']) == 0\n"
        "heavy = 'torch numba scipy numpy soundfile soxr constriction huggingface_hub rich'.split()\n"
        "assert not set(heavy) & set(sys.modules), set(heavy) & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr


def test_coding_with_the_shipped_model_imports_no_torch(recording):
    script = (
        "import sys\n"
        "from snaccli.cli.app import run\n"
        "assert run(['encode', sys.argv[1], '-o', 'talk.snac', '--device', 'cpu']) == 0\n"
        "assert run(['decode', 'talk.snac', '-o', 'talk.wav', '--device', 'cpu']) == 0\n"
        "assert not {'torch', 'pydantic', 'huggingface_hub'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", script, str(recording)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert soundfile.info("talk.wav").frames == soundfile.info(recording).frames
