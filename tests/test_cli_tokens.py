"""``snac tokens``: single files, shards of JSONL that can be resumed, and back; what is refused and how."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.cli.app import run, snac_command
from snaccli.cli.ui.console import Console

RATE = 16000
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "tokens.md"


def call(*arguments):
    console = Console(io.StringIO(), io.StringIO(), {})
    status = run([str(argument) for argument in arguments], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(tiny_model_folder):
    return str(tiny_model_folder)


def write(name, seconds=0.3, channels=1, seed=0):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(seconds * RATE), channels)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(shape), RATE)


@pytest.fixture
def folder():
    """Six recordings at two depths, and a file that is none."""
    for n in range(5):
        write(f"in/{n}.wav", seed=n)
    write("in/sub/5.flac", seed=5)
    Path("in/notes.txt").write_text("not to be exported")
    return "in"


def records(folder="out"):
    return {
        record["path"]: record
        for shard in sorted(Path(folder).glob("*.jsonl"))
        for record in map(json.loads, shard.read_text().splitlines())
    }


def shards(folder="out"):
    return {path.name: len(path.read_text().splitlines()) for path in sorted(Path(folder).iterdir())}


def test_one_file_there_and_back(model):
    write("talk.wav", 1.3)
    status, out, err = call("tokens", "export", "talk.wav", "-m", model)
    assert (status, out) == (0, "")
    assert err.startswith("talk.wav -> talk.json  1.3 s  1,230 tokens in 4 levels")
    record = json.loads(Path("talk.json").read_text())
    assert [len(level) for level in record["codes"]] == [82, 164, 328, 656]
    assert (record["path"], record["rate"], record["samples"]) == ("talk.wav", RATE, 20800)
    assert call("encode", "talk.wav", "-m", model, "-q") == (0, "", "")
    Path("talk.snac").rename("same.snac")
    assert call("tokens", "import", "talk.json", "-m", model, "-q") == (0, "", "")
    assert Path("talk.snac").read_bytes() == Path("same.snac").read_bytes()
    assert call("tokens", "import", "talk.json", "-m", model, "-q", "-o", "again.wav") == (0, "", "")
    assert soundfile.info("again.wav").frames == 20800


def test_the_layout_and_the_ids(model):
    write("talk.wav", 0.1)
    options = ["-m", model, "--layout", "interleaved", "--offsets", "--start-id", "1000", "-q"]
    assert call("tokens", "export", "talk.wav", *options, "-o", "a.npz") == (0, "", "")
    assert call("tokens", "export", "talk.wav", *options, "-o", "a.json") == (0, "", "")
    record = json.loads(Path("a.json").read_text())
    with np.load("a.npz", allow_pickle=False) as archive:
        assert archive["ids"].tolist() == [record["codes"]]
        assert int(archive["start_id"]) == record["start_id"] == 1000
    assert all(0 <= id - 1000 - 256 * (n % 15) < 256 for n, id in enumerate(record["codes"]))
    Path("bare.json").write_text(json.dumps(record["codes"]))
    back = ["--offsets", "--start-id", "1000", "-m", model, "-q"]
    assert call("tokens", "import", "bare.json", *back, "-o", "bare.snac") == (0, "", "")
    assert call("tokens", "import", "a.npz", "-m", model, "-q") == (0, "", "")
    told = [json.loads(call("info", "--json", name)[1]) for name in ("bare.snac", "a.snac")]
    assert [level["bytes"] for level in told[0]["levels"]] == [level["bytes"] for level in told[1]["levels"]]
    assert (told[0]["samples"], told[1]["samples"]) == (7 * 256, 1600)


def test_standard_streams(model, monkeypatch, capfdbinary):
    write("talk.wav")
    call("encode", "talk.wav", "-m", model, "-q")
    import sys

    class Pipe:
        def __init__(self, buffer):
            self.buffer = buffer

    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(Path("talk.snac").read_bytes())))
    status, _, err = call("tokens", "export", "-", "-o", "x.json", "-m", model)
    assert (status, err.startswith("standard input -> x.json")) == (0, True)
    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(Path("x.json").read_bytes())))
    assert call("tokens", "import", "-", "-o", "y.snac", "-m", model, "-q") == (0, "", "")
    assert Path("y.snac").read_bytes() == Path("talk.snac").read_bytes()


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_folder_becomes_shards_and_comes_back(folder, model, jobs):
    status, out, err = call(
        "tokens", "export", folder, "-o", "out", "-m", model, "--shard-size", 4, "-j", jobs
    )
    assert (status, out) == (0, "")
    assert "6 of 6 files exported" in err
    assert shards() == {"tokens-00000.jsonl": 4, "tokens-00001.jsonl": 2}
    assert sorted(records()) == ["0.wav", "1.wav", "2.wav", "3.wav", "4.wav", "sub/5.flac"]
    assert call("tokens", "import", "out", "-o", "back", "-m", model, "-q", "-j", jobs) == (0, "", "")
    assert call("encode", folder, "-o", "coded", "-m", model, "-q") == (0, "", "")
    for path in Path("coded").rglob("*.snac"):
        assert (Path("back") / path.relative_to("coded")).read_bytes() == path.read_bytes()
    assert len(list(Path("back").rglob("*.snac"))) == 6
    status = call("tokens", "import", "out", "-o", "heard", "-m", model, "-q", "--format", "flac")
    assert status == (0, "", "")
    assert soundfile.info("heard/sub/5.flac").frames == 4800


def test_a_run_goes_on_where_it_was(folder, model):
    Path("in/2.wav").rename("2.wav")
    Path("in/3.wav").write_bytes(b"RIFF of nothing")
    first = call("tokens", "export", folder, "-o", "out", "-m", model)
    assert first[0] == 1
    assert "4 of 5 files exported, 1 failed" in first[2]
    before = Path("out/tokens-00000.jsonl").read_bytes()
    status, _, err = call("tokens", "export", folder, "-o", "out", "-m", model)
    assert (status, err.count("\n")) == (1, 1)
    assert "--skip-existing" in err
    Path("2.wav").rename("in/2.wav")
    write("in/3.wav")
    status, _, err = call("tokens", "export", folder, "-o", "out", "-m", model, "--skip-existing")
    assert status == 0
    assert "4 of 6 recordings are there already" in err
    assert shards() == {"tokens-00000.jsonl": 4, "tokens-00001.jsonl": 2}
    assert Path("out/tokens-00000.jsonl").read_bytes() == before
    assert len(records()) == 6
    status, _, err = call("tokens", "export", folder, "-o", "out", "-m", model, "--skip-existing")
    assert (status, err) == (0, "6 of 6 recordings are there already\n")
    for change in (["--layout", "interleaved"], ["-m", "mini"]):
        status, _, err = call(
            "tokens", "export", folder, "-o", "out", "-m", model, "--skip-existing", *change
        )
        assert (status, err.count("\n")) == (1, 1)
        assert "choose another folder" in err
    assert call("tokens", "export", folder, "-o", "out", "-m", model, "-f", "-q") == (0, "", "")
    assert shards() == {"tokens-00000.jsonl": 6}


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory):
    """A model of the same name and shape as the tiny one, with other weights."""
    import torch

    from snac.hub.checkpoint import save_checkpoint
    from snac.nn.model import SNAC

    torch.manual_seed(1)
    shape = {"encoder_rates": (4, 8), "decoder_rates": (8, 4), "vq_strides": (8, 4, 2, 1)}
    model = SNAC(16000, 8, decoder_dim=32, attn_window_size=None, codebook_size=256, **shape)
    return save_checkpoint(tmp_path_factory.mktemp("other") / "tiny", model.config, model.state_dict())


def test_no_run_goes_on_with_tokens_of_another_kind(model, other_weights):
    for n in range(3):
        write(f"in/{n}.wav", channels=1 + n % 2, seed=n)
    export = ["tokens", "export", "in", "-m", model]
    assert call(*export, "-o", "out", "-q") == (0, "", "")
    assert call(*export, "-o", "kept", "--channels", "keep", "-q") == (0, "", "")
    assert {path: record.get("mixed_from") for path, record in records().items()} == {
        "0.wav": None,
        "1.wav": 2,
        "2.wav": None,
    }
    write("in/new.wav", seed=9)
    before = sorted(os.walk("."))
    for folder, change, told in (
        ("out", ["-m", str(other_weights)], "fingerprint"),
        ("out", ["--levels", "2"], "strides [8, 4, 2, 1], not [8, 4]"),
        ("out", ["--channels", "keep"], "mixed_from 2, not None"),
        ("kept", [], "channels 2, not 1"),
    ):
        status, out, err = call(*export, "-o", folder, "--skip-existing", *change)
        assert (status, out, err.count("\n")) == (1, "", 1), err
        assert told in err
        assert "choose another folder, or the same options" in err
        assert sorted(os.walk(".")) == before
    assert call(*export, "-o", "out", "-q", "--skip-existing") == (0, "", "")
    assert call(*export, "-o", "kept", "-q", "--skip-existing", "--channels", "keep") == (0, "", "")
    assert len(records()) == len(records("kept")) == 4


def test_coded_files_go_on_by_what_their_headers_say(model, other_weights):
    write("in/0.wav")
    write("in/1.wav", seed=1)
    assert call("encode", "in/0.wav", "-m", model, "-q", "-o", "coded/0.snac") == (0, "", "")
    assert call("encode", "in/1.wav", "-m", str(other_weights), "-q", "-o", "coded/1.snac") == (0, "", "")
    export = ["tokens", "export", "coded", "-o", "out", "-m", model, "--skip-existing"]
    assert call(*export)[0] == 1  # the second is of other weights
    assert len(records()) == 1
    assert call("encode", "in/1.wav", "-m", model, "-q", "-o", "coded/1.snac", "-f") == (0, "", "")
    assert call(*export, "-q") == (0, "", "")
    assert len(records()) == 2
    assert call("encode", "in/0.wav", "-m", str(other_weights), "-q", "-o", "coded/0.snac", "-f")[0] == 0
    status, _, err = call(*export)
    assert (status, err.count("\n")) == (1, 1)
    assert "holds tokens of fingerprint" in err


def test_an_interrupt_leaves_whole_lines_to_go_on_from(folder, model, monkeypatch):
    from snaccli.tokens import transfer

    exported = []
    real = transfer.Exporter.recording

    def interrupted(self, source, path, progress):
        if len(exported) == 3:
            raise KeyboardInterrupt
        exported.append(path)
        return real(self, source, path, progress)

    with monkeypatch.context() as patch:
        patch.setattr(transfer.Exporter, "recording", interrupted)
        assert call("tokens", "export", folder, "-o", "out", "-m", model, "-j", 1)[0] == 130
    assert shards() == {"tokens-00000.jsonl": 3}
    assert sorted(records()) == exported
    assert call("tokens", "export", folder, "-o", "out", "-m", model, "-q", "--skip-existing")[0] == 0
    assert len(records()) == 6


def test_a_full_disk_leaves_no_half_shard(folder, model, monkeypatch):
    from snaccli.io.files import OutputFile

    real, written = OutputFile.write, []

    def full(self, data):
        written.append(data)
        if len(written) == 3:
            from snaccli.errors import OutputError

            raise OutputError(
                "cannot write: no space left on the disk: free some, or write to another folder"
            )
        return real(self, data)

    monkeypatch.setattr(OutputFile, "write", full)
    status, _, err = call("tokens", "export", folder, "-o", "out", "-m", model, "-j", 1, "--shard-size", 2)
    assert status == 1
    assert "no space left" in err
    assert set(os.listdir("out")) == {"tokens-00000.jsonl", "tokens-00001.jsonl", "tokens-00002.jsonl"}
    assert len(records()) == 5


def test_of_a_recording_and_its_snac_file_one_is_taken(folder, model):
    assert call("encode", "in/0.wav", "-m", model, "-q") == (0, "", "")
    status, _, err = call("tokens", "export", folder, "-o", "out", "-m", model)
    assert status == 0
    assert err.startswith("1 audio file is left out, whose .snac file is taken\n")
    assert len(records()) == 6
    assert "0.snac" in records()


def test_a_folder_of_arrays_mirrors_the_tree(folder, model):
    assert call("tokens", "export", folder, "-o", "out", "-m", model, "--format", "npz", "-q") == (0, "", "")
    assert Path("out/sub/5.npz").is_file()
    with np.load("out/0.npz", allow_pickle=False) as archive:
        assert archive["level_3"].shape == (1, 152)
        assert str(archive["path"]) == "0.wav"
    assert call("tokens", "import", "out", "-o", "back", "-m", model, "-q") == (0, "", "")
    assert len(list(Path("back").rglob("*.snac"))) == 6


def test_bad_lines_do_not_stop_the_others(model):
    good = {"path": "good.wav", "codes": [[1], [1] * 2, [1] * 4, [1] * 8]}
    lines = [
        good,
        good | {"path": "../../out.wav"},
        good | {"path": "far.wav", "codes": [[1], [1, 300], [1] * 4, [1] * 8]},
        good | {"path": "ragged.wav", "codes": [[1], [1], [1] * 4, [1] * 8]},
        good | {"path": "foreign.wav", "fingerprint": "0123456789abcdef"},
        "no record",
        [1] * 15,
    ]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, _, err = call("tokens", "import", "a.jsonl", "-o", "out", "-m", model)
    assert status == 1
    assert "2 of 7 files imported, 5 failed" in err
    assert sorted(os.listdir("out")) == ["a-000007.snac", "good.snac"]
    told = err.splitlines()
    for start, part in (
        ("snac: a.jsonl:2: ", "not one below a folder"),
        ("snac: a.jsonl:3: ", "level 1, position 1: code 300 is not in 0..255"),
        ("snac: a.jsonl:4: ", "level 1 ends at position 1"),
        ("snac: a.jsonl:5: ", "name the right one with -m"),
        ("snac: a.jsonl:6: ", "no list of 'codes'"),
    ):
        assert any(line.startswith(start) and part in line for line in told), (start, err)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["export", "in", "-m", "MODEL"], 2, "give -o a folder"),
        (["export", "in", "-o", "all.jsonl"], 2, "give -o a folder"),
        (["export", "in", "-o", "in/0.wav"], 2, "is a file"),
        (["export", "in/0.wav", "-o", "x.txt"], 2, ".json, .jsonl or .npz"),
        (["export", "in/0.wav", "--offsets"], 2, "add --layout interleaved"),
        (["export", "in/0.wav", "--start-id", "5"], 2, "add --layout interleaved"),
        (
            ["export", "in/0.wav", "--layout", "interleaved", "--start-id", str(1 << 31), "-m", "MODEL"],
            2,
            "smaller",
        ),
        (["export", "in/0.wav", "--levels", "5", "-m", "MODEL"], 2, "has 4 levels"),
        (["export", "in/0.wav", "-m", "absent"], 1, "no model 'absent'"),
        (["export", "in", "in/sub", "-o", "out"], 2, "would both be called"),
        (["export", "in/notes.txt", "-m", "MODEL"], 1, "in/notes.txt"),
        (["import", "a.jsonl", "-m", "MODEL"], 2, "give it with -o"),
        (["import", "a.json"], 1, "name the model"),
        (["import", "a.json", "-m", "MODEL", "-o", "x.docx"], 1, "docx"),
        (["import", "in/notes.txt", "-m", "MODEL"], 1, "is not JSON"),
        (["import", "named.json"], 1, "was made with './tiny'"),
    ],
)
def test_what_cannot_work_is_one_line(folder, model, arguments, status, message):
    write("in/sub/0.wav")
    Path("a.jsonl").write_text('{"path": "a.wav", "codes": []}\n')
    Path("a.json").write_text(json.dumps([1] * 15))
    Path("named.json").write_text(json.dumps({"model": "./tiny", "codes": [1] * 15}))
    os.symlink(model, "tiny")  # not to be read only because a file says so
    before = sorted(os.walk("."))
    found, out, err = call("tokens", *[model if part == "MODEL" else part for part in arguments])
    assert (found, out, err.count("\n")) == (status, "", 1), err
    assert message in err
    assert "defect" not in err
    assert sorted(os.walk(".")) == before


def test_json_tells_of_each_file(folder, model):
    status, out, _ = call("tokens", "export", "in/0.wav", "-m", model, "--json", "-o", "x.npz")
    told = json.loads(out)
    assert (status, told["tokens"], told["levels"], told["output"]) == (0, 285, 4, "x.npz")
    status, out, _ = call("tokens", "import", "x.npz", "-m", model, "--json")
    assert (status, json.loads(out)["samples"]) == (0, 4800)
    status, out, _ = call("tokens", "export", folder, "-m", model, "--json", "-o", "out")
    assert (status, len(json.loads(out))) == (0, 6)


def test_the_documented_options_exist():
    tokens = snac_command().get_command(None, "tokens")
    calls = re.findall(
        r"^snac tokens (export|import) (.*?)(?:#.*)?$", DOCUMENT.read_text("utf-8"), re.MULTILINE
    )
    assert len(calls) > 4
    for name, rest in calls:
        known = {flag for param in tokens.get_command(None, name).params for flag in param.opts}
        for word in rest.split():
            assert not word.startswith("-") or word == "-" or word in known, word


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of Unix")
@pytest.mark.parametrize("name", ["talk.wav", "talk.snac"])
def test_a_recording_comes_through_a_named_pipe(model, name):
    import threading

    write("talk.wav", 1.3)
    assert call("encode", "talk.wav", "-m", model, "-q") == (0, "", "")
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(Path(name).read_bytes()))
    writer.start()
    status = call("tokens", "export", "pipe", "-m", model, "-o", "piped.json", "-q")
    writer.join()
    assert status == (0, "", "")
    assert call("tokens", "export", name, "-m", model, "-o", "plain.json", "-q") == (0, "", "")
    piped, plain = (json.loads(Path(file).read_text()) for file in ("piped.json", "plain.json"))
    assert piped["codes"] == plain["codes"]
    assert (piped["path"], piped["samples"]) == ("pipe", 20800)


def test_one_thing_at_a_time_is_waited_for(model):
    """The model of a batch is told of once, by the batch."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("a.wav", "b.wav"):
        write(name)
    console = Console(io.StringIO(), Terminal(), {"TERM": "xterm", "COLUMNS": "80"})
    assert run(["tokens", "export", "a.wav", "b.wav", "-m", model, "-o", "out"], console) == 0
    lines = console.stderr.getvalue().replace("\r", "\n").split("\n")
    assert any("loading the model" in line for line in lines)
    assert not any(line.count("loading the model") > 1 for line in lines)
