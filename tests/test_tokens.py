"""Tokens: exact round trips of every order, form and length; what is wrong is named with its position."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snaccli.codec import Codec, ModelPool
from snaccli.codes import Codes
from snaccli.errors import ModelMismatchError, SnacError, UsageError
from snaccli.tokens import (
    Form,
    Interleaving,
    NamedRecording,
    RaggedLevelsError,
    TokenError,
    TokenFileError,
    TokenRangeError,
    export_file,
    flatten,
    import_file,
    unflatten,
)
from snaccli.tokens.files import draft, lines, parse, read, read_line, safe_path, to_json, to_npz
from snaccli.tokens.transfer import Exporter

ROOT = Path(__file__).resolve().parent.parent
STRIDES = [(4, 2, 1), (8, 4, 2, 1), (2, 1), (1,), (6, 3, 2, 1), (12, 4, 4, 2)]
SPEECH = Interleaving((4, 2, 1), 4096, offsets=True, start_id=128266)


orders = st.builds(
    Interleaving,
    st.sampled_from([(4, 2, 1), (8, 4, 2, 1)]) | st.sampled_from(STRIDES),
    st.sampled_from([2, 256, 4096, 65536]),
    st.booleans(),
    st.sampled_from([0, 1, 128266, (1 << 31) - 27 * 65536 - 1]),
)


def random_levels(order: Interleaving, tokens: int, lead: tuple[int, ...], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, order.codebook_size, (*lead, n)) for n in order.lengths(tokens)]


@settings(deadline=None)
@given(orders, st.integers(0, 100), st.sampled_from([(), (1,), (2,), (3, 2), (0,)]), st.integers(0, 99))
def test_every_length_comes_back(order: Interleaving, tokens: int, lead: tuple[int, ...], seed: int) -> None:
    levels = random_levels(order, tokens, lead, seed)
    ids = flatten(levels, order)
    assert ids.shape == (*lead, tokens)
    assert ids.dtype == np.int64
    assert not ids.size or (ids.min() in order.ids and ids.max() in order.ids)
    for before, after in zip(levels, unflatten(ids, order), strict=True):
        np.testing.assert_array_equal(after, before)
        assert after.shape == before.shape
    tensors = flatten([torch.from_numpy(level) for level in levels], order)
    assert isinstance(tensors, torch.Tensor)
    np.testing.assert_array_equal(tensors.numpy(), ids)
    for before, tensor in zip(levels, unflatten(tensors, order), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), before)


@settings(max_examples=30, deadline=None)
@given(orders, st.integers(0, 60), st.data())
def test_ids_come_back_from_their_levels(order: Interleaving, tokens: int, data: st.DataObject) -> None:
    first = order.first_ids()
    ids = [
        int(first[n % order.frame_length]) + data.draw(st.integers(0, order.codebook_size - 1))
        for n in range(tokens)
    ]
    np.testing.assert_array_equal(flatten(unflatten(np.array(ids, np.int64), order), order), ids)


@settings(max_examples=50, deadline=None)
@given(orders, st.integers(1, 60), st.integers(0, 60))
def test_a_sequence_grows_at_its_end_only(order: Interleaving, tokens: int, more: int) -> None:
    """The first tokens of a recording stand first: a model may generate them one after another."""
    levels = random_levels(order, tokens + more, (), 1)
    begun = [level[:n] for level, n in zip(levels, order.lengths(tokens), strict=True)]
    np.testing.assert_array_equal(flatten(begun, order), flatten(levels, order)[:tokens])


@settings(max_examples=50, deadline=None)
@given(orders, st.integers(1, 60), st.data())
def test_offsets_tell_positions_apart(order: Interleaving, tokens: int, data: st.DataObject) -> None:
    levels = random_levels(order, tokens, (), 2)
    ids = flatten(levels, order)
    place = data.draw(st.integers(0, tokens - 1))
    ids[place] += order.codebook_size * data.draw(st.sampled_from([-1, 1]))
    with pytest.raises(TokenRangeError, match=f"^position {place} ") as caught:
        unflatten(ids, order)
    assert (caught.value.position, caught.value.value) == (place, ids[place])
    assert caught.value.level == order.positions[place % order.frame_length][0]


@pytest.mark.parametrize(
    ("strides", "levels"),
    [((4, 2, 1), [0, 1, 2, 2, 1, 2, 2]), ((8, 4, 2, 1), [0, 1, 2, 3, 3, 2, 3, 3, 1, 2, 3, 3, 2, 3, 3])],
)
def test_the_order_is_that_of_speech_models(strides: tuple[int, ...], levels: list[int]) -> None:
    assert [level for level, _ in Interleaving(strides, 4096).positions] == levels


def depth_first(strides: tuple[int, ...], level: int = 0, index: int = 0) -> list[tuple[int, int]]:
    """The tree walked as such: a token, then what hangs on it."""
    found = [(level, index)]
    if level + 1 < len(strides):
        fan = strides[level] // strides[level + 1]
        for child in range(fan):
            found += depth_first(strides, level + 1, index * fan + child)
    return found


@pytest.mark.parametrize("strides", [(4, 2, 1), (8, 4, 2, 1), (16, 4, 1), (6, 3, 1), (5,)])
def test_the_order_is_depth_first(strides: tuple[int, ...]) -> None:
    assert list(Interleaving(strides, 4096).positions) == depth_first(strides)


def test_the_ids_of_seven_token_frames() -> None:
    """Coarse at 0, middle at 1 and 4, fine at 2, 3, 5 and 6, 4,096 ids for each position from 128,266 on."""
    levels = [np.array([1, 11]), np.array([2, 3, 12, 13]), np.array([4, 5, 6, 7, 14, 15, 16, 17])]
    start, size = 128266, 4096
    codes = [1, 2, 4, 5, 3, 6, 7, 11, 12, 14, 15, 13, 16, 17]
    expected = [start + size * (n % 7) + code for n, code in enumerate(codes)]
    assert flatten(levels, SPEECH).tolist() == expected
    assert SPEECH.frame_length == 7
    assert SPEECH.ids == range(128266, 128266 + 7 * 4096)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_what_does_not_fit_is_named(kind: type) -> None:
    with pytest.raises(RaggedLevelsError, match=r"level 1 has 4, not 3") as ragged:
        flatten([kind([0, 0]), kind([0, 0, 0]), kind([0] * 8)], SPEECH)
    assert (ragged.value.level, ragged.value.length, ragged.value.expected) == (1, 3, 4)
    with pytest.raises(TokenRangeError, match=r"level 2, position 3: code 4096 is not in 0\.\.4095") as far:
        flatten([kind([0]), kind([0, 0]), kind([0, 0, 0, 4096])], SPEECH)
    assert (far.value.level, far.value.position, far.value.value) == (2, 3, 4096)
    with pytest.raises(TokenError, match="2 levels for the 3 strides"):
        flatten([kind([0]), kind([0, 0])], SPEECH)
    with pytest.raises(TokenError, match="sequence of integers"):
        flatten([kind([0.5]), kind([0, 0]), kind([0] * 4)], SPEECH)
    with pytest.raises(TokenError, match="sequence of integers"):
        unflatten(kind(3), SPEECH)
    with pytest.raises(TokenError, match="level 1 has shape"):
        flatten([kind([[0]]), kind([0, 0]), kind([[0] * 4])], SPEECH)
    with pytest.raises(
        TokenRangeError, match=r"position 8 \(token 1 of frame 1, level 1\): id 9 is not in 132362"
    ):
        unflatten(
            kind([[*SPEECH.first_ids()] * 2, [*SPEECH.first_ids(), SPEECH.start_id, 9] + [0] * 5]), SPEECH
        )


def test_arrays_and_tensors_are_not_mixed() -> None:
    with pytest.raises(TokenError, match="all arrays or all tensors"):
        flatten([np.zeros(1, int), torch.zeros(1, dtype=torch.int64)], Interleaving((1, 1), 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"strides": ()},
        {"strides": (4, 3)},
        {"strides": (4, 0)},
        {"codebook_size": 1},
        {"codebook_size": 1 << 17},
        {"start_id": -1},
        {"start_id": (1 << 31) - 4095},
    ],
)
def test_an_impossible_order_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"strides|codebook size|ids from"):
        Interleaving(**{"strides": (2, 1), "codebook_size": 4096} | wrong)


def test_arrays_need_no_torch() -> None:
    script = (
        "import sys\nfrom snaccli.tokens import Interleaving, flatten, unflatten\n"
        "order = Interleaving((2, 1), 8)\n"
        "assert unflatten(flatten([[1], [2, 3]], order), order)[1].tolist() == [2, 3]\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# Files


@pytest.fixture(scope="module")
def codec(tiny_model_folder: Path) -> Codec:
    return Codec.load(str(tiny_model_folder), device="cpu")


def random_recording(
    codec: Codec, frames: int, channels: int = 1, levels: int = 4, seed: int = 0
) -> NamedRecording:
    """Of so many frames of tokens; its last samples fill the last frame in part."""
    rng = np.random.default_rng(seed)
    strides = codec.strides[:levels]
    grid = tuple(
        rng.integers(0, codec.codebook_size, (channels, frames * codec.strides[0] // s)).astype(np.uint16)
        for s in strides
    )
    samples = max(0, frames * codec.strides[0] * codec.hop_length - seed % codec.config.pad_multiple)
    codes = Codes(grid, strides, codec.codebook_size)
    return NamedRecording(codes, codec.name, codec.fingerprint, codec.rate, codec.rate, samples, "a/b c.wav")


def assert_same(one: NamedRecording, other: NamedRecording) -> None:
    for name in ("model", "fingerprint", "model_rate", "rate", "samples", "path", "duration_s"):
        if name != "duration_s" or one.samples:
            assert getattr(one, name) == getattr(other, name), name
    assert one.codes.strides == other.codes.strides
    for before, after in zip(one.codes.levels, other.codes.levels, strict=True):
        np.testing.assert_array_equal(before, after)


forms = st.builds(Form, st.just(False)) | st.builds(
    Form, st.just(True), st.booleans(), st.integers(0, 200_000)
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(1, 3), st.integers(1, 4), st.integers(0, 300), forms)
def test_files_give_the_recording_back(
    codec: Codec, frames: int, channels: int, levels: int, seed: int, form: Form
) -> None:
    recording = random_recording(codec, frames, channels, levels, seed)
    line = to_json(draft(recording, form))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert_same(parse(line).complete(codec, Form()), recording)
    packed = Path(codec_folder) / "x.npz"
    packed.write_bytes(to_npz(draft(recording, form)))
    assert_same(read(packed).complete(codec, Form()), recording)


codec_folder: Path


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    global codec_folder
    codec_folder = tmp_path_factory.mktemp("packed")


@pytest.mark.parametrize("form", [Form(), Form(True), Form(True, True, 128266)])
@pytest.mark.parametrize("ending", ["json", "npz"])
@pytest.mark.parametrize("channels", ["mono", "keep"])
def test_a_snac_file_comes_back_byte_for_byte(
    tmp_path: Path, codec: Codec, recording: Path, form: Form, ending: str, channels: str
) -> None:
    import soundfile

    from snaccli.codec import encode_file

    samples, rate = soundfile.read(recording)
    for count in (1, 7001):
        soundfile.write(tmp_path / "a.wav", np.stack([samples[:count], samples[5 : count + 5]], 1), rate)
        encode_file(tmp_path / "a.wav", tmp_path / "a.snac", model=codec, channels=channels, overwrite=True)
        told = export_file(
            tmp_path / "a.snac", tmp_path / f"a.{ending}", model=codec, form=form, overwrite=True
        )
        straight = export_file(
            tmp_path / "a.wav",
            tmp_path / f"b.{ending}",
            model=codec,
            form=form,
            channels=channels,
            overwrite=True,
        )
        assert (told.tokens, told.channels) == (straight.tokens, 1 if channels == "mono" else 2)
        for name in ("a", "b"):
            import_file(tmp_path / f"{name}.{ending}", tmp_path / "c.snac", model=codec, overwrite=True)
            assert (tmp_path / "c.snac").read_bytes() == (tmp_path / "a.snac").read_bytes()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 2), st.sampled_from([16000, 22050])), max_size=9),
    st.integers(0, 99),
)
def test_recordings_coded_together_are_those_coded_alone(
    codec: Codec, shapes: list[tuple[int, int, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    signals = [
        (0.1 * rng.standard_normal((length, channels)).astype(np.float32), rate)
        for length, channels, rate in shapes
    ]
    together = codec.encode_many(signals)
    assert len(together) == len(signals)
    for found, (samples, rate) in zip(together, signals, strict=True):
        alone = codec.encode([samples], rate, samples.shape[1])
        assert (found.samples, found.rate, found.fingerprint) == (len(samples), rate, codec.fingerprint)
        for one, other in zip(found.codes.levels, alone.codes.levels, strict=True):
            np.testing.assert_array_equal(one, other)


def test_files_exported_together_are_those_exported_alone(
    tmp_path: Path, codec: Codec, recording: Path
) -> None:
    import soundfile

    samples, rate = soundfile.read(recording)
    for number, length in enumerate((8000, 100, 8100, 0, 8000)):
        shape = samples[:length] if number else np.stack([samples[:length]] * 2, axis=1)
        soundfile.write(tmp_path / f"{number}.wav", shape, rate)
    (tmp_path / "bad.wav").write_bytes(b"RIFF of nothing")
    exporter = Exporter(ModelPool(codec), Form(True))
    sources = [(str(tmp_path / f"{n}.wav"), f"{n}.wav") for n in (0, 1, 2, "bad", 3, 4)]
    found = exporter.together(sources)
    assert isinstance(found[3], SnacError)
    for (source, path), one in zip(sources, found, strict=True):
        if "bad" not in path:
            assert isinstance(one, NamedRecording)
            other = exporter.recording(source, path)
            assert (one.mixed_from, to_json(draft(one, Form()))) == (
                other.mixed_from,
                to_json(draft(other, Form())),
            )


def test_fewer_levels_are_those_of_decode(tmp_path: Path, codec: Codec, recording: Path) -> None:
    import soundfile

    from snaccli.codec import decode_file, encode_file

    encode_file(recording, tmp_path / "a.snac", model=codec)
    export_file(tmp_path / "a.snac", tmp_path / "a.json", model=codec, levels=2, form=Form(True, True))
    import_file(tmp_path / "a.json", tmp_path / "two.snac", model=codec)
    import_file(tmp_path / "a.json", tmp_path / "two.wav", model=codec)
    decode_file(tmp_path / "a.snac", tmp_path / "wanted.wav", model=codec, levels=2)
    decode_file(tmp_path / "two.snac", tmp_path / "found.wav", model=codec)
    wanted = soundfile.read(tmp_path / "wanted.wav", dtype="int16")[0].astype(int)
    for name in ("two.wav", "found.wav"):
        found = soundfile.read(tmp_path / name, dtype="int16")[0]
        assert len(found) == len(wanted)
        assert np.abs(found - wanted).max() <= 1
    with pytest.raises(UsageError, match="has 4 levels"):
        export_file(tmp_path / "a.snac", tmp_path / "b.json", model=codec, levels=5)


def test_bare_ids_take_everything_else_from_the_model(codec: Codec) -> None:
    recording = random_recording(codec, 3)
    form = Form(True, True, 1000)
    ids = form.sequences(recording.codes)[0][0].tolist()
    draft = parse(json.dumps(ids).encode())
    found = draft.complete(codec, form)
    assert (found.rate, found.samples) == (codec.rate, recording.samples)
    np.testing.assert_array_equal(found.codes.levels[3], recording.codes.levels[3])
    nested = parse(json.dumps([level[0].tolist() for level in recording.codes.levels[:2]]).encode())
    assert nested.complete(codec, Form()).codes.strides == (8, 4)
    assert parse(b"[]").complete(codec, Form()).samples == 0
    extra = parse(
        json.dumps({"codes": ids, "offsets": True, "start_id": 1000, "text": {"hello": 1}}).encode()
    )
    assert extra.complete(codec, Form()).samples == found.samples


GOOD = {"strides": [8, 4, 2, 1], "codebook_size": 256, "codes": [[1], [1] * 2, [1] * 4, [1] * 8]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"codes": [[1], [1] * 2, [1] * 3, [1] * 8]}, RaggedLevelsError, "level 2 ends at position 3"),
        (
            {"codes": [[1], [1] * 2, [1, 2, 256, 1], [1] * 8]},
            TokenRangeError,
            "level 2, position 2: code 256",
        ),
        ({"codes": [[1], [-1, 1], [1] * 4, [1] * 8]}, TokenRangeError, "level 1, position 0: code -1"),
        (
            {"codes": [1] * 16},
            RaggedLevelsError,
            "ends within a frame, at position 16: its last frame has 1 of",
        ),
        (
            {"codes": [1] * 14 + [256]},
            TokenRangeError,
            r"position 14 \(token 14 of frame 0, level 3\): id 256",
        ),
        ({"codes": [[1]] * 3}, ModelMismatchError, "3 levels of tokens do not fit"),
        ({"strides": [4, 2, 1], "codes": [[1], [1] * 2, [1] * 4]}, ModelMismatchError, r"\[4, 2, 1\]"),
        ({"codebook_size": 4096}, ModelMismatchError, "4096 codewords"),
        ({"fingerprint": "0" * 16}, ModelMismatchError, "of fingerprint 0000000000000000"),
        ({"fingerprint": "\n"}, TokenFileError, "'fingerprint' is not one of 16 hex"),
        ({"fingerprint": "0" * 15 + "\n"}, TokenFileError, "'fingerprint' is not one of 16 hex"),
        ({"fingerprint": "0" * 15 + "G"}, TokenFileError, "'fingerprint' is not one of 16 hex"),
        ({"model_rate": 24000}, ModelMismatchError, "24000 Hz"),
        ({"samples": 100000}, TokenFileError, "100000 samples at 16000 Hz are not 8 latent frames"),
        ({"samples": 256, "rate": 8000}, TokenFileError, "correct rate and samples"),
    ],
)
def test_contradictions_are_named(codec: Codec, change: dict, error: type, message: str) -> None:
    assert parse(json.dumps(GOOD).encode()).complete(codec, Form()).samples == 256
    with pytest.raises(error, match=message):
        parse(json.dumps(GOOD | change).encode()).complete(codec, Form())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"7", "no list of 'codes'"),
        (b'{"codes": "abc"}', "no list of 'codes'"),
        (b"[1, true]", "position 1: true is not a whole number"),
        (b"[1, 2.0]", "position 1: 2.0 is not"),
        (b"[1, 1e999]", "position 1: Infinity is not"),
        (b"[1, null]", "position 1: null is not"),
        (b"[1, [2]]", "position 1: list is not"),
        (b"[[1], 2]", "level 1, is not a list"),
        (b'[[1], ["2"]]', 'level 1, position 0: "2" is not'),
        (b"[" * 200_000, "too many lists"),
        (b"[" * 5_000, "not JSON"),
        (b"[" + b"9" * 500 + b"]", "too long numbers"),
        (b"[1, 36893488147419103232]", "position 1: a number beyond 64 bits"),
        (b'{"codes": [1], "rate": 0}', "'rate' is not a whole number from 1"),
        (b'{"codes": [1], "samples": true}', "'samples' is not a whole number"),
        (b'{"codes": [1], "samples": -1}', "'samples' is not a whole number"),
        (b'{"codes": [1], "offsets": 1}', "neither true nor false"),
        (b'{"codes": [1], "strides": "8421"}', "'strides' is not a list"),
        (b'{"codes": [1], "strides": [8, 4.5]}', "'strides' is not a whole number"),
        (b'{"codes": [1], "channels": 2}', "list for each of 2 channels"),
        (b'{"codes": [1], "channels": 1000000000}', "'channels' is not a whole number from 1 to 16"),
        (b'{"codes": [[1], [2, 3]], "channels": 2}', "the channels have"),
        (b'{"codes": [1], "model": ["mini"]}', "'model' is not a text"),
        (b"[" + b"[1]," * 16 + b"[1]]", "1 to 16 levels"),
    ],
)
def test_hostile_json_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        parse(text)


def test_json_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaccli.tokens.files.MAX_JSON_BYTES", 1000)
    (tmp_path / "a.json").write_bytes(b"[" + b"1," * 600 + b"1]")
    with pytest.raises(TokenFileError, match=r"\.npz"):
        read(tmp_path / "a.json")
    (line,) = lines(tmp_path / "a.json")
    with pytest.raises(TokenFileError, match=r"\.npz"):
        read_line(tmp_path / "a.json", line)


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def member(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # Without the time of day, which would be part of the tests' names.
        archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def header(shape: str, dtype: str = "<i4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04 and no more", "not an .npz"),
        (npz(ids=np.array([1])[None])[:-30], "not an .npz"),
        (npz(other=np.array([1])), "neither 'ids' nor 'level_0'"),
        (npz(level_1=np.array([[1]])), "neither 'ids' nor 'level_0'"),
        (npz(ids=np.array([[1.5]])), "not a whole array of integers"),
        (npz(ids=np.array([None])), "not a whole array of integers"),
        (npz(ids=np.zeros((1, 1, 1), int)), "not a whole array of integers"),
        (npz(ids=np.zeros((17, 1), int)), "not of integers"),
        (npz(ids=np.array(5)), "not of integers"),
        (npz(level_0=np.zeros((1, 1), int), level_1=np.zeros((2, 1), int)), r"\[1, 2\] channels"),
        (npz(ids=np.array([[1]]), rate=np.array(True)), "'rate' is not a whole number"),
        (npz(ids=np.array([[1 << 63]], np.uint64)), "beyond 63 bits"),
        (member("ids.npy", header("(1, 1000000000000,)")), "not a whole array"),
        (member("ids.npy", header("(1, -1)")), "not a whole array"),
        (member("ids.npy", header("(1, 1)", "|O") + bytes(8)), "not a whole array"),
        (member("ids.npy", bytes(1 << 28)), "MiB of arrays"),
        (member("ids.npy", bytes(1 << 20)), "not an .npz"),
    ],
)
def test_hostile_archives_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(TokenError, match=message):
        read(tmp_path / "a.npz")


def test_archives_of_others_are_read(tmp_path: Path, codec: Codec) -> None:
    """Plain one-dimensional arrays, arrays in Fortran's order, and names that mean nothing here."""
    (tmp_path / "a.npz").write_bytes(npz(ids=np.arange(15), speaker=np.array("me")))
    assert read(tmp_path / "a.npz").complete(codec, Form()).codes.frames == 8
    ids = np.arange(30).reshape(2, 15)
    (tmp_path / "a.npz").write_bytes(npz(ids=np.asfortranarray(ids)))
    np.testing.assert_array_equal(read(tmp_path / "a.npz").sequences[0], ids)


def test_attention_takes_whole_windows(tmp_path: Path) -> None:
    from snac.hub.checkpoint import save_checkpoint
    from snac.nn.model import SNAC

    from .published import SMALL

    torch.manual_seed(0)
    model = SNAC(**SMALL["no-noise-attention"])
    folder = save_checkpoint(tmp_path / "model", model.config, model.state_dict())
    codec = Codec.load(str(folder), device="cpu")
    for frames in (4, 8):
        assert parse(json.dumps([1] * 7 * frames).encode()).complete(codec, Form()).codes.frames == 4 * frames
    with pytest.raises(TokenFileError, match=r"6 frames of tokens are no multiple of the 4 .* leave 2 out"):
        parse(json.dumps([1] * 7 * 6).encode()).complete(codec, Form())


@pytest.mark.parametrize(
    "path", ["../a.wav", "/etc/passwd", "a//b", "c:/a", "a\\..\\b", "\\\\host\\a", "a\0b", "."]
)
def test_paths_do_not_lead_out_of_the_folder(path: str) -> None:
    with pytest.raises(TokenFileError, match="below a folder"):
        safe_path(path)


def test_lines_are_found_without_reading_them(tmp_path: Path) -> None:
    texts = ['{"path": "a/\\u00e4.wav", "codes": []}', "", "[1, 2]", '{"codes": [' + "1," * 40_000 + "1]}"]
    (tmp_path / "a.jsonl").write_text("\n".join(texts))
    found = list(lines(tmp_path / "a.jsonl"))
    assert [(line.number, line.path) for line in found] == [(1, "a/ä.wav"), (3, ""), (4, "")]
    assert [read_line(tmp_path / "a.jsonl", line).sequences[0].size for line in found] == [0, 2, 40_001]
    (tmp_path / "a.jsonl").write_text('{"path": 5}')
    with pytest.raises(TokenFileError, match="line 1: its path"):
        list(lines(tmp_path / "a.jsonl"))


def test_too_many_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaccli.tokens.files.MAX_LINES", 5)
    (tmp_path / "a.jsonl").write_text("1\n" * 5)
    assert len(list(lines(tmp_path / "a.jsonl"))) == 5
    (tmp_path / "a.jsonl").write_text("\n" * 6)
    with pytest.raises(TokenFileError, match="more than 5 lines"):
        list(lines(tmp_path / "a.jsonl"))


def test_the_documented_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tokens.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})


def test_errors_are_the_users_to_mend() -> None:
    for error in (TokenError, TokenFileError, TokenRangeError, RaggedLevelsError):
        assert issubclass(error, SnacError)
