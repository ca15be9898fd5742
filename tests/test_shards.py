"""Shards in each format and in each place: the same recordings out of all of them, whole or not at all."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.cli.app import run
from snaccli.cli.ui.console import Console
from snaccli.errors import OutputError
from snaccli.io import elsewhere
from snaccli.io.elsewhere import Part, members
from snaccli.tokens import TokenFileError
from snaccli.tokens.formats import FORMATS, _LineWriter
from snaccli.tokens.recording import Draft
from snaccli.tokens.shards import ShardWriter, existing

RATE = 16000


def call(*arguments):
    console = Console(io.StringIO(), io.StringIO(), {})
    status = run([str(argument) for argument in arguments], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


def done(*arguments):
    status, _, err = call(*arguments, "-q")
    assert (status, err) == (0, "")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(tiny_model_folder):
    return str(tiny_model_folder)


NAMES = ["a.wav", "b.x.wav", "sub/c.wav", "sub/d.wav", "sub/e.wav"]


def samples(seed):
    return 0.1 * np.random.default_rng(seed).standard_normal(round((0.1 + 0.01 * seed) * RATE))


@pytest.fixture
def folder():
    for seed, name in enumerate(NAMES):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(Path("in", name), samples(seed), RATE)
    return "in"


@pytest.fixture
def wanted(folder, model):
    """The ``.snac`` files of the folder by name."""
    done("encode", folder, "-o", "wanted", "-m", model)
    return tree("wanted")


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.snac")}


FORMS = [[], ["--layout", "interleaved", "--offsets", "--start-id", "1000"]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_every_format_gives_the_recordings_back(folder, model, wanted, kind, form):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    export = ["tokens", "export", folder, "-m", model, "--format", kind, "--shard-size", 2, *form]
    done(*export, "-o", "one", "-j", 1)
    done(*export, "-o", "three", "-j", 3)
    names = [f"tokens-0000{n}.{kind}" for n in range(3)]
    assert sorted(os.listdir("one")) == names
    for name in names:  # who did the work leaves no trace
        assert Path("one", name).read_bytes() == Path("three", name).read_bytes()
    done("tokens", "import", "one", "-o", "back", "-m", model)
    assert tree("back") == wanted
    status, _, err = call(*export, "-o", "one", "--skip-existing")
    assert (status, err) == (0, "5 of 5 recordings are there already\n")
    Path("one", names[1]).unlink()
    status, _, err = call(*export, "-o", "one", "--skip-existing", "--levels", "2")
    assert (status, err.count("\n")) == (1, 1)
    assert "strides" in err
    done(*export, "-o", "one", "--skip-existing")
    assert sorted(os.listdir("one")) == [names[0], names[2], f"tokens-00003.{kind}"]
    done("tokens", "import", "one", "-o", "again", "-m", model)
    assert tree("again") == wanted


def test_formats_are_not_mixed(folder, model):
    done("tokens", "export", folder, "-m", model, "-o", "out")
    status, _, err = call(
        "tokens", "export", folder, "-m", model, "-o", "out", "--format", "tar", "--skip-existing"
    )
    assert (status, err.count("\n")) == (1, 1)
    assert "another format" in err


def test_datasets_loads_the_parquet(folder, model):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    interleaved = ["--layout", "interleaved", "--offsets"]
    for name, form in (("nested", []), ("flat", interleaved)):
        done("tokens", "export", folder, "-m", model, "-o", name, "--format", "parquet", *form)
        table = datasets.load_dataset(
            "parquet", data_files=f"{name}/*.parquet", split="train", cache_dir="cache"
        )
        assert table["path"] == NAMES
        row = table[0]
        assert (row["rate"], row["samples"], row["channels"], row["strides"]) == (RATE, 1600, 1, [8, 4, 2, 1])
        assert row["layout"] == ("interleaved" if form else "nested")
        if form:
            assert len(row["ids"][0]) == 105
            assert row["offsets"] is True
        else:
            assert [len(row[f"level_{n}"][0]) for n in range(4)] == [7, 14, 28, 56]


def make_tar(name, entries):
    with tarfile.open(name, "w") as archive:
        for entry, data in entries:
            member = tarfile.TarInfo(entry)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def wav(seed):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples(seed), RATE, format="WAV")
    return buffer.getvalue()


def test_webdataset_in_and_out(model, wanted):
    """Recordings in a tar, each with its transcript, become tokens in a tar, each with its transcript."""
    entries = []
    for seed, name in enumerate(("0.wav", "deep/1.wav", "deep/2.wav")):
        key = name.removesuffix(".wav")
        entries += [(name, wav(seed)), (f"{key}.txt", f"words {seed}".encode()), (f"{key}.json", b"{}")]
    make_tar("speech.tar", entries)
    done("tokens", "export", "speech.tar", "-m", model, "-o", "out", "--format", "tar")
    with tarfile.open("out/tokens-00000.tar") as archive:
        names = archive.getnames()
        told = json.load(archive.extractfile("deep/1.tokens.json"))
        assert archive.extractfile("deep/1.txt").read() == b"words 1"
        level = np.load(io.BytesIO(archive.extractfile("deep/1.level_0.npy").read()))
    assert names[:7] == ["0.tokens.json", *(f"0.level_{n}.npy" for n in range(4)), "0.txt", "0.json"]
    assert (told["path"], told["samples"]) == ("deep/1.wav", 1760)
    assert (level.shape, level.dtype) == ((1, 7), np.uint16)
    done("tokens", "import", "out", "-m", model, "-o", "back")
    assert tree("back")["0.snac"] == wanted["a.snac"]
    assert tree("back")["deep/2.snac"] == wanted["sub/c.snac"]
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    sample = next(iter(webdataset.WebDataset("out/tokens-00000.tar", shardshuffle=False).decode()))
    assert (sample["__key__"], sample["txt"], sample["tokens.json"]["path"]) == ("0", "words 0", "0.wav")
    assert sample["level_0.npy"].shape == (1, 7)


def test_a_part_of_an_archive_is_a_file():
    make_tar("a.tar", [("x.wav", b"one"), ("x.txt", b"t"), ("y.wav", b"three"), ("z.txt", b"u")])
    with open("a.tar", "rb") as file:
        parts = list(members("a.tar", file, lambda name: name.endswith(".wav")))
    assert parts == ["a.tar/x.wav", "a.tar/y.wav"]
    assert [[name for name, _, _ in part.beside] for part in parts] == [["x.txt"], []]
    from snaccli.io.files import open_input

    with open_input(parts[1]) as file:
        assert (file.read(2), file.seek(-2, 2), file.read()) == (b"th", 3, b"ee")
    # As tar c *.wav *.txt packs them.
    make_tar(
        "b.tar",
        [("x.wav", b"one"), ("y.wav", b"three"), ("x.txt", b"old"), ("x.txt", b"t"), ("y.x.txt", b"u")],
    )
    with open("b.tar", "rb") as file:
        apart = list(members("b.tar", file, lambda name: name.endswith(".wav")))
    assert [[name for name, _, _ in part.beside] for part in apart] == [["x.txt"], ["y.x.txt"]]
    import pickle

    again = pickle.loads(pickle.dumps(parts[0]))
    assert isinstance(again, Part)
    assert (again, again.offset, again.beside) == (parts[0], parts[0].offset, parts[0].beside)


@pytest.mark.parametrize("kind", sorted(FORMATS))
@pytest.mark.parametrize("data", [b"", b"nothing of the kind", b"PAR1PAR1", bytes(2000)])
def test_hostile_shards_are_refused(kind, data):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    name = f"tokens-00000.{kind}"
    Path(name).write_bytes(data)
    form = FORMATS[kind]
    if form.extension == "jsonl" or (kind == "tar" and data == bytes(2000)):
        assert sum(1 for _ in form.places(name)) <= 1  # an empty shard, or a line to be refused when read
    else:
        with pytest.raises(TokenFileError):
            list(form.places(name))
    make_tar("bad.tar", [("a.tokens.json", b"[1]"), ("a.ids.npy", b"\x93NUMPY\x01\x00\x05\x00abcde")])
    (place,) = FORMATS["tar"].places("bad.tar")
    with pytest.raises(TokenFileError):
        FORMATS["tar"].read("bad.tar", place)


FACTS = {"path": "x.wav", "strides": (1,)}


def put_all(folder, order, *, failed=(), size=3, count=7):
    with ShardWriter(str(folder), FORMATS["jsonl"], size, count) as shards:
        for index in order:
            told = None if index in failed else Draft([np.array([[index]])], True, FACTS)
            shards.put(index, told)


def numbers(folder):
    return {
        os.path.basename(shard): [
            json.loads(line)["codes"][0] for line in Path(shard).read_text().splitlines()
        ]
        for shard in existing(str(folder))
    }


def test_the_order_of_the_work_does_not_show(tmp_path):
    whole = {"tokens-00000.jsonl": [0, 1, 2], "tokens-00001.jsonl": [3, 4, 5], "tokens-00002.jsonl": [6]}
    for n, order in enumerate(([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 2, 1, 5, 4])):
        (tmp_path / str(n)).mkdir()
        put_all(tmp_path / str(n), order)
        assert numbers(tmp_path / str(n)) == whole


def test_failures_leave_no_gap_and_an_early_end_leaves_whole_lines(tmp_path):
    put_all(tmp_path, [2, 1, 0, 3, 4, 5, 6], failed=(0, 1, 2, 4))
    assert numbers(tmp_path) == {"tokens-00001.jsonl": [3, 5], "tokens-00002.jsonl": [6]}
    (tmp_path / "early").mkdir()
    put_all(tmp_path / "early", [4, 0, 2])
    assert numbers(tmp_path / "early") == {"tokens-00000.jsonl": [0, 2], "tokens-00001.jsonl": [4]}


def test_a_recording_that_does_not_fit_costs_no_other_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr("snaccli.tokens.files.MAX_JSON_BYTES", 100)
    monkeypatch.setattr("snaccli.tokens.formats.MAX_JSON_BYTES", 100)
    large = Draft([np.arange(50)[None]], True, FACTS)
    with ShardWriter(str(tmp_path), FORMATS["jsonl"], 4, 4) as shards:
        shards.put(0, Draft([np.array([[0]])], True, FACTS))
        with pytest.raises(TokenFileError, match="too many for JSON"):
            shards.put(2, large)  # told to whom it belongs, not to the one that comes before it
        shards.put(1, Draft([np.array([[1]])], True, FACTS))
        shards.put(3, Draft([np.array([[3]])], True, FACTS))
    assert numbers(tmp_path) == {"tokens-00000.jsonl": [0, 1, 3]}


def test_a_table_refuses_other_columns_at_once(tmp_path):
    pytest.importorskip("pyarrow")
    facts = {"path": "x", "strides": (1,)}
    two = Draft([np.array([[1]]), np.array([[1, 2]])], False, facts)
    with ShardWriter(str(tmp_path), FORMATS["parquet"], 3, 3) as shards:
        shards.put(1, Draft([np.array([[7]])], False, facts))
        with pytest.raises(TokenFileError, match="do not fit the columns"):
            shards.put(2, two)
        shards.put(0, Draft([np.array([[5]])], False, facts))
    (shard,) = existing(str(tmp_path))
    kind = FORMATS["parquet"]
    found = [kind.read(shard, place).sequences[0].tolist() for place in kind.places(shard)]
    assert found == [[[5]], [[7]]]


def test_long_recordings_have_row_groups_of_their_own(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("snaccli.tokens.formats._FULL_GROUP", 100)
    facts = {"path": "x", "strides": (1,)}
    with ShardWriter(str(tmp_path), FORMATS["parquet"], 5, 5) as shards:
        for index, length in enumerate((60, 60, 200, 10, 10)):
            shards.put(index, Draft([np.full((1, length), index)], False, facts))
    (shard,) = existing(str(tmp_path))
    told = parquet.ParquetFile(shard).metadata
    assert [told.row_group(group).num_rows for group in range(told.num_row_groups)] == [2, 1, 2]
    kind = FORMATS["parquet"]
    found = [kind.read(shard, place).sequences[0][0].tolist() for place in kind.places(shard)]
    assert found == [[0] * 60, [1] * 60, [2] * 200, [3] * 10, [4] * 10]


def test_a_shard_that_cannot_be_ended_keeps_no_other_from_its_end(tmp_path, monkeypatch):
    facts = {"path": "x", "strides": (1,)}
    shards = ShardWriter(str(tmp_path), FORMATS["jsonl"], 2, 6)
    for index in (0, 2, 4):
        shards.put(index, Draft([np.array([[index]])], True, facts))
    monkeypatch.setattr(shards._units[1].rows, "close", raise_full)
    lost = shards.finish()
    assert (list(lost), str(lost[2])) == ([2], "x no space left")
    assert [name for names in numbers(tmp_path).values() for name in names] == [0, 4]
    assert sorted(os.listdir(tmp_path)) == ["tokens-00000.jsonl", "tokens-00002.jsonl"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_whatever_ends_a_shard_its_recordings_are_known_to_be_lost(tmp_path, monkeypatch, kind):
    real = _LineWriter.write

    def write(self, draft, beside=()):
        real(self, draft, beside)
        if draft.sequences[0][0, 0] == 2:
            raise kind

    monkeypatch.setattr(_LineWriter, "write", write)
    facts = {"path": "x", "strides": (1,)}
    shards = ShardWriter(str(tmp_path), FORMATS["jsonl"], 5, 5)
    for index in range(5):
        draft = Draft([np.array([[index]])], True, facts)
        if index == 2:
            with pytest.raises(kind):
                shards.put(index, draft)
        else:
            shards.put(index, draft)
    assert sorted(shards.finish()) == [0, 1, 2]
    assert numbers(tmp_path) == {"tokens-00000.jsonl": [3, 4]}


def test_what_a_shard_loses_is_taken_back(folder, model, monkeypatch):
    real = _LineWriter.write

    def write(self, draft, beside=()):
        real(self, draft, beside)
        if draft.facts["path"] == "sub/c.wav":
            raise_full()

    monkeypatch.setattr(_LineWriter, "write", write)
    status, out, err = call("tokens", "export", "in", "-m", model, "-o", "out", "-j", 1, "--json")
    told = {each["source"]: each.get("error") for each in json.loads(out)}
    assert status == 1
    assert {name.replace(os.sep, "/") for name, error in told.items() if error is not None} == {
        "in/a.wav",
        "in/b.x.wav",
        "in/sub/c.wav",
    }
    assert "2 of 5 files exported, 3 failed" in err
    (shard,) = existing("out")
    assert [json.loads(line)["path"] for line in Path(shard).read_text().splitlines()] == [
        "sub/d.wav",
        "sub/e.wav",
    ]


def raise_full(*_):
    raise OutputError("no space left", "x")


# Elsewhere


def test_names_of_places():
    assert elsewhere.localised("file:///tmp/a%20b.wav") == "/tmp/a b.wav"
    assert elsewhere.localised("local://a/b.wav") == "a/b.wav"
    assert elsewhere.localised("s3://a/b.wav") == "s3://a/b.wav"
    assert [elsewhere.is_url(name) for name in ("s3://a", "c://x", "a.wav", "hf://datasets/a/b")] == [
        True,
        False,
        False,
        True,
    ]


@pytest.fixture
def memory():
    import fsspec

    place = fsspec.filesystem("memory")
    yield place
    place.rm("/", recursive=True)


def upload(place, root, folder):
    for path in Path(folder).rglob("*.*"):
        place.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def there_and_back(url, model, wanted, kind):
    """From recordings elsewhere to shards elsewhere and back to files here."""
    export = ["tokens", "export", f"{url}/in", "-m", model, "-o", f"{url}/out", "--format", kind]
    export += ["--shard-size", 2]
    done(*export)
    assert elsewhere.names(f"{url}/out") == [f"tokens-0000{n}.{kind}" for n in range(3)]
    status, _, err = call(*export)
    assert (status, err.count("\n")) == (1, 1)
    assert "--skip-existing" in err
    status, _, err = call(*export, "--skip-existing")
    assert (status, err) == (0, "5 of 5 recordings are there already\n"), err
    done("tokens", "import", f"{url}/out", "-m", model, "-o", "back")
    assert tree("back") == wanted
    done(*export, "-f")
    done("tokens", "export", f"{url}/in/a.wav", "-m", model, "-o", f"{url}/a.npz")
    done("tokens", "import", f"{url}/a.npz", "-m", model, "-o", f"{url}/a.snac")
    assert elsewhere.open_url(f"{url}/a.snac").read() == wanted["a.snac"]


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_recordings_and_shards_in_memory(folder, model, wanted, memory, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    upload(memory, "bucket/in", folder)
    there_and_back("memory://bucket", model, wanted, kind)


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_local_urls_are_paths(folder, model, wanted, here, scheme):
    done("tokens", "export", f"{scheme}://{here}/in", "-m", model, "-o", f"{scheme}://{here}/out")
    assert os.listdir("out") == ["tokens-00000.jsonl"]
    done("tokens", "import", f"{scheme}://{here}/out", "-m", model, "-o", f"{scheme}://{here}/back")
    assert tree("back") == wanted


def test_what_is_not_there_is_one_line(model, memory):
    for arguments, message in (
        (["export", "memory://x/absent.wav", "-m", model, "-o", "a.json"], "no such file"),
        (["export", "nowhere://x/absent.wav", "-m", model, "-o", "a.json"], "no place of that kind is known"),
        (["export", "memory://x/absent/", "-m", model, "-o", "out"], "no audio, .snac or .tar file"),
        (["export", "nowhere://x/a.wav", "-m", model, "-o", "a.json"], "nowhere"),
        (["import", "memory://x/absent.npz", "-m", model, "-o", "a.snac"], "no such file"),
    ):
        status, out, err = call("tokens", *arguments)
        assert (status, out, err.count("\n")) == (1, "", 1), err
        assert message in err
        assert "defect" not in err
    assert os.listdir() == []


def test_nothing_is_sent_of_what_fails(memory):
    from snaccli.io.files import open_output

    memory.pipe_file("bucket/a", b"before")

    def fail():
        with open_output("memory://bucket/a", overwrite=True) as out:
            out.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert memory.cat_file("bucket/a") == b"before"
    with open_output("memory://bucket/a", overwrite=True) as out:
        out.write(b"whole")
        assert memory.cat_file("bucket/a") == b"before"
    assert memory.cat_file("bucket/a") == b"whole"


def test_an_object_store_over_its_own_protocol(folder, model, wanted, monkeypatch):
    """S3, as moto's server speaks it on the loopback."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        place = s3fs.S3FileSystem()
        place.mkdir("bucket")
        upload(place, "bucket/in", folder)
        there_and_back("s3://bucket", model, wanted, "jsonl")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
