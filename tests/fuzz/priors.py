"""Priors: the safetensors file changed byte by byte, header and numbers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from snaccli import entropy
from snaccli.entropy import prior as priors
from snaccli.entropy.prior import Prior
from tests.fuzz import mutate
from tests.fuzz.cases import Case, promise
from tests.test_prior import coded, decoded, for_reference, some_prior
from tests.token_grids import Codes, walk

WINDOWS = ((), (8, 40), (5,), (1, 2, 3, 1 << 16))
GRIDS = (((4, 2, 1), 24), ((8, 4, 2, 1), 16), ((3, 2), 7), ((16, 1), 5))


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the values of a safetensors file that is whole."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: Any, values: bytes, lie: int = 0) -> bytes:
    """A safetensors file of any header; ``lie`` is added to the header's length."""
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", max(0, len(text) + lie)) + text + values


def changed_safetensors(rng: Random, data: bytes) -> tuple[bytes, str]:
    """A safetensors file with a change to its header, or to its values at a place of its header."""
    header, values = split_safetensors(data)
    way = rng.randrange(5)
    names = [name for name in header if name != "__metadata__"]
    entry = header[rng.choice(names)]
    if way == 0:
        return join_safetensors(mutate.mutated_value(rng, header), values), "header"
    if way == 1:
        entry["shape"] = mutate.mutated_value(rng, entry["shape"])
        return join_safetensors(header, values), "shape"
    if way == 2:
        kinds = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "x", "U64")
        entry["dtype"] = rng.choice(kinds)
        return join_safetensors(header, values), "type"
    if way == 3:
        return join_safetensors(header, values, rng.choice((-8, -1, 1, 8, 1 << 40))), "header's length"
    changed = bytearray(values)
    first, last = entry["data_offsets"]
    if last > first:
        at = rng.randrange(first, last)
        changed[at : at + 8] = rng.choice((b"\xff\x7f", b"\0\x80", b"\xff" * 8, b"\0" * 8, rng.randbytes(4)))
    return join_safetensors(header, bytes(changed[: len(values)])), "values"


class Priors:
    """See :class:`tests.fuzz.cases.Kind`."""

    name = "prior"
    seconds = 0.001
    memory = 100.0

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._priors = [
            some_prior(strides, size, 2, 5, 3, windows)
            for (strides, size), windows in zip(GRIDS, WINDOWS, strict=True)
        ]
        self._grids = [walk(48, strides, size, 2, seed=size) for strides, size in GRIDS]
        self._originals = []
        for number, prior in enumerate(self._priors):
            priors.save(prior, folder / f"{number}.safetensors")
            header, values = split_safetensors((folder / f"{number}.safetensors").read_bytes())
            metadata = dict(sorted(header.pop("__metadata__").items()))  # written in any order
            self._originals.append(join_safetensors({"__metadata__": metadata, **header}, values))

    def case(self, rng: Random) -> Case:
        """See :class:`tests.fuzz.cases.Kind`."""
        origin = rng.randrange(len(self._originals))
        data = self._originals[origin]
        way = rng.randrange(8)
        if way < 3:
            return Case({"case.safetensors": mutate.mutated(rng, data, self._originals)}, "bytes", origin)
        if way < 6:
            changed, what = changed_safetensors(rng, data)
            return Case({"case.safetensors": changed}, what, origin)
        changed, what = _forged(rng, data)
        return Case({"case.safetensors": changed}, what, origin, repaired=True)

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        """See :class:`tests.fuzz.cases.Kind`."""
        path = folder / "case.safetensors"
        prior = priors.load(path)
        original = self._priors[case.origin]
        same = prior.fingerprint == original.fingerprint
        if not case.repaired and case.files["case.safetensors"] not in self._originals:
            promise(same, "a changed prior is taken")
        if same:
            promise(_equal(prior, original), "equal fingerprints of unequal priors")
        self._check_coding(prior, case.origin, rng)
        return "the same" if same else "another prior"

    def _check_coding(self, prior: Prior, origin: int, rng: Random) -> None:
        """What a prior was taken codes; the decoder of the document agrees."""
        codes, books = self._grids[origin]
        if prior.strides != codes.strides or prior.codebook_size != codes.codebook_size:
            strides = tuple(prior.strides)
            frames = int(np.lcm.reduce(strides, dtype=object))
            if frames > 200 or prior.codebook_size > 100:
                return
            codes, books = walk(frames, strides, prior.codebook_size, 2)
        streams = coded(codes, books, prior)
        promise(_same(decoded(codes, streams, books, prior), codes), "tokens do not come back")
        smallest = entropy.encode(codes, books, prior=prior)
        promise(_same(decoded(codes, smallest, books, prior), codes), "tokens do not come back")
        if rng.random() < 0.1:
            from tests.format_reference import Reference

            tokens = [level[0].tolist() for level in codes.levels]
            reference = Reference([book.tolist() for book in books], codes.strides, for_reference(prior))
            found = reference.decode([stream.payload for stream in streams], tokens)
            promise(found == tokens, "the reference decoder gives other tokens")


def _forged(rng: Random, data: bytes) -> tuple[bytes, str]:
    """A prior with changed numbers or strides, its fingerprint made to fit."""
    header, values = split_safetensors(data)
    changed, what = bytearray(values), "forged numbers"
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(changed))
        changed[at] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    meta = header["__metadata__"]
    if rng.random() < 0.3:
        strides = json.loads(meta["strides"])
        strides[rng.randrange(len(strides))] = rng.choice((1, 2, 3, 8, 16, 17, 65535, 1 << 40))
        meta["strides"], what = json.dumps(strides), "forged strides"
    if rng.random() < 0.1:
        meta["summary"] = rng.choice(("{}", "[]", "[" * 5000, "{", '{"a": 1e999}'))
    meta["fingerprint"] = _fingerprint(header, bytes(changed))
    return join_safetensors(header, bytes(changed)), what


def _fingerprint(header: dict[str, Any], values: bytes) -> str:
    """Section 8.1 of docs/format.md, from the file alone."""
    import hashlib

    kinds = {"I8": "|i1", "I16": "<i2", "I32": "<i4"}
    meta = header["__metadata__"]
    digest = hashlib.sha256(f"{meta['model_fingerprint']} {tuple(json.loads(meta['strides']))}".encode())
    for name in sorted(name for name in header if name != "__metadata__"):
        entry = header[name]
        first, last = entry["data_offsets"]
        digest.update(f"{name} {kinds[entry['dtype']]} {tuple(entry['shape'])}\n".encode())
        digest.update(values[first:last])
    return digest.digest()[:8].hex()


def _equal(first: Prior, second: Prior) -> bool:
    one, other = first.arrays(), second.arrays()
    return (
        (first.strides, first.model_fingerprint) == (second.strides, second.model_fingerprint)
        and one.keys() == other.keys()
        and all(np.array_equal(one[name], other[name]) for name in one)
    )


def _same(first: Codes, second: Codes) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.levels, second.levels, strict=True))


__all__ = ["Priors", "changed_safetensors", "join_safetensors", "split_safetensors"]
