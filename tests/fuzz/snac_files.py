"""``.snac`` files, of every coder, changed byte by byte and field by field."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from snac.errors import SnacError
from snaccli import container
from snaccli.cli.app import run as run_command
from snaccli.cli.ui.console import Console
from snaccli.codec.recording import CodedRecording, Recording, dumps, loads
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import payloads
from snaccli.errors import StreamInvalidError
from tests.format_reference import InvalidError, Reference
from tests.fuzz import mutate
from tests.fuzz.cases import Case, promise
from tests.fuzz.originals import World
from tests.test_prior import coded, for_reference
from tests.token_grids import always_adaptive, streams_of


def varint(value: int, spare: int = 0) -> bytes:
    """docs/format.md, section 1; with ``spare`` further bytes that make it another than the canonical one."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(spare):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


@dataclass
class Fields:
    """A file field by field, as docs/format.md has it, to be written with any values."""

    version_flags: int
    levels: int
    channels: int
    model: bytes  # a number, or 0, a length and a name
    fingerprint: bytes
    prior: bytes
    strides: list[int]
    codebook_size: int
    rates: list[int]
    samples: int
    frames: int
    rows: list[list[int]]  # size, coder, checksum
    payloads: list[bytes]
    spare: dict[str, int] = field(default_factory=dict)  # bytes that a number has too many
    pad: int = 0

    @classmethod
    def of(cls, data: bytes) -> Fields:
        """The fields of a file that is whole."""
        layout, streams, _ = container.unpack(data)
        header = layout.header
        name = header.model.encode()
        model = b"\0" + varint(len(name)) + name
        if header.model in container.MODELS:
            model = bytes([container.MODELS.index(header.model) + 1])
        return cls(
            version_flags=data[4],
            levels=header.levels,
            channels=header.channels,
            model=model,
            fingerprint=header.fingerprint,
            prior=header.prior or b"",
            strides=list(header.strides),
            codebook_size=header.codebook_size,
            rates=[header.sample_rate, header.model_rate],
            samples=header.samples,
            frames=header.frames,
            rows=[[len(s.payload), s.coder, zlib.crc32(s.payload)] for s in streams],
            payloads=[s.payload for s in streams],
        )

    def pack(self) -> bytes:
        """The file; only the header's checksum is made to fit."""
        head = b"snac" + bytes(
            [self.version_flags & 0xFF, (self.levels - 1 & 15) << 4 | self.channels - 1 & 15]
        )
        head += self.model + self.fingerprint + self.prior
        nibbles = [stride if 0 < stride < 16 else 0 for stride in self.strides]
        nibbles += [self.pad & 15] * (len(nibbles) % 2)
        head += bytes(a << 4 | b for a, b in zip(nibbles[::2], nibbles[1::2], strict=True))
        head += b"".join(self._number("stride", s) for s in self.strides if not 0 < s < 16)
        head += self._number("codebook_size", self.codebook_size)
        for rate in self.rates:
            known = container.RATES
            head += bytes([known.index(rate) + 1]) if rate in known else b"\0" + self._number("rate", rate)
        head += self._number("samples", self.samples) + self._number("frames", self.frames)
        for size, coder, checksum in self.rows:
            head += self._number("size", size << 2 | coder & 3) + (checksum & 0xFFFFFFFF).to_bytes(
                4, "little"
            )
        return head + zlib.crc32(head).to_bytes(4, "little") + b"".join(self.payloads)

    def _number(self, name: str, value: int) -> bytes:
        return varint(max(0, value), self.spare.get(name, 0))


def _change_field(rng: Random, f: Fields) -> str:
    """Changes one field, or makes it lie; returns its name."""
    at = rng.randrange(len(f.rows))
    row = f.rows[at]
    way = rng.randrange(17)
    names = (
        *(
            "version",
            "levels",
            "channels",
            "model",
            "fingerprint",
            "prior",
            "strides",
            "codebook size",
            "rate",
        ),
        *("samples", "frames", "size", "coder", "checksum", "spare", "rows", "pad"),
    )
    if way == 0:
        f.version_flags = rng.choice((f.version_flags ^ 1 << rng.randrange(8), rng.randrange(256)))
    elif way == 1:
        f.levels = rng.choice((f.levels + 1, f.levels - 1, rng.randrange(1, 17)))
    elif way == 2:
        f.channels = rng.choice((f.channels + 1, f.channels - 1, rng.randrange(1, 17)))
    elif way == 3:
        name = rng.choice((b"", b"mini", b"tin\0", "tiny é".encode(), b"\xff\xfe", b"x" * 128, b"x" * 129))
        f.model = rng.choice((bytes([rng.randrange(256)]), b"\0" + varint(len(name)) + name))
    elif way == 4:
        f.fingerprint = rng.choice((rng.randbytes(8), bytes(8)))
    elif way == 5:
        f.prior = rng.choice((b"", rng.randbytes(8)))
        f.version_flags = f.version_flags & 0xF0 | (rng.random() < 0.8 and bool(f.prior))
    elif way == 6:
        f.strides[rng.randrange(len(f.strides))] = abs(rng.choice((mutate.number(rng), rng.randrange(20))))
    elif way == 7:
        f.codebook_size = mutate.nudged(rng, f.codebook_size)
    elif way == 8:
        f.rates[rng.randrange(2)] = mutate.nudged(rng, f.rates[0])
    elif way == 9:
        f.samples = mutate.nudged(rng, f.samples)
    elif way == 10:
        f.frames = rng.choice((f.frames + 4, f.frames - 4, 85 * f.frames, mutate.nudged(rng, f.frames)))
    elif way == 11:
        row[0] = mutate.nudged(rng, row[0])
    elif way == 12:
        row[1] = rng.randrange(4)
    elif way == 13:
        row[2] ^= 1 << rng.randrange(32)
    elif way == 14:
        f.spare[rng.choice(("stride", "codebook_size", "rate", "samples", "frames", "size"))] = rng.randrange(
            1, 9
        )
    elif way == 15:
        other = rng.randrange(len(f.rows))
        f.rows[at], f.rows[other] = f.rows[other], f.rows[at]
    else:
        f.pad = rng.randrange(16)
    return names[way]


def _change_payload(rng: Random, f: Fields, others: list[bytes]) -> str:
    """Changes a payload and makes its row fit; returns what was done."""
    at = rng.randrange(len(f.payloads))
    way = rng.randrange(4)
    if way == 0:
        other = rng.randrange(len(f.payloads))
        f.payloads[at], f.payloads[other] = f.payloads[other], f.payloads[at]
        f.rows[at], f.rows[other] = f.rows[other], f.rows[at]
        return "streams swapped"
    if way == 1:
        f.payloads[at] = rng.randbytes(len(f.payloads[at]))
    elif way == 2:
        f.payloads[at] = bytes([rng.choice((0, 255))]) * len(f.payloads[at])
    else:
        data = mutate.mutated(rng, f.payloads[at], others)
        if rng.random() < 0.7:  # as long as it was, or the header is refused
            data = data[: len(f.payloads[at])].ljust(len(f.payloads[at]), b"\0")
        f.payloads[at] = data
    f.rows[at][0], f.rows[at][2] = len(f.payloads[at]), zlib.crc32(f.payloads[at])
    return "payload"


class _Pipe(io.RawIOBase):
    """Gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, rng: Random) -> None:
        self._data, self._rng, self._at = data, rng, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._rng.randrange(1, 40))
        piece = self._data[self._at : self._at + count]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


class SnacFiles:
    """See :class:`tests.fuzz.cases.Kind`."""

    name = "snac"
    seconds = 0.02  # 85 tokens of at most some 20 microseconds, several times, and the reference's
    memory = 20_000.0  # a token of the coarsest level is 128 samples in floats, and buffers

    def __init__(self, folder: Path) -> None:
        self._world = World(folder)
        self._recordings: list[Recording] = []
        self._originals: list[bytes] = []
        for recording, data in self._made():
            self._recordings.append(recording)
            self._originals.append(data)

    def _made(self) -> Iterator[tuple[Recording, bytes]]:
        world = self._world
        books, prior = world.codec.codebooks, world.prior
        for channels, frames, rate in ((1, 40, 8000), (2, 24, 44100), (3, 16, 11127), (1, 0, 8000)):
            recording = world.recording(channels, frames, seed=channels + frames, rate=rate)
            codes = recording.codes
            yield recording, dumps(recording, books, prior=prior)
            if not frames:
                continue
            packed = [CodedStream(0, payloads.pack(t, codes.codebook_size)) for t in streams_of(codes)]
            yield recording, self._packed(recording, packed)
            yield recording, self._packed(recording, always_adaptive(codes, books))
            yield recording, self._packed(recording, coded(codes, books, prior), prior.fingerprint)

    @staticmethod
    def _packed(recording: Recording, streams: list[CodedStream], prior: str | None = None) -> bytes:
        codes = recording.codes
        header = container.Header(
            model=recording.model,
            fingerprint=bytes.fromhex(recording.fingerprint),
            sample_rate=recording.rate,
            model_rate=recording.model_rate,
            channels=codes.channels,
            samples=recording.samples,
            frames=codes.frames,
            codebook_size=codes.codebook_size,
            strides=codes.strides,
            prior=None if prior is None else bytes.fromhex(prior),
        )
        # A stream of another coder than the smallest may be larger than raw: the format has no such one.
        packed = [CodedStream(0, payloads.pack(tokens, codes.codebook_size)) for tokens in streams_of(codes)]
        pairs = zip(streams, packed, strict=True)
        chosen = [own if len(own.payload) <= len(plain.payload) else plain for own, plain in pairs]
        return container.pack(header, chosen)

    def case(self, rng: Random) -> Case:
        """See :class:`tests.fuzz.cases.Kind`."""
        origin = rng.randrange(len(self._originals))
        data = self._originals[origin]
        way = rng.randrange(10)
        if way < 4:
            changed = mutate.mutated(rng, data, self._originals)
            return Case({"case.snac": changed}, f"bytes of file {origin}", origin)
        fields = Fields.of(data)
        done = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            if way < 7:
                done.append(_change_field(rng, fields))
            else:
                done.append(_change_payload(rng, fields, self._originals))
        return Case(
            {"case.snac": fields.pack()}, f"{', '.join(done)} of file {origin}", origin, repaired=True
        )

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        """See :class:`tests.fuzz.cases.Kind`."""
        data = case.files["case.snac"]
        self._check_agreement(data, folder / "case.snac", rng)
        self._check_salvage(case, data)
        whole = loads(_Pipe(data, rng) if rng.random() < 0.3 else io.BytesIO(data))  # type: ignore[arg-type]
        try:
            recording = whole.decode(self._world.codec)
        except StreamInvalidError:
            if case.repaired and rng.random() < 0.3:
                self._check_reference(whole, None)
            raise
        if not case.repaired:
            known = self._same(recording, case.origin) or data in self._originals  # one took another's place
            promise(known, "changed bytes decode to other tokens")
        elif rng.random() < 0.3:
            self._check_reference(whole, recording.codes)
        coarsest = whole.decode(self._world.codec, 1).codes
        promise(_equal(coarsest, recording.codes.coarsest(1)), "one level alone decodes to other tokens")
        if rng.random() < 0.2:
            self._check_audio(recording)
        return "the same" if self._same(recording, case.origin) else "other tokens"

    def _same(self, recording: Recording, origin: int) -> bool:
        return _equal(recording.codes, self._recordings[origin].codes)

    def _check_agreement(self, data: bytes, path: Path, rng: Random) -> None:
        """Info, verify and reading the whole file find the same fault, or none."""
        told = _error(lambda: container.read_header(data))
        verified = _error(lambda: container.verify(io.BytesIO(data)))
        read = _error(lambda: loads(io.BytesIO(data)))
        promise(verified == read, f"verify finds {verified}, decode {read}")
        promise(told is None or told == verified, f"info finds {told}, verify {verified}")
        if rng.random() < 0.1:
            for command, error in (("info", told), ("verify", verified)):
                console = Console(io.StringIO(), io.StringIO(), {})
                status = run_command([command, str(path), "--json"], console)
                promise(status == (error is not None), f"snac {command} returns {status} for {error}")
                json.loads(console.stdout.getvalue())
                promise("Traceback" not in console.stderr.getvalue(), f"snac {command} shows a traceback")

    def _check_salvage(self, case: Case, data: bytes) -> None:
        """What is salvaged is what every checksum vouches for, and all of that."""
        try:
            found = loads(io.BytesIO(data), salvage=True)
        except SnacError:
            return
        header = found.header
        start = container.read_header(data).header_size
        intact = 0
        for entry in container.read_header(data).entries:
            payload = data[start : start + entry.size]
            if len(payload) < entry.size or zlib.crc32(payload) != entry.checksum:
                break
            start, intact = start + entry.size, intact + 1
        promise(
            len(found.streams) == intact // header.channels * header.channels, "salvage takes other levels"
        )
        if case.repaired:
            return
        original, streams, _ = container.unpack(self._originals[case.origin])
        if header != original.header:  # a piece of another original took its place
            return
        promise(list(found.streams) == streams[: len(found.streams)], "salvage gives other streams")
        if found.header.fingerprint.hex() == self._world.codec.fingerprint:
            codes = found.decode(self._world.codec).codes
            prefix = self._recordings[case.origin].codes.coarsest(len(codes.levels))
            promise(_equal(codes, prefix), "salvage gives other tokens")

    def _check_reference(self, whole: CodedRecording, codes: Codes | None) -> None:
        """The decoder of docs/format.md decodes to the same tokens, or finds a stream invalid, too."""
        header = whole.header
        if header.frames * header.streams > 3000:
            return
        prior = for_reference(self._world.prior)
        books = [book.tolist() for book in self._world.codec.codebooks]
        try:
            found = _by_reference(whole, books, prior)
        except InvalidError:
            found = None
        promise((found is None) == (codes is None), "the reference decoder disagrees on what is invalid")
        if codes is not None:
            promise(
                found == [level.tolist() for level in codes.levels],
                "the reference decoder gives other tokens",
            )

    def _check_audio(self, recording: Recording) -> None:
        codec = self._world.codec
        count = sum(len(block) for block in codec.decode(recording))
        promise(count == recording.samples, f"{count} samples instead of {recording.samples}")


def _by_reference(whole: CodedRecording, books: list, prior: tuple) -> list[list[list[int]]]:
    """All tokens (level, channel, token); streams of different coders in one file go one by one."""
    header = whole.header
    levels: list[list[list[int]]] = [[[] for _ in range(header.channels)] for _ in header.strides]
    for number, (coder, payload) in enumerate(whole.streams):
        level, channel = divmod(number, header.channels)
        count = header.tokens(level)
        if coder == 0:
            levels[level][channel] = _raw_by_reference(payload, count, header.codebook_size)
            continue
        reference = Reference(books, header.strides, prior if coder == 2 else None)
        above = [levels[n][channel] for n in range(level)]
        payloads = [None] * level + [payload]
        levels[level][channel] = reference.decode(payloads, [*above, [0] * count])[level]
    return levels


def _raw_by_reference(payload: bytes, count: int, size: int) -> list[int]:
    """Section 4."""
    bits = (size - 1).bit_length()
    text = "".join(f"{byte:08b}" for byte in payload)
    tokens = [int(text[n * bits : n * bits + bits], 2) for n in range(count)]
    if "1" in text[count * bits :] or any(token >= size for token in tokens):
        raise InvalidError
    return tokens


def _equal(first: Codes, second: Codes) -> bool:
    return (first.strides, first.codebook_size) == (second.strides, second.codebook_size) and all(
        np.array_equal(a, b) for a, b in zip(first.levels, second.levels, strict=True)
    )


def _error(call) -> str | None:
    """The class of the error that a call raises, None if it raises none."""
    try:
        call()
    except SnacError as error:
        return type(error).__name__
    return None
