"""Files of tokens: JSON, JSON lines, ``.npz``, tar and Parquet.

JSON, tar and Parquet as pyarrow writes it have no checksums over the tokens, so a changed file may well hold
other tokens; of an ``.npz`` the checksums of its archive must tell.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from snac.errors import SnacError
from snaccli.codec import ModelPool
from snaccli.codec.recording import loads
from snaccli.codes import Codes
from snaccli.errors import OutputError
from snaccli.io.files import open_output
from snaccli.tokens.files import draft as drafted
from snaccli.tokens.files import safe_path, to_json, to_npz
from snaccli.tokens.formats import FORMATS, format_of
from snaccli.tokens.interleave import TokenError
from snaccli.tokens.recording import Form, NamedRecording
from snaccli.tokens.stream import Frames, IdReader, Syntax
from snaccli.tokens.transfer import Importer
from tests.fuzz import mutate
from tests.fuzz.cases import Case, promise
from tests.fuzz.originals import World

FORMS = (Form(), Form(True), Form(True, True, 1000))


class Tokens:
    """See :class:`tests.fuzz.cases.Kind`."""

    name = "tokens"
    seconds = 0.01
    memory = 4000.0  # an archive's deflate makes a byte to a thousand

    def __init__(self, folder: Path) -> None:
        self._world = World(folder)
        self._pool = ModelPool(self._world.codec)
        self._recordings = [
            NamedRecording.of(self._world.recording(channels, frames, seed=frames), f"sub/{frames}.wav")
            for channels, frames in ((1, 32), (2, 16), (1, 0))
        ]
        self._originals: list[tuple[str, bytes, int]] = []
        for number, recording in enumerate(self._recordings):
            for form in FORMS:
                self._originals.append(("case.json", to_json(drafted(recording, form)), number))
                self._originals.append(("case.npz", to_npz(drafted(recording, form)), number))
        folder.mkdir(parents=True, exist_ok=True)
        for extension in [name for name in FORMATS if name != "parquet" or find_spec("pyarrow")]:
            for form in FORMS:
                self._originals.append((f"case.{extension}", self._shard(folder, extension, form), 0))
        bare = [self._recordings[0].codes.levels[n][0].tolist() for n in range(3)]
        self._originals.append(("case.json", json.dumps(bare).encode(), 0))
        ids = FORMS[2].sequences(self._recordings[0].codes)[0][0].tolist()
        said = "".join(f"<custom_token_{number}>" for number in ids)
        self._originals.append(("case.txt", " ".join(map(str, ids)).encode(), 0))
        self._originals.append(("case.txt", said.encode(), 0))

    def _shard(self, folder: Path, extension: str, form: Form) -> bytes:
        path = folder / f"shard.{extension}"
        with open_output(path, overwrite=True) as file:
            rows = FORMATS[extension].writer(file)
            for recording in self._recordings:
                rows.write(drafted(recording, form))
            rows.close()
        return path.read_bytes()

    def case(self, rng: Random) -> Case:
        """See :class:`tests.fuzz.cases.Kind`."""
        origin = rng.randrange(len(self._originals))
        name, data, _ = self._originals[origin]
        others = [other for its, other, _ in self._originals if its == name]
        if rng.random() < 0.4 or name == "case.txt":
            return Case({name: mutate.mutated(rng, data, others)}, "bytes", origin)
        ways = {"json": _json, "jsonl": _json_lines, "npz": _npz, "tar": _tar, "parquet": _parquet}
        changed = ways[name.rpartition(".")[2]](rng, data, others)
        return Case({name: changed}, "structure", origin, repaired=True)

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        """See :class:`tests.fuzz.cases.Kind`."""
        ((name, data),) = case.files.items()
        path = folder / name
        if name == "case.txt" or (name.startswith("case.json") and rng.random() < 0.2):
            return self._streamed(data, rng)
        importer = Importer(self._pool, rng.choice(FORMS), overwrite=True)
        output = folder / "out.snac"
        kind = format_of(name)
        if kind is not None:
            return self._shard_read(importer, kind, path, output)
        importer.from_file(path, output)
        codes = self._written(output)
        same = _equal(codes, self._recordings[self._originals[case.origin][2]].codes)
        if (
            name.endswith(".npz")
            and not case.repaired
            and all(data != other for _, other, _ in self._originals)
        ):
            promise(same, "a changed .npz gives other tokens")
        return "the same" if same else "other tokens"

    def _streamed(self, data: bytes, rng: Random) -> str:
        """As ids that come piece by piece."""
        codec = self._world.codec
        order = rng.choice(FORMS[1:]).order(codec.strides, codec.codebook_size)
        syntax: Syntax = rng.choice(("json", "integers", "text"))
        told: list[TokenError] = []
        report = rng.choice((None, told.append))
        reader = IdReader(order, syntax, report=report)
        taker = Frames(order, on_error=rng.choice(("stop", "skip-frame", "hold")), report=report)
        count = 0
        while data:
            size = rng.choice((1, 7, 100, len(data)))
            piece, data = data[:size], data[size:]
            for frame in taker.push(reader.push(piece, ended=not data)):
                levels = taker.levels([frame])
                shapes = [(1, count) for count in order.per_level]
                promise([level.shape for level in levels] == shapes, "a frame of another shape")
                inside = all(0 <= level.min() <= level.max() < codec.codebook_size for level in levels)
                promise(inside, "a code beyond the codebook")
                count += 1
        return "streamed" if count else "nothing streamed"

    def _shard_read(self, importer: Importer, kind: Any, path: Path, output: Path) -> str:
        refused: SnacError | None = None
        try:
            for head in kind.heads(str(path)):
                promise(isinstance(head, dict), "a head is no object")
        except SnacError as error:
            refused = error
        read = 0
        for place in kind.places(path):
            try:
                _check_path(safe_path(place.path), output.parent)
                importer.from_line(path, place, output)
                self._written(output)
                read += 1
            except SnacError as error:
                refused = error
        if refused is not None and not read:
            raise refused
        return "read in part" if refused is not None else "read"

    def _written(self, output: Path) -> Codes:
        with open(output, "rb") as file:
            return loads(file).decode(self._world.codec).codes


def _check_path(name: str, folder: Path) -> None:
    """A name of a recording leads to a place below a folder, or cannot be written."""
    if not name:
        return
    try:
        target = (folder / name).resolve()
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot be named: {error}") from error
    promise(folder.resolve() in target.parents, f"{name!r} leads out of the folder")


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _json(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    if rng.random() < 0.05:
        return rng.choice((b"[" * 9000, b"9" * 100_000, b"[" + b"1," * 50_000 + b"1]", b'{"codes":[[]]}'))
    text = _dumped(mutate.mutated_value(rng, json.loads(data)))
    return text.decode().encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-32-le", "utf-8-sig")))


def _json_lines(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    lines = [line for line in data.splitlines() if line]
    at = rng.randrange(len(lines))
    way = rng.randrange(6)
    if way == 0:
        lines.insert(at, rng.choice((b"", b"{}", b"[]", b"\xff", b'{"path":"\\ud800","codes":[1]}')))
    elif way == 1:
        lines *= rng.choice((2, 10))
    else:
        lines[at] = _json(rng, lines[at], others)
    return b"\n".join(lines) + b"\n"


def _npz(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    way = rng.randrange(8)
    name = rng.choice(list(members))
    if way == 0:
        del members[name]
    elif way == 1:
        members[name] = members[rng.choice(list(members))]
    elif way == 2:
        members[rng.choice(("level_0.npy", "level_7.npy", "ids.npy", "x.npy", "../x.npy"))] = members.pop(
            name
        )
    elif way == 3:
        members[name] = mutate.mutated(rng, members[name], list(members.values()))
    elif way == 4:
        members[name] = _odd_array(rng)
    else:
        members[name] = _npy(rng, members[name])
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(out, "w", method) as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content, method)
    packed = out.getvalue()
    return mutate.mutated(rng, packed) if rng.random() < 0.2 else packed


def _odd_array(rng: Random) -> bytes:
    """An array of another type or shape."""
    out = io.BytesIO()
    shape = rng.choice(((), (1,), (0,), (1, 8), (2, 8), (8, 1), (17, 2), (1, 1, 8), (0, 4), (1, 0)))
    kind = rng.choice(
        ("i1", "u1", "<i4", ">i4", "<u8", ">u8", "<f4", "?", "<U3", ">U2", "S4", "<M8[s]", "<c8")
    )
    array = np.zeros(shape, kind)
    if array.size and kind in ("<u8", ">u8", "<i4"):
        array.flat[0] = rng.choice((1, 23, 24, 100))
    np.save(out, array)
    return out.getvalue()


def _npy(rng: Random, data: bytes) -> bytes:
    """An array's file with a changed header, its length made to fit."""
    length = int.from_bytes(data[8:10], "little")
    header, rest = data[10 : 10 + length], data[10 + length :]
    way = rng.randrange(5)
    if way == 0:
        text = mutate.mutated(rng, header)
    elif way == 1:
        shape = rng.choice(
            ("()", "(-1,)", f"({mutate.number(rng)},)", "(0, 1 << 70)", f"(0, {1 << 70})", "(1L, 2)")
        )
        text = b"{'descr': '<u2', 'fortran_order': False, 'shape': " + shape.encode() + b"}\n"
    elif way == 2:
        kinds = (
            "'<U4'",
            "'<U0'",
            "'|O'",
            "[('a', '<u2')]",
            "('<u2', (2,))",
            "'<u9'",
            "'m8'",
            "None",
            "'<U1000000000'",
        )
        text = b"{'descr': " + rng.choice(kinds).encode() + b", 'fortran_order': False, 'shape': (1, 4)}\n"
    elif way == 3:
        odd = (
            b"{'descr': (",
            b"'" * 3,
            b"{[]: 1}",
            b"(" * 300,
            b"\t{\n  {\n x",
            b"1" * 5000,
            b"{'a': 1L}\n  b\n c",
            b"\0",
        )
        text = rng.choice(odd)
    else:
        rest, text = mutate.mutated(rng, rest or b"\0"), header
    version = rng.choice((1, 1, 2, 3))
    size = len(text).to_bytes(2 if version == 1 else 4, "little") if len(text) < 65536 else b"\xff\xff"
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + rest


def _tar(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive.getmembers()]  # type: ignore[union-attr]
    at = rng.randrange(len(members))
    name, content = members[at]
    way = rng.randrange(8)
    if way == 0:
        del members[at]
    elif way == 1:
        members.append(members[at])
    elif way == 2:
        members[at] = rng.choice(("x", "../up.ids.npy", "a.level_9.npy", "é" * 200, name + "x")), content
    elif way == 3:
        members[at] = name, mutate.mutated(rng, content)
    elif name.endswith(".npy"):
        members[at] = name, _npy(rng, content)
    else:
        members[at] = name, _dumped(mutate.mutated_value(rng, json.loads(content)))
    out = io.BytesIO()
    kind = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for member, held in members:
            info = tarfile.TarInfo(member if kind != tarfile.USTAR_FORMAT else member[:30])
            info.size = len(held)
            if rng.random() < 0.05:
                info.type = rng.choice((tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE))
            archive.addfile(info, io.BytesIO(held))
    packed = bytearray(out.getvalue())
    for _ in range(rng.choice((0, 0, 1, 2))):
        _change_tar_head(rng, packed)
    return bytes(packed)


def _change_tar_head(rng: Random, data: bytearray) -> None:
    """Changes a field of a member's header and makes the checksum fit."""
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not heads:
        return
    at = rng.choice(heads)
    first, last = rng.choice(
        ((0, 100), (100, 108), (124, 136), (124, 136), (156, 157), (156, 157), (345, 500))
    )
    kinds = b"0123456789xgLKSNDMV"
    odd = (b"77777777777", b"\x80" + b"\0" * 6 + b"\xff" * 4, b"\xff" * 11, b"-0000000001", b"", b"x" * 11)
    new = bytes([rng.choice(kinds)]) if last - first == 1 else rng.choice((*odd, rng.randbytes(12)))
    data[at + first : at + last] = new[: last - first].ljust(last - first, b"\0")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def _parquet(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """A table with columns of other types or values; now and then its footer's bytes are changed, too."""
    import pyarrow as pa
    from pyarrow import parquet

    if rng.random() < 0.4:  # the footer: what it says of the columns
        length = int.from_bytes(data[-8:-4], "little")
        footer = mutate.mutated(rng, data[-8 - length : -8])
        return data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    rows = mutate.mutated_value(rng, parquet.read_table(io.BytesIO(data)).to_pylist())
    out = io.BytesIO()
    try:
        table = pa.Table.from_pylist(rows)
        parquet.write_table(table, out, compression=rng.choice(("none", "snappy", "zstd", "gzip")))
    except (pa.ArrowException, OverflowError, ValueError, TypeError, AttributeError, KeyError, OSError):
        return mutate.mutated(rng, data)
    return out.getvalue()


def _equal(first: Codes, second: Codes) -> bool:
    return len(first.levels) == len(second.levels) and all(
        np.array_equal(a, b) for a, b in zip(first.levels, second.levels, strict=True)
    )
