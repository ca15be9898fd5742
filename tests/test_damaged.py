"""Damaged and forged files that the fuzzer (tests/fuzz) found to be met badly: an input made by hand each."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from snac.errors import ModelError
from snac.hub.checkpoint import read_weights
from snaccli.codec import Codec
from snaccli.entropy import prior as priors
from snaccli.errors import PriorError
from snaccli.tokens import TokenFileError, formats
from snaccli.tokens.files import read, safe_path
from snaccli.tokens.footer import values_of_groups
from snaccli.tokens.formats import FORMATS
from snaccli.tokens.recording import Form
from snaccli.tokens.stream import IdReader
from tests.fuzz.priors import join_safetensors, split_safetensors
from tests.test_prior import some_prior

METADATA = {"format": "snac prior 1", "model": "tiny", "model_fingerprint": "0011223344556677"}


# Priors


@pytest.fixture
def prior_file(tmp_path: Path) -> Path:
    priors.save(some_prior((2, 1), 8), tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def test_prior_with_a_changed_number_is_refused(prior_file: Path):
    arrays = load_file(prior_file)
    header, _ = split_safetensors(prior_file.read_bytes())
    arrays["embedding"][0, 0, 0] ^= 1
    save_file(arrays, prior_file, header["__metadata__"])
    with pytest.raises(PriorError, match="is damaged: its numbers have the fingerprint"):
        priors.load(prior_file)


def test_prior_without_a_fingerprint_is_refused(prior_file: Path):
    arrays = load_file(prior_file)
    save_file(arrays, prior_file, METADATA | {"strides": "[2, 1]"})
    with pytest.raises(PriorError, match="lacks a part"):
        priors.load(prior_file)


@pytest.mark.parametrize("name", ["model", "model_fingerprint"])
def test_prior_of_a_model_with_half_a_surrogate_pair(prior_file: Path, name: str):
    header, values = split_safetensors(prior_file.read_bytes())
    header["__metadata__"][name] = "a\ud800"
    prior_file.write_bytes(join_safetensors(header, values))
    with pytest.raises(PriorError):
        priors.load(prior_file)


def test_prior_of_a_model_with_numbers_for_names(prior_file: Path):
    header, values = split_safetensors(prior_file.read_bytes())
    header["__metadata__"] |= {"model": 1, "model_fingerprint": 2}
    prior_file.write_bytes(join_safetensors(header, values))
    with pytest.raises(PriorError, match="lacks a part"):
        priors.load(prior_file)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "F8_E5M2", "F4"])
def test_prior_of_a_type_that_numpy_has_not(prior_file: Path, kind: str):
    header, values = split_safetensors(prior_file.read_bytes())
    width = {"BF16": 2, "F4": 0.5}.get(kind, 1)
    entry = next(entry for name, entry in header.items() if name == "embedding")
    first, last = entry["data_offsets"]
    entry |= {"dtype": kind, "shape": [int((last - first) / width)]}
    prior_file.write_bytes(join_safetensors(header, values))
    with pytest.raises(PriorError):
        priors.load(prior_file)


@pytest.mark.parametrize("strides", ["[1e999]", "[" * 100_000, '{"a": 1}', "[[2], 1]"])
def test_prior_with_strides_that_are_none(prior_file: Path, strides: str):
    arrays = load_file(prior_file)
    save_file(arrays, prior_file, METADATA | {"strides": strides, "fingerprint": "00" * 8})
    with pytest.raises(PriorError, match="lacks a part"):
        priors.load(prior_file)


@pytest.mark.parametrize("name", ["levels.0.first", "levels.1.table"])
def test_prior_with_a_scalar_for_a_matrix(prior_file: Path, name: str):
    arrays = load_file(prior_file)
    arrays[name] = np.array(1, arrays[name].dtype)
    save_file(arrays, prior_file, METADATA | {"strides": "[2, 1]", "fingerprint": "00" * 8})
    with pytest.raises(PriorError, match="not int"):
        priors.load(prior_file)


# Models


@pytest.mark.parametrize("name", ["encoder\n", "\x1b[2J", "a\u2028b"])
def test_tensor_with_a_name_that_does_not_print(tmp_path: Path, name: str):
    save_file({name: np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="does not print") as caught:
        read_weights(tmp_path / "model.safetensors")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("shape", [[0, 1 << 70], [0, -1], [1 << 62, 1 << 62]])
def test_tensor_of_a_shape_that_cannot_be(tmp_path: Path, shape: list[int]):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    (tmp_path / "model.safetensors").write_bytes(join_safetensors({"x": entry}, b""))
    with pytest.raises(ModelError, match="damaged or cut off"):
        read_weights(tmp_path / "model.safetensors")


def test_tensor_of_more_dimensions_than_any_has(tmp_path: Path):
    """The product of so many sizes would take minutes."""
    entry = {"dtype": "F32", "shape": [7] * 2_000_000, "data_offsets": [0, 0]}
    (tmp_path / "model.safetensors").write_bytes(join_safetensors({"x": entry}, b""))
    with pytest.raises(ModelError, match="2000000 dimensions"):
        read_weights(tmp_path / "model.safetensors")


# Tokens


def npy(header: str, values: bytes = b"") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + values


def npz(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': (",
        "'''",
        "{[]: 1}",
        "\t{\n  {\n x",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (0, 1180591620717411303424)}\n",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-1, -1)}\n",
    ],
)
def test_array_with_a_header_that_is_none(tmp_path: Path, header: str):
    with pytest.raises(TokenFileError, match="level_0"):
        read(npz(tmp_path / "x.npz", {"level_0.npy": npy(header, b"\0\0")}))


def test_array_of_text_that_is_none(tmp_path: Path):
    header = "{'descr': '<U1', 'fortran_order': False, 'shape': ()}\n"
    path = npz(tmp_path / "x.npz", {"path.npy": npy(header, b"\xff\xff\xff\xff")})
    with pytest.raises(TokenFileError, match="holds what is no text"):
        read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archive_whose_packed_bytes_are_damaged(tmp_path: Path, method: int):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(4000, dtype=np.uint16)[None])
    path = npz(tmp_path / "x.npz", {"level_0.npy": buffer.getvalue()}, method)
    data = bytearray(path.read_bytes())
    for at in range(50, 400, 7):
        data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TokenFileError, match=r"is not an \.npz of tokens"):
        read(path)


def test_archive_that_unpacks_to_more_tokens_than_a_recording_may_have(tmp_path: Path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8388609)}\n"
    levels = {f"level_{n}.npy": npy(header, bytes((1 << 23) + 1)) for n in range(2)}
    path = npz(tmp_path / "x.npz", levels, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(TokenFileError, match="16777218 tokens are over the 16777216"):
        read(path)


def test_path_that_no_file_can_have():
    with pytest.raises(TokenFileError, match="cannot be written here"):
        safe_path("a/\ud800.wav")


def tar_head(size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo("x")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [1 << 33, 1 << 42, 1 << 62])
def test_tar_whose_header_claims_more_than_there_is(tmp_path: Path, kind: bytes, size: int):
    """What the claim would take is not allocated."""
    (tmp_path / "x.tar").write_bytes(tar_head(size, kind) + bytes(1024))
    with pytest.raises(TokenFileError, match="is no tar archive"):
        list(FORMATS["tar"].places(tmp_path / "x.tar"))


def test_tar_of_a_file_of_less_than_no_bytes(tmp_path: Path):
    member = bytearray(tar_head(0, tarfile.REGTYPE))
    member[124:136] = b"\xff" * 12  # -1, in base 256
    member[148:156] = b" " * 8
    member[148:156] = b"%06o\0 " % sum(member)
    (tmp_path / "x.tar").write_bytes(member + bytes(1024))
    with pytest.raises(TokenFileError, match="is no tar archive"):
        list(FORMATS["tar"].places(tmp_path / "x.tar"))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_tar_of_headers_that_tell_of_headers(tmp_path: Path, kind: bytes):
    (tmp_path / "x.tar").write_bytes(tar_head(0, kind) * 3000)
    with pytest.raises(TokenFileError, match="is no tar archive"):
        list(FORMATS["tar"].places(tmp_path / "x.tar"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"level_0": (1, 4), "level_2": (1, 4)}, "has neither"),
        ({"level_0": (2, 4), "level_1": (1, 8)}, "must be equal"),
    ],
)
def test_tar_of_levels_that_do_not_belong_together(
    tmp_path: Path, arrays: dict[str, tuple[int, int]], said: str
):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, shape in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, np.zeros(shape, np.uint16))
            member = tarfile.TarInfo(f"a.{name}.npy")
            member.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(member, buffer)
    kind = FORMATS["tar"]
    (place,) = kind.places(tmp_path / "x.tar")
    with pytest.raises(TokenFileError, match=said):
        kind.read(tmp_path / "x.tar", place)


Columns = Callable[..., Path]


@pytest.fixture
def parquet(tmp_path: Path) -> Columns:
    """Writes a table of these columns, of one row."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(compression: str = "none", **columns: Any) -> Path:
        table = arrow.table({name: arrow.array(values) for name, values in columns.items()})
        parquet.write_table(table, tmp_path / "x.parquet", compression=compression, use_dictionary=False)
        return tmp_path / "x.parquet"

    return write


def first_of(path: Path) -> list[list[list[int]]]:
    kind = FORMATS["parquet"]
    draft = kind.read(path, next(iter(kind.places(path))))
    return [sequence.tolist() for sequence in draft.sequences]


def test_table_with_damaged_pages(parquet: Columns):
    """The footer is whole, so that the table opens."""
    path = parquet("zstd", path=["a"], level_0=[[list(range(900))]])
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:footer] = bytes(footer - 4)
    path.write_bytes(data)
    with pytest.raises(TokenFileError, match="is no Parquet file"):
        list(FORMATS["parquet"].heads(str(path)))
    with pytest.raises(TokenFileError, match="is no Parquet file"):
        first_of(path)


@pytest.mark.parametrize(
    "options",
    [{}, {"row_group_size": 90, "compression": "zstd"}, {"row_group_size": 300, "write_page_index": True}],
)
def test_the_footer_tells_how_many_values_there_are(options: dict[str, Any]):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"a": [*range(1000)], "b": [[1, 2, 3]] * 1000, "c": ["x"] * 1000, "d": [0.5] * 1000}
    table = arrow.table({**columns, "e": [True, None] * 500})
    file = io.BytesIO()
    parquet.write_table(table, file, **options)
    told = parquet.ParquetFile(file).metadata
    groups = [told.row_group(number) for number in range(told.num_row_groups)]
    wanted = [sum(group.column(n).num_values for n in range(group.num_columns)) for group in groups]
    assert values_of_groups(file) == wanted


def test_table_with_any_byte_of_its_footer_damaged(parquet: Columns):
    """Some sizes that contradict each other end the process where a column's metadata is asked for."""
    path = parquet(path=["a"], level_0=[[[1, 2]]])
    data = path.read_bytes()
    refused = 0
    for place in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 3]) + data[place + 1 :])
        try:
            first_of(path)
        except (TokenFileError, StopIteration):  # the latter where it tells no rows
            refused += 1
    assert refused > 50


def test_table_that_unpacks_to_more_tokens_than_a_recording_may_have(parquet: Columns):
    path = parquet("zstd", path=["a"], level_0=[[np.zeros((1 << 24) + 1, np.uint16)]])
    assert path.stat().st_size < 1 << 20
    with pytest.raises(TokenFileError, match="has more than 16,777,216 tokens"):
        first_of(path)


def test_table_whose_row_group_unpacks_to_more_than_is_read_at_once(
    parquet: Columns, monkeypatch: pytest.MonkeyPatch
):
    path = parquet(path=["a", "b", "c"], level_0=[[[1] * 50], [[2] * 50], [[3] * 50]])
    monkeypatch.setattr(formats, "_MAX_GROUP", 100)
    kind = FORMATS["parquet"]
    places = list(kind.places(path))
    monkeypatch.setattr(formats, "_row_group", lambda *_: pytest.fail("read at once"))
    found = [kind.read(path, place).sequences[0].tolist() for place in places]
    assert found == [[[1] * 50], [[2] * 50], [[3] * 50]]
    monkeypatch.setattr(formats, "_LARGEST_GROUP", 100)
    with pytest.raises(TokenFileError, match="values in a row group"):
        kind.read(path, places[0])


def test_table_with_a_level_missing(parquet: Columns):
    with pytest.raises(TokenFileError, match="has neither"):
        first_of(parquet(path=["a"], level_0=[[[1, 2]]], level_2=[[[3, 4]]]))


@pytest.mark.parametrize("values", [[[1, 2]], [[[1, 2]]], [[[]]], [[]]])
def test_table_of_a_list_or_of_a_list_a_channel(parquet: Columns, values: list[Any]):
    arrow = pytest.importorskip("pyarrow")
    flat = not (values[0] and isinstance(values[0][0], list))
    kind = arrow.list_(arrow.uint16()) if flat else arrow.list_(arrow.list_(arrow.uint16()))
    (rows,) = first_of(parquet(level_0=arrow.array(values, kind)))
    assert rows == (values if flat else values[0])


@pytest.mark.parametrize("values", [[[0.5]], [[None]], [["x"]], [[[1, 2], [3]]], [[[1], None]], [3], ["abc"]])
def test_table_of_what_is_no_tokens(parquet: Columns, values: list[Any]):
    with pytest.raises(TokenFileError, match="level_0"):
        first_of(parquet(level_0=values))


def test_table_that_took_the_place_of_another(parquet: Columns):
    """No tokens of a file that was there before."""
    assert first_of(parquet(path=["a"], level_0=[[[1, 2]]])) == [[[1, 2]]]
    assert first_of(parquet(path=["a"], level_0=[[[3, 4]]])) == [[[3, 4]]]


@pytest.mark.parametrize("line", ['{"ids":[' + "[]," * 20_000 + "[]]}", '{"ids":[' + "9" * 500 + "]}"])
def test_line_of_a_stream_that_costs_more_than_its_ids(line: str, monkeypatch: pytest.MonkeyPatch):
    """It is refused before it is read as JSON."""
    reader = IdReader(Form(True).order((2, 1), 8), "json")
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(TokenFileError, match="too many lists or too long numbers"):
        list(reader.push(line, ended=True))


def test_line_of_a_stream_with_half_a_character():
    reader = IdReader(Form(True).order((2, 1), 8), "json")
    with pytest.raises(TokenFileError, match="is not a whole number"):
        list(reader.push('["\ud800"]', ended=True))


def test_levels_of_unequal_channels(parquet: Columns, tiny_model_folder: Path):
    codec = Codec.load(str(tiny_model_folder))
    path = parquet(level_0=[[[1], [2]]], level_1=[[[1, 2]]], level_2=[[[1] * 4]], level_3=[[[1] * 8]])
    kind = FORMATS["parquet"]
    (place,) = kind.places(path)
    with pytest.raises(TokenFileError, match=r"the levels have \[2, 1, 1, 1\] channels"):
        kind.read(path, place).complete(codec, Form())


# Checkpoints of training

FIRST_GROUP = ("optimizer", "param_groups", 0)
WEIGHT = "decoder.model.0.bias"
AVERAGES: list[tuple[str, Callable[[Any], Any]]] = [
    ("step", lambda step: -step),
    ("step", lambda step: step * 1e30),
    ("step", lambda step: step.double()),
    ("step", lambda step: step[None]),
    ("exp_avg", lambda average: average[:1]),
    ("exp_avg", lambda average: average.half()),
    ("exp_avg", lambda average: average.to_sparse()),
    ("exp_avg", lambda average: average.to("meta")),
    ("exp_avg", lambda average: average + float("inf")),
    ("exp_avg_sq", lambda average: average - 1),
    ("exp_avg_sq", lambda average: average * float("nan")),
    ("exp_avg_sq", lambda average: average[:1].expand(average.shape)),
]  # what Adam keeps of a weight, as it cannot be


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of two steps."""
    pytest.importorskip("torch")
    from snaccli.training.loop import Trainer
    from tests.training_runs import make_config, pack

    folder = tmp_path_factory.mktemp("run")
    trainer = Trainer(make_config(pack(folder / "tones.npy")), folder)
    trainer.run(limit=2)
    return trainer


def damaged_state(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    import torch

    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.__delitem__(name)


def with_value(value: Any, *names: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: Any) -> None:
        for name in names[:-1]:
            state = state[name]
        state[names[-1]] = value

    return change


def with_changed(change: Callable[[Any], Any], *names: Any) -> Callable[[dict[str, Any]], None]:
    def changed(state: Any) -> None:
        for name in names[:-1]:
            state = state[name]
        state[names[-1]] = change(state[names[-1]])

    return changed


def in_progress(**values: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        state["progress"] = json.dumps(json.loads(state["progress"]) | values)

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("step"),
        with_value([], "counts"),
        with_value(None, "recent"),
        with_value([1, 2], "counts"),
        with_value({}, "model"),
        with_value([], "optimizer", "param_groups"),
        with_value(None, "optimizer", "param_groups", 0, "betas"),
        with_value(3, "optimizer", "state", 0, "exp_avg"),
        with_value([1.0], "optimizer", "state", 0, "exp_avg_sq"),
        in_progress(load_state_dict=1),
        in_progress(best=7),
        with_value(-1, "step"),
        with_value(1.5, "step"),
        with_value(True, "step"),
        with_value(1 << 60, "step"),
        with_value(-1.0, "optimizer", "param_groups", 0, "lr"),
        with_value((0.8, 1.0), "optimizer", "param_groups", 0, "betas"),
        with_value((0.8, "x"), "optimizer", "param_groups", 0, "betas"),
        with_value(True, "optimizer", "param_groups", 0, "amsgrad"),
        with_value(float("nan"), "optimizer", "param_groups", 1, "weight_decay"),
        with_changed(lambda numbers: [numbers[1], numbers[0], *numbers[2:]], *FIRST_GROUP, "params"),
        with_changed(lambda weights: weights * float("nan"), "model", WEIGHT),
        with_changed(lambda weights: weights.half(), "model", WEIGHT),
        with_changed(lambda counts: counts - 1, "counts", 0),
        with_changed(lambda vectors: vectors.long(), "recent", 0),
        with_changed(lambda vectors: vectors.flatten()[:1], "recent", 0),
        with_changed(lambda vectors: vectors.new_zeros(65, 4), "recent", 0),
        in_progress(best_step=-1),
        in_progress(best_ratio="x"),
        in_progress(baseline={"64": {"loss": 1.0}}),
        in_progress(last={"1024": {}}),
        in_progress(last={"1024": {"loss": "x"}}),
        in_progress(best={"9" * 5000: {"loss": 1.0}}),
    ],
)
def test_checkpoint_of_a_run_that_was_forged(
    run: Any, tmp_path: Path, change: Callable[[dict[str, Any]], None]
):
    forged(run, tmp_path, change)


def forged(run: Any, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Lets a run take up a changed copy of its checkpoint, which is refused in one line."""
    from snaccli.training.state import LAST, TrainingError

    shutil.copy(run.folder / LAST, tmp_path / LAST)
    damaged_state(tmp_path / LAST, change)
    run.folder, kept = tmp_path, run.folder
    try:
        with pytest.raises(TrainingError, match="does not fit this configuration") as refused:
            run.resume()
        assert "\n" not in str(refused.value)
    finally:
        run.folder = kept


@pytest.mark.parametrize(("name", "change"), AVERAGES)
def test_averages_of_a_run_that_its_optimiser_cannot_have_kept(
    run: Any, tmp_path: Path, name: str, change: Callable[[Any], Any]
):
    forged(run, tmp_path, with_changed(change, "optimizer", "state", 0, name))


@pytest.mark.parametrize("name", ["step", "exp_avg", "exp_avg_sq"])
def test_run_whose_optimiser_lacks_a_number(run: Any, tmp_path: Path, name: str):
    forged(run, tmp_path, lambda state: state["optimizer"]["state"][0].__delitem__(name))


def test_run_whose_optimiser_has_a_tensor_for_a_number(run: Any, tmp_path: Path):
    import torch

    forged(run, tmp_path, with_value((0.8, torch.zeros(2)), *FIRST_GROUP, "betas"))


@pytest.mark.parametrize(
    "change",
    [
        with_value(-1, "steps"),
        with_value({}, "weights"),
        with_changed(lambda weights: weights * float("nan"), "weights", "bias"),
        with_changed(lambda weights: weights[None], "weights", "bias"),
    ],
)
def test_averaged_weights_that_were_forged(change: Callable[[dict[str, Any]], None]):
    torch = pytest.importorskip("torch")
    from snaccli.training.state import AveragedWeights

    average = AveragedWeights(torch.nn.Linear(2, 1), 0.9)
    state = average.state_dict()
    state["weights"] = dict(state["weights"])
    average.load_state_dict(state)
    change(state)
    with pytest.raises(ValueError, match="average"):
        average.load_state_dict(state)


def prior_state(path: Path) -> Callable[[], Any]:
    """Writes the state of a prior's training after a step; returns what goes on from it."""
    from snaccli.codes import Codes
    from snaccli.training import corpus, prior

    rng = np.random.default_rng(0)
    levels = tuple(rng.integers(0, 9, (1, 32 // stride)).astype(np.uint16) for stride in (2, 1))
    grids, books = [Codes(levels, (2, 1), 9)], [rng.standard_normal((9, 2)).astype(np.float32)] * 2
    config = prior.PriorConfig(steps=2, width=2, hidden=4, out=2, batch=8)
    run = prior._Run(prior.PriorNet(books, (2, 1), config), corpus.Corpus(grids), config, path)
    run.step()
    run.keep()
    return lambda: prior.train_prior(
        grids, grids, books, model="tiny", fingerprint="00" * 8, config=config, state=path
    )


@pytest.mark.parametrize(
    "change",
    [
        without("config"),
        with_value({}, "net"),
        with_value("x", "steps"),
        with_value(None, "seconds"),
        with_value(3, "optimiser", "state", 0, "exp_avg"),
        with_value(-1, "steps"),
        with_value(1.0, "steps"),
        with_value(1 << 60, "steps"),
        with_value(-1.0, "seconds"),
        with_value(float("nan"), "seconds"),
        with_value(True, "optimiser", "param_groups", 0, "amsgrad"),
        with_value({}, "optimiser", "state", 99),
        with_changed(lambda weights: weights * float("nan"), "net", "biases.0"),
        with_changed(lambda weights: weights.long(), "net", "biases.0"),
        with_changed(lambda weights: weights[:1], "net", "biases.0"),
    ],
)
def test_state_of_a_prior_that_was_forged(tmp_path: Path, change: Callable[[dict[str, Any]], None]):
    pytest.importorskip("torch")
    go_on = prior_state(tmp_path / "state")
    damaged_state(tmp_path / "state", change)
    with pytest.raises(PriorError, match="is no state of a training, or damaged"):
        go_on()


@pytest.mark.parametrize(("name", "change"), AVERAGES)
def test_averages_of_a_prior_that_its_optimiser_cannot_have_kept(
    tmp_path: Path, name: str, change: Callable[[Any], Any]
):
    pytest.importorskip("torch")
    go_on = prior_state(tmp_path / "state")
    damaged_state(tmp_path / "state", with_changed(change, "optimiser", "state", 0, name))
    with pytest.raises(PriorError, match="is no state of a training, or damaged"):
        go_on()


@pytest.mark.parametrize("name", ["step", "exp_avg", "exp_avg_sq"])
def test_prior_whose_optimiser_lacks_a_number(tmp_path: Path, name: str):
    pytest.importorskip("torch")
    go_on = prior_state(tmp_path / "state")
    damaged_state(tmp_path / "state", lambda state: state["optimiser"]["state"][0].__delitem__(name))
    with pytest.raises(PriorError, match="is no state of a training, or damaged"):
        go_on()


def test_prior_whose_numbers_are_too_large(tmp_path: Path):
    """They are finite, but what is computed from them is not."""
    pytest.importorskip("torch")
    go_on = prior_state(tmp_path / "state")
    damaged_state(tmp_path / "state", with_changed(lambda weights: weights + 3e38, "net", "first.0.weight"))
    with pytest.raises(PriorError, match="no longer finite"):
        go_on()


def test_prior_whose_embeddings_are_nought(tmp_path: Path):
    """Nothing is divided by them."""
    pytest.importorskip("torch")
    go_on = prior_state(tmp_path / "state")
    for level in (0, 1):
        damaged_state(tmp_path / "state", with_changed(lambda table: 0 * table, "net", f"embeddings.{level}"))
    damaged_state(tmp_path / "state", with_value(2, "steps"))  # to the end
    with pytest.raises(PriorError, match="numbers so large"):
        go_on()


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"no state", b"\x80\2}."])
def test_state_of_a_prior_that_is_none(tmp_path: Path, data: bytes):
    pytest.importorskip("torch")
    go_on = prior_state(tmp_path / "state")
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(PriorError, match="remove it"):
        go_on()
