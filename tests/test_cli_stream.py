"""``snac stream``: from files, pipes, sockets and generators, at once and exactly; what is wrong and how it
is told."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.cli.app import run
from snaccli.cli.commands import stream
from snaccli.cli.ui.console import Console
from snaccli.tokens import Interleaving, flatten

ROOT = Path(__file__).resolve().parent.parent
STRIDES, SIZE, RATE = (8, 4, 2, 1), 256, 16000
FRAMES = 40
SAMPLES = FRAMES * 8 * 32


class Pipe:
    """Standard input or output of which only the bytes matter."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)
        self.buffer.isatty = lambda: False  # type: ignore[method-assign]


def call(*arguments: object, data: bytes | None = None) -> tuple[int, bytes, str, str]:
    """Status, bytes and text on standard output, standard error."""
    console = Console(io.StringIO(), io.StringIO(), {})
    out = Pipe()
    before = sys.stdin, sys.stdout
    sys.stdin = Pipe(data) if data is not None else sys.stdin  # type: ignore[assignment]
    # `as_standard_streams` puts the console's own in the place of sys.stdout
    console.stdout.buffer = out.buffer  # type: ignore[attr-defined]
    try:
        status = run([str(argument) for argument in arguments], console)
    finally:
        sys.stdin, sys.stdout = before
    return status, out.buffer.getvalue(), console.stdout.getvalue(), console.stderr.getvalue()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def levels():
    rng = np.random.default_rng(0)
    return [rng.integers(0, SIZE, FRAMES * n) for n in (1, 2, 4, 8)]


@pytest.fixture(scope="module")
def wanted(levels, tiny_model_folder, tmp_path_factory):
    """What decoding all codes at once gives, int16."""
    folder = tmp_path_factory.mktemp("wanted")
    (folder / "codes.json").write_text(json.dumps([level.tolist() for level in levels]))
    arguments = ["tokens", "import", folder / "codes.json", "-m", tiny_model_folder, "-o", folder / "a.wav"]
    assert call(*arguments)[0] == 0
    return soundfile.read(folder / "a.wav", dtype="int16")[0]


def ids(levels, start=0, offsets=False):
    return flatten(levels, Interleaving(STRIDES, SIZE, offsets, start)).tolist()


def text_of(levels):
    tokens = "".join(f"<custom_token_{n}>" for n in ids(levels, 10, True))
    return f"<custom_token_1>{tokens}<custom_token_2>"


def nested(levels):
    """Lines of five frames each."""
    for part in zip(*(level.reshape(FRAMES // 5, -1) for level in levels), strict=True):
        yield json.dumps({"codes": [level.tolist() for level in part]})


def inputs(levels):
    offsets = "\n".join(map(str, ids(levels, 1000, True)))
    marked = "".join(f"|a{n}|" for n in ids(levels))
    return {
        "integers": (" ".join(map(str, ids(levels))).encode(), []),
        "offsets": (offsets.encode(), ["--offsets", "--start-id", "1000"]),
        "json ids": ("\n".join(json.dumps({"ids": [n]}) for n in ids(levels)).encode(), []),
        "json codes": ("\n".join(nested(levels)).encode(), []),
        "text": (text_of(levels).encode(), []),
        "pattern": (marked.encode(), ["--syntax", "text", "--pattern", r"\|a(\d+)\|"]),
    }


def assert_close(found, wanted):
    assert len(found) == len(wanted)
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["integers", "offsets", "json ids", "json codes", "text", "pattern"])
def test_every_form_gives_the_audio_of_decoding_the_whole(kind, levels, wanted, tiny_model_folder):
    data, options = inputs(levels)[kind]
    status, out, _, err = call("stream", "-m", tiny_model_folder, *options, "--pcm", "s16le", data=data)
    assert (status, err) == (0, "")
    assert_close(np.frombuffer(out, "<i2"), wanted)


def test_a_header_of_open_length_and_floats(levels, wanted, tiny_model_folder):
    data, _ = inputs(levels)["integers"]
    status, out, _, _ = call("stream", "-m", tiny_model_folder, data=data)
    assert status == 0
    assert out[:4] == b"RIFF"
    assert struct.unpack("<I", out[4:8]) == struct.unpack("<I", out[40:44]) == (0xFFFFFFFF,)
    Path("open.wav").write_bytes(out)
    assert call("encode", "open.wav", "-m", tiny_model_folder, "-q")[0] == 0  # a stream is read to its end
    assert_close(np.frombuffer(out[44:], "<i2"), wanted)
    status, out, _, _ = call("stream", "-m", tiny_model_folder, "--pcm", "f32le", data=data)
    assert_close(np.rint(np.clip(np.frombuffer(out, "<f4") * 32768.0, -32768, 32767)), wanted)


def test_a_file_in_and_a_file_out(levels, wanted, tiny_model_folder):
    Path("ids.txt").write_bytes(inputs(levels)["integers"][0])
    arguments = ["stream", "ids.txt", "-m", tiny_model_folder, "-o", "said.wav"]
    status, _, out, err = call(*arguments, "-v", "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["samples"], told["errors"], told["output"]) == (SAMPLES, 0, "said.wav")
    assert told["duration_s"] == SAMPLES / RATE
    assert told["longest_gap_s"] > 0
    assert "times real time" in err.splitlines()[-1]
    assert "first output after" in err.splitlines()[-1]
    info = soundfile.info("said.wav")
    assert (info.frames, info.samplerate, info.channels) == (SAMPLES, RATE, 1)
    assert_close(soundfile.read("said.wav", dtype="int16")[0], wanted)
    status, _, _, err = call(*arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert "exists already" in err
    assert call(*arguments, "-f", "-q")[0] == 0


def test_what_was_said_before_an_error_stays(levels, wanted, tiny_model_folder):
    data = " ".join(map(str, ids(levels)[: 20 * 15])) + " 999"
    status, _, _, err = call("stream", "-m", tiny_model_folder, "-o", "a.wav", data=data.encode())
    assert (status, err.count("\n")) == (1, 1)
    assert_close(soundfile.read("a.wav", dtype="int16")[0][: 15 * 256], wanted[: 15 * 256])
    assert soundfile.info("a.wav").frames == 20 * 256


def lines_of(out, kind):
    if kind == "json":
        return [value for line in out.splitlines() for value in json.loads(line)["ids"]]
    if kind == "text":
        return [int(part.rpartition("_")[2]) for part in out.decode().split(">")[:-1]]
    return [int(part) for part in out.split()]


@pytest.mark.parametrize("kind", ["integers", "json", "text", "nested"])
def test_the_other_way_gives_the_tokens_of_encoding_the_whole(kind, tiny_model_folder):
    samples = (3000 * np.random.default_rng(1).standard_normal(20_000)).astype("<i2")
    soundfile.write("a.wav", samples, RATE)
    form = ["--layout", "interleaved"] + (["--offsets", "--start-id", "10"] if kind == "text" else [])
    form = [] if kind == "nested" else form
    assert call("tokens", "export", "a.wav", "-m", tiny_model_folder, "-o", "a.json", *form)[0] == 0
    codes = json.loads(Path("a.json").read_text())["codes"]
    options = ["stream", "-m", tiny_model_folder, "--encode", "--pcm", "s16le"]
    options += ["--layout", "nested"] if kind == "nested" else ["--syntax", kind]
    status, out, _, err = call(*options, data=samples.tobytes())
    assert (status, err) == (0, "")
    if kind == "nested":
        found = [[], [], [], []]
        for line in out.splitlines():
            for level, more in zip(found, json.loads(line)["codes"], strict=True):
                level += more
        assert found == codes
    else:
        assert lines_of(out, kind) == codes


def test_samples_of_other_rates_and_channels(tiny_model_folder):
    samples = (0.1 * np.random.default_rng(1).standard_normal((30_000, 2))).astype("<f4")
    soundfile.write("a.wav", samples, 24000, subtype="FLOAT")
    export = ["tokens", "export", "a.wav", "-m", tiny_model_folder, "-o", "a.json", "--layout", "interleaved"]
    assert call(*export)[0] == 0
    encode = ["stream", "-m", tiny_model_folder, "--encode", "--pcm", "f32le"]
    status, out, _, _ = call(*encode, "--rate", "24000", "--channels", "2", data=samples.tobytes() + b"xyz")
    assert status == 0
    found, wanted = lines_of(out, "integers"), json.loads(Path("a.json").read_text())["codes"]
    assert len(found) == len(wanted)
    assert np.mean(np.array(found) == wanted) > 0.99  # blocks of other lengths: sums round otherwise
    assert call(*encode, data=b"")[:2] == (0, b"")
    for more, message in (([], "--pcm"), (["--pcm", "s16le", "--layout", "nested", "--offsets"], "nested")):
        status, _, _, err = call("stream", "-m", tiny_model_folder, "--encode", *more, data=b"")
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
    status, _, _, err = call(*encode, data=np.float32([0, np.nan]).tobytes())
    assert (status, err.count("\n")) == (1, 1)
    assert "finite" in err


def test_no_tokens_give_no_audio(tiny_model_folder):
    status, out, _, err = call("stream", "-m", tiny_model_folder, data=b" \n")
    assert (status, len(out), err) == (0, 44, "")


@pytest.fixture(scope="module")
def attending_model_folder(tmp_path_factory, tiny_model_folder):
    """As the tiny model, with an attention window of 32 latent frames: four frames of tokens."""
    import torch

    from snac.hub.checkpoint import save_checkpoint
    from snac.nn.model import SNAC

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SNAC(
            sampling_rate=RATE,
            encoder_dim=16,
            encoder_rates=(4, 8),
            decoder_dim=64,
            decoder_rates=(8, 4),
            attn_window_size=32,
            codebook_size=SIZE,
            vq_strides=STRIDES,
        )
    return save_checkpoint(tmp_path_factory.mktemp("models") / "attending", model.config, model.state_dict())


def test_what_does_not_fill_an_attention_window_is_left_out(levels, attending_model_folder):
    found = ids(levels)
    options = ["stream", "-m", attending_model_folder, "--pcm", "s16le"]

    def heard(tokens):
        status, out, _, err = call(*options, data=" ".join(map(str, found[:tokens])).encode())
        assert status == 0, err
        return out, err

    whole, err = heard(36 * 15)
    assert (len(whole), err) == (2 * 36 * 256, "")
    for tokens, told in (
        (37 * 15, "the last attention window has 1 of 4 frames and is left out\n"),
        (39 * 15, "the last attention window has 3 of 4 frames and is left out\n"),
        (36 * 15 + 2, "the last frame has 2 of 15 tokens and is left out\n"),
    ):
        assert heard(tokens) == (whole, told)
    short, err = heard(15)
    assert (short, err) == (b"", "the last attention window has 1 of 4 frames and is left out\n")
    status, out, _, err = call(*options, data=" ".join(map(str, [*found[: 37 * 15], 999])).encode())
    assert (status, out) == (1, whole)  # an error keeps what came before it, too
    assert "id 999" in err


def test_a_stream_is_shared_out_as_other_commands_are(tiny_model_folder, monkeypatch):
    from snaccli.codec import codec

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = []
    build = codec.build_engine

    def building(*arguments, threads, **options):
        asked.append(threads)
        return build(*arguments, threads=threads, **options)

    monkeypatch.setattr(codec, "build_engine", building)
    assert call("stream", "-m", tiny_model_folder, data=b"")[0] == 0
    assert call("stream", "-m", tiny_model_folder, "--threads", "3", data=b"")[0] == 0
    assert asked == [1, 3]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.wav", "is an audio file: use 'snac encode', or give --encode samples without a header"),
        ("a.flac", "is an audio file: use 'snac encode', or give --encode samples without a header"),
        ("a.snac", "is a .snac file: use 'snac decode'"),
        ("a.npz", "is no text: give ids, JSON lines, or text with tokens, in UTF-8"),
        ("a.txt", ": no token found in the text; --pattern says how they stand there"),
    ],
)
def test_what_holds_no_tokens_is_refused(name, told, tiny_model_folder):
    soundfile.write("a.wav", np.zeros(1000), RATE)
    soundfile.write("a.flac", np.zeros(1000), RATE)
    call("encode", "a.wav", "-m", tiny_model_folder, "-q")
    call("tokens", "export", "a.wav", "-m", tiny_model_folder, "-q", "-o", "a.npz")
    Path("a.txt").write_text("snac is what RIFF and ID3 are not\n")
    status, _, _, err = call("stream", name, "-m", tiny_model_folder, "-o", "said.wav")
    assert status == 1
    assert err == f"snac: {name}{'' if told[0] == ':' else ' '}{told}\n"
    assert not Path("said.wav").exists()
    status, _, _, err = call("stream", "-m", tiny_model_folder, data=Path(name).read_bytes())
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("snac: standard input")


def test_white_space_before_the_first_token_costs_little(levels, wanted, tiny_model_folder):
    """Its lines are counted, and it is not kept: each part of it is looked at once."""

    class Blank(io.BytesIO):
        def read1(self, size=-1):
            return super().read1(min(size, 100))

    line = json.dumps({"ids": [999]}).encode()
    file = Blank(b" \n" * 150_000 + line)
    blank, start = stream._start(file)
    assert start.endswith(line[: len(start.strip())])
    assert len(start) <= 200
    assert blank + start.count(b"\n") == 150_000
    assert sum(map(len, stream._lines(blank))) == blank
    assert max(map(len, stream._lines(blank))) <= 1 << 16
    status, _, _, err = call("stream", "-m", tiny_model_folder, data=b"\n" * 200_000 + b"[1, oops]")
    assert status == 1
    assert "line 200001: " in err
    data = b" \n" * 200_000 + inputs(levels)["integers"][0]
    status, out, _, err = call("stream", "-m", tiny_model_folder, "--pcm", "s16le", data=data)
    assert (status, err) == (0, "")
    assert_close(np.frombuffer(out, "<i2"), wanted)


def test_errors_are_told_with_their_position(levels, wanted, tiny_model_folder):
    frame = 15
    good = ids(levels, 10, True)
    bad = good[: 20 * frame + 3] + good[20 * frame + 4 :]  # frame 20 has lost a token
    data = " ".join(map(str, bad)).encode()
    options = ["stream", "-m", tiny_model_folder, "--offsets", "--start-id", "10", "--pcm", "s16le"]
    status, out, _, err = call(*options, data=data)
    assert (status, err.count("\n")) == (1, 1)
    assert "position 303 (token 3 of a frame, level 3)" in err
    assert "out of order, of token 4" in err
    assert len(out) == 2 * 20 * 256  # what came before it is heard
    status, out, _, err = call(*options, "--on-error", "skip-frame", data=data)
    assert (status, err.count("\n"), len(out)) == (0, 1, 2 * 39 * 256)
    assert "position 303" in err
    status, out, _, err = call(*options, "--on-error", "hold", data=data)
    assert (status, err.count("\n"), len(out)) == (0, 1, 2 * 40 * 256)
    assert_close(np.frombuffer(out, "<i2")[: 15 * 256], wanted[: 15 * 256])
    status, out, _, err = call(*options, data=" ".join(map(str, good[:-2])).encode())
    assert (status, len(out)) == (0, 2 * 39 * 256)
    assert err == "the last frame has 13 of 15 tokens and is left out\n"


@pytest.mark.parametrize(
    ("arguments", "data", "status", "message"),
    [
        ([], b"1 2 words 3", 1, "position 2: 'words' is not a whole number"),
        ([], b"1 2 256", 1, "position 2 (token 2 of a frame, level 2): id 256 is not in 0..255"),
        (["--syntax", "text", "--pattern", "("], b"1", 1, "no regular expression"),
        (["-o", "said.flac"], b"1", 2, "without a header with --pcm"),
        (["--json"], b"1", 2, "--json"),
        (["absent.txt"], None, 1, "absent.txt"),
        (["--start-id", str((1 << 31) - 5)], b"1", 2, "--start-id"),
        (["-m", "absent"], b"1", 1, "no model 'absent'"),
    ],
)
def test_what_cannot_work_is_one_line(arguments, data, status, message, tiny_model_folder):
    model = [] if "-m" in arguments else ["-m", tiny_model_folder]
    found, _, _, err = call("stream", *model, *arguments, data=data)
    assert (found, err.count("\n")) == (status, 1), err
    assert message in err
    assert os.listdir() == []


def process(user_environment, model, *options, stdin=subprocess.PIPE):
    command = [sys.executable, "-m", "snaccli", "stream", "-m", str(model), "--pcm", "s16le", *options]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, env=user_environment)


def test_audio_comes_while_tokens_still_do(levels, wanted, tiny_model_folder, user_environment):
    """The pipe stays open: what is final is out before more is given, in both directions."""
    data = ids(levels)
    with process(user_environment, tiny_model_folder) as program:
        heard = b""
        for first in range(0, len(data), 150):  # ten frames
            program.stdin.write((" ".join(map(str, data[first : first + 150])) + "\n").encode())
            program.stdin.flush()
            least = 2 * (first + 150) // 15 * 256 - 2 * 2000  # the tiny decoder looks ahead less than this
            while len(heard) < least:
                part = os.read(program.stdout.fileno(), 1 << 16)
                assert part, "the program has ended"
                heard += part
        program.stdin.close()
        heard += program.stdout.read()
    assert program.returncode == 0
    assert_close(np.frombuffer(heard, "<i2"), wanted)


def test_tokens_come_while_samples_still_do(tiny_model_folder, user_environment):
    samples = (3000 * np.random.default_rng(1).standard_normal(RATE)).astype("<i2").tobytes()
    with process(user_environment, tiny_model_folder, "--encode") as program:
        program.stdin.write(samples)
        program.stdin.flush()
        heard = os.read(program.stdout.fileno(), 1 << 16)  # with the pipe still open
        assert heard.split()
        program.stdin.close()
        heard += program.stdout.read()
    assert len(heard.split()) == -(-RATE // 256) * 15


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of Unix")
def test_a_named_pipe(levels, wanted, tiny_model_folder):
    os.mkfifo("tokens")
    data = text_of(levels).encode()

    def write():
        with open("tokens", "wb") as file:
            for first in range(0, len(data), 1000):
                file.write(data[first : first + 1000])
                file.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    status, out, _, err = call("stream", "tokens", "-m", tiny_model_folder, "--pcm", "s16le")
    writer.join()
    assert (status, err) == (0, "")
    assert_close(np.frombuffer(out, "<i2"), wanted)


@pytest.mark.skipif(sys.platform == "win32", reason="a socket is no file of Windows")
def test_a_socket(levels, wanted, tiny_model_folder, user_environment):
    ours, theirs = socket.socketpair()
    with process(user_environment, tiny_model_folder, stdin=theirs.fileno()) as program:
        theirs.close()
        ours.sendall(text_of(levels).encode())
        ours.shutdown(socket.SHUT_WR)
        heard = program.stdout.read()
        ours.close()
    assert program.returncode == 0
    assert_close(np.frombuffer(heard, "<i2"), wanted)


def test_a_generator_without_end_stops_with_its_reader(tiny_model_folder, user_environment):
    """``yes ... | snac stream | head``: no message, and everybody ends."""
    script = "import sys\nwhile True: sys.stdout.write('7 ' * 150)"
    with (
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as yes,
        process(user_environment, tiny_model_folder, "-q", stdin=yes.stdout) as program,
    ):
        yes.stdout.close()
        assert len(program.stdout.read(100_000)) == 100_000
        program.stdout.close()
        assert program.wait(300) == 1
        assert yes.wait(300) != 0
