"""Checkpoints: config.json with safetensors, and the published pickle."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from random import Random

import numpy as np

from snac.engine import build_engine
from snac.hub.checkpoint import Checkpoint, load_checkpoint
from tests.fuzz import mutate
from tests.fuzz.cases import Case, promise
from tests.fuzz.originals import SPECTRAL, WAVEFORM, save_model, weights
from tests.fuzz.priors import changed_safetensors

CONFIG, SAFE, PICKLE = "config.json", "model.safetensors", "pytorch_model.bin"


class Checkpoints:
    """See :class:`tests.fuzz.cases.Kind`."""

    name = "checkpoint"
    seconds = 0.001
    memory = 100.0

    def __init__(self, folder: Path) -> None:
        self._originals: list[dict[str, bytes]] = []
        self._known: list[Checkpoint] = []
        for name, values in (("spectral", SPECTRAL), ("waveform", WAVEFORM)):
            place = save_model(folder / name, values)
            self._add(place, (CONFIG, SAFE))
        self._add_pickle(folder / "pickle", place)

    def _add(self, place: Path, names: tuple[str, ...]) -> None:
        self._originals.append({name: (place / name).read_bytes() for name in names})
        self._known.append(load_checkpoint(str(place)))

    def _add_pickle(self, folder: Path, origin: Path) -> None:
        import torch

        folder.mkdir()
        (folder / CONFIG).write_bytes((origin / CONFIG).read_bytes())
        config = self._known[-1].config
        arrays = OrderedDict((name, torch.from_numpy(array)) for name, array in weights(config).items())
        torch.save(arrays, folder / PICKLE)
        self._add(folder, (CONFIG, PICKLE))

    def case(self, rng: Random) -> Case:
        """See :class:`tests.fuzz.cases.Kind`."""
        origin = rng.randrange(len(self._originals))
        files = dict(self._originals[origin])
        way = rng.random()
        if way < 0.3:
            return Case(files | {CONFIG: _config(rng, files[CONFIG])}, "configuration", origin)
        name = SAFE if SAFE in files else PICKLE
        others = [data for its in self._originals for data in its.values()]
        if way < 0.6:
            return Case(
                files | {name: mutate.mutated(rng, files[name], others)}, "bytes of the weights", origin
            )
        if name == SAFE:
            changed, what = changed_safetensors(rng, files[SAFE])
        else:
            changed, what = changed_archive(rng, files[PICKLE]), "the archive's members"
        return Case(files | {name: changed}, what, origin)

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        """See :class:`tests.fuzz.cases.Kind`."""
        known = self._known[case.origin]
        found = load_checkpoint(str(folder))
        if found.fingerprint != known.fingerprint:
            word = "another fingerprint"
        else:
            promise(_equal(found, known), "equal fingerprints of unequal weights")
            word = "the same"
        if PICKLE in case.files:
            again = load_checkpoint(str(folder))  # from what was converted
            promise(again.fingerprint == found.fingerprint, "the converted file is another model")
        if rng.random() < 0.3:
            _check_coding(found, rng)
        return word


def _config(rng: Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        return mutate.mutated(rng, data)
    return json.dumps(mutate.mutated_value(rng, json.loads(data))).encode("utf-8", "surrogatepass")


def _check_coding(checkpoint: Checkpoint, rng: Random) -> None:
    """Whatever the weights are, tokens are in their range, and samples as many as belong to them."""
    config = checkpoint.config
    if config.hop_length > 4096 or config.frame_alignment > 512 or config.sampling_rate > 1 << 20:
        return  # a frame of it is not a small piece of work
    engine = build_engine(checkpoint, threads=1)
    samples = np.random.default_rng(rng.randrange(99)).standard_normal((1, 3 * config.pad_multiple - 5))
    pieces = list(engine.encode([0.3 * samples.astype(np.float32)], 1))
    codes = [
        np.concatenate([piece[level] for piece in pieces], axis=1) for level in range(len(config.vq_strides))
    ]
    promise(all(int(level.max()) < config.codebook_size for level in codes), "a token beyond the codebook")
    count = sum(block.shape[1] for block in engine.decode(codes))
    promise(count == 3 * config.pad_multiple, f"{count} samples instead of {3 * config.pad_multiple}")


def changed_archive(rng: Random, data: bytes) -> bytes:
    """An archive of ``torch.save`` with a changed member; the checksums of the archive fit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    program = next(name for name in members if name.endswith("data.pkl"))
    values = [name for name in members if "/data/" in name]
    way = rng.randrange(6)
    if way < 3:
        members[program] = _changed_pickle(rng, members[program])
    elif way == 3:
        name = rng.choice(values)
        members[name] = mutate.mutated(rng, members[name] or b"\0")
    elif way == 4:
        del members[rng.choice(list(members))]
    else:
        name = rng.choice(list(members))
        members[name] = members[rng.choice(list(members))]
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1/0",)


def _changed_pickle(rng: Random, data: bytes) -> bytes:
    """A pickle's program with a number, a name or a few bytes changed."""
    way = rng.randrange(6)
    if way == 0:
        return mutate.mutated(rng, data)
    if way == 1:
        at = rng.randrange(len(data))
        return (
            data[:at]
            + rng.choice((b"q\xff", b"K\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 8))
            + data[at:]
        )
    if way == 2:
        objects = (_Evil(), [1], {"a": 1}, {"state_dict": {"state_dict": {}}}, {1: 2}, "x", {"a": [[[]]]})
        return pickle.dumps(rng.choice(objects), 2)
    if way == 3:
        names = (
            b"FloatStorage",
            b"HalfStorage",
            b"LongStorage",
            b"BoolStorage",
            b"QInt8Storage",
            b"ComplexFloatStorage",
        )
        return data.replace(b"FloatStorage", rng.choice(names))
    if way == 4:
        names = (b"_rebuild_tensor_v2", b"_rebuild_parameter", b"_rebuild_sparse_tensor", b"_rebuild_qtensor")
        return data.replace(b"_rebuild_tensor_v2", rng.choice(names))
    numbers = [at for at in range(len(data) - 1) if data[at] in b"K"]
    at = rng.choice(numbers)
    new = rng.choice(
        (
            b"K\0",
            b"K\xff",
            b"M\xff\xff",
            b"J\xff\xff\xff\x7f",
            b"J\xff\xff\xff\xff",
            b"\x8a\x09" + b"\xff" * 8 + b"\0",
        )
    )
    return data[:at] + new + data[at + 2 :]


def _equal(first: Checkpoint, second: Checkpoint) -> bool:
    one, other = first.arrays, second.arrays
    return one.keys() == other.keys() and all(
        np.array_equal(np.asarray(one[name], np.float32), np.asarray(other[name], np.float32)) for name in one
    )
