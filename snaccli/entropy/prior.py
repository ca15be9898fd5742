"""A learned prior: what a corpus teaches about a checkpoint's tokens, in integers.

docs/format.md, section 8, is the normative text. A prior is a small network for each level: the embeddings of
the tokens around a position, of this level and of the coarser ones, and their means over the seconds before,
go through a hidden layer to a vector, whose products with a table are the scores of all codewords. All
products are of integers held in float32 whose sums stay below 2^24, so plain matrix products in any order
give the same numbers everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snac.arrays import metadata_of, read_safetensors, safetensors_bytes
from snac.errors import ModelError
from snaccli.codes import FINGERPRINT_BYTES, MAX_CODEBOOK_SIZE, MAX_LEVELS, Tokens
from snaccli.entropy import kernel, mixing
from snaccli.errors import ModelMismatchError, PriorError, about, cause

__all__ = ["NOTHING", "Inputs", "Layer", "Prior", "PriorStream", "inputs_of", "load"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

COARSER = 3  # coarser levels that a position sees
REACH = (-1, 0, 1)  # of each, the tokens around it
MAX_PHASES = 16
MAX_WIDTH = 64  # of an embedding and of an output
MAX_HIDDEN = 1024
MAX_WINDOWS = 4
LONGEST_WINDOW = 1 << 16  # latent frames
MAX_BYTES = 64 << 20  # of a prior's file
EXACT = 1 << 24
FORMAT = "snac prior 1"

_f1, _f2, _i1 = np.zeros(0, np.float32), np.zeros((0, 0), np.float32), np.zeros(0, np.int32)
_l1, _h1, _h2 = np.zeros(0, np.int64), np.zeros(0, np.int16), np.zeros((0, 0), np.int16)
_l2 = np.zeros((0, 0), np.int64)
NOTHING = mixing.Learned(
    _f2, _l1, _i1, _l2, _l1, _f2, _f2, _f2, _f1, _l1, _h2, _i1, _f1, _h1, _i1, _i1, _i1, _i1, _l1, _l1
)
"""The kernel's argument where there is no prior."""


@dataclass(frozen=True)
class Layer:
    """The network of one level; N inputs of E numbers, H hidden units, D outputs, K codewords.

    Attributes:
        first: int8 (N * E, H).
        first_bias: int32 (phases, H).
        second: int8 (D, H).
        second_bias: int32 (D,).
        table: int16 (K, D).
        table_bias: int32 (K,).
        shifts: int32 (2,), 0 to 23 each.
    """

    first: Array
    first_bias: Array
    second: Array
    second_bias: Array
    table: Array
    table_bias: Array
    shifts: Array


@dataclass(frozen=True)
class Prior:
    """A prior for the tokens of one checkpoint.

    Attributes:
        embedding: int8 (levels, K, E).
        layers: one a level, coarse to fine.
        strides: latent frames per token of each level.
        model: name of the model it was trained for.
        model_fingerprint: 16 hex digits, of the model's weights.
        summary: how it was trained, for people to read.
        windows: latent frames over which it sees means, perhaps none.

    Raises:
        PriorError: the arrays do not fit together, or a sum could leave 2^24.
    """

    embedding: Array
    layers: tuple[Layer, ...]
    strides: tuple[int, ...]
    model: str
    model_fingerprint: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    windows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        levels = len(self.strides)
        shape = self.embedding.shape
        if (
            self.embedding.dtype != np.int8
            or len(shape) != 3
            or shape[0] != levels
            or not 1 <= levels <= MAX_LEVELS
        ):
            raise PriorError("the prior's embedding is not of one table of bytes a level")
        if (
            not 2 <= shape[1] <= MAX_CODEBOOK_SIZE
            or not 1 <= shape[2] <= MAX_WIDTH
            or len(self.layers) != levels
        ):
            raise PriorError("the prior's embedding is of a size that no prior has")
        if len(self.windows) > MAX_WINDOWS or not all(1 <= each <= LONGEST_WINDOW for each in self.windows):
            raise PriorError("the prior's windows are of lengths that no prior has")
        for layer, inputs in zip(self.layers, self.inputs, strict=True):
            _check(layer, inputs, shape[2], shape[1])

    @cached_property
    def inputs(self) -> list[Inputs]:
        """What the network of each level sees."""
        return inputs_of(self.strides, len(self.windows))

    @cached_property
    def lengths(self) -> list[list[int]]:
        """The windows of each level, in its tokens."""
        return [[max(1, window // stride) for window in self.windows] for stride in self.strides]

    @property
    def codebook_size(self) -> int:
        """Codewords of each level."""
        return int(self.embedding.shape[1])

    @cached_property
    def numbers(self) -> tuple[_Numbers, ...]:
        """What the coder computes with, a level each."""
        numbers = []
        for level, (layer, embeddings) in enumerate(zip(self.layers, self.embedding, strict=True)):
            rows = np.repeat(self.inputs[level].levels, embeddings.shape[1])
            by_level = {k: layer.first[rows == k].astype(np.float32, order="C") for k in range(level + 1)}
            outs = -(-len(layer.second) // kernel.ABREAST) * kernel.ABREAST
            more = (0, outs - len(layer.second))  # outputs of zeros
            start = NOTHING._replace(
                embedding=np.pad(embeddings, ((0, 1), (0, 0))).astype(np.float32),
                first=by_level.pop(level),
                second=np.pad(layer.second, (more, (0, 0))).astype(np.float32, order="C"),
                second_bias=np.pad(layer.second_bias, more).astype(np.float32),
                shifts=layer.shifts.astype(np.int64),
                table=np.ascontiguousarray(np.pad(layer.table.T, (more, (0, 0)))),
                table_bias=np.ascontiguousarray(layer.table_bias),
            )
            bias = layer.first_bias.astype(np.float32, order="C")
            numbers.append(_Numbers(bias, by_level, start))
        return tuple(numbers)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, the first 8 bytes of the SHA-256 of all that the coder uses."""
        windows = f" {self.windows}" if self.windows else ""
        digest = hashlib.sha256(f"{self.model_fingerprint} {self.strides}{windows}".encode())
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()[:FINGERPRINT_BYTES].hex()

    def arrays(self) -> dict[str, Array]:
        """Returns the arrays by the names that they have in a file."""
        found = {"embedding": self.embedding}
        for level, layer in enumerate(self.layers):
            found |= {f"levels.{level}.{name}": array for name, array in vars(layer).items()}
        return found

    def check_grid(self, strides: Sequence[int], codebook_size: int) -> None:
        """Checks that tokens are of the kind that the prior knows.

        Raises:
            ModelMismatchError: they are not.
        """
        if tuple(strides) != self.strides[: len(strides)] or codebook_size != self.codebook_size:
            raise ModelMismatchError(
                f"the prior is for strides {list(self.strides)} and {self.codebook_size} codewords a level, "
                f"the tokens have {list(strides)} and {codebook_size}",
            )


class Inputs(NamedTuple):
    """What the network of a level sees.

    Attributes:
        tokens: whose embeddings it sees: ``LAGS`` of its own level, the others of coarser ones.
        means: of embeddings: one a window of its own level, then of each coarser one that it sees.
        levels: of all these, in their order.
        phases: the tokens under one of the coarser level, 1 if that is not a number from 1 to 16.
    """

    tokens: int
    means: int
    levels: npt.NDArray[np.int64]
    phases: int


def inputs_of(strides: Sequence[int], windows: int) -> list[Inputs]:
    """Returns what the network of each level sees with so many windows."""
    found = []
    for level, stride in enumerate(strides):
        ratio, rest = divmod(strides[level - 1], stride) if level else (1, 0)
        phases = ratio if not rest and 1 <= ratio <= MAX_PHASES else 1
        coarser = range(max(0, level - COARSER), level)
        tokens = [level] * mixing.LAGS + [k for k in coarser for _ in REACH]
        means = [k for k in (level, *coarser) for _ in range(windows)]
        found.append(Inputs(len(tokens), len(means), np.array(tokens + means), phases))
    return found


class PriorStream:
    """The prior's part in the coding of one stream.

    Args:
        prior: of the checkpoint.
        level: the stream's.
        coarser: the tokens of all coarser levels, of the same channel; they may be filled in meanwhile.
    """

    def __init__(self, prior: Prior, level: int, coarser: Sequence[Tokens]) -> None:
        size = prior.codebook_size
        self._prior, self._level = prior, level
        self._coarser = coarser
        self._numbers = prior.numbers[level]
        windows = np.array(prior.lengths[level], dtype=np.int64)
        self._learned = self._numbers.start._replace(
            windows=windows,
            history=np.full(windows.max(initial=mixing.LAGS), size, dtype=np.int32),
            totals=np.zeros((windows.size, prior.embedding.shape[2]), dtype=np.int64),
            taken=np.zeros(1, dtype=np.int64),
            hidden=np.zeros_like(self._numbers.bias[0]),
            out=np.zeros(len(self._numbers.start.table), dtype=np.int16),
            scores=np.zeros(size, dtype=np.int32),
            known=np.zeros(size, dtype=np.int32),
            logs=np.zeros(size, dtype=np.int32),
            row=np.zeros(size, dtype=np.int32),
            factors=np.array([mixing.PRIOR_START, mixing.ROW_START], dtype=np.int64),
            sums=np.zeros(4, dtype=np.int64),
        )

    def block(self, start: int, count: int) -> mixing.Learned:
        """Returns the kernel's argument for the next tokens: what coarser levels give is computed at once."""
        numbers, strides, level = self._numbers, self._prior.strides, self._level
        places = np.arange(start, start + count)
        above: Array = numbers.bias[places % len(numbers.bias)]
        for k in range(max(0, level - COARSER) if count else level, level):
            row, embedding = self._coarser[k], self._prior.numbers[k].start.embedding
            # Several tokens lie under one, which gives the same to all of them. It sees means over spans of
            # tokens, of one token or of those in a window, as far as there are any.
            at, stop = places * strides[level] // strides[k], REACH[-1] + 1
            around = np.arange(at[0], at[-1] + 1)
            spans = [(offset, offset + 1) for offset in REACH]
            spans += [(stop - length, stop) for length in self._prior.lengths[k]]
            first = max(0, int(at[0]) + min(spans)[0])
            within = embedding[row[first : at[-1] + stop]].astype(np.int64)
            sums = np.concatenate((np.zeros_like(embedding[:1], np.int64), within.cumsum(axis=0)))
            seen = []
            for span in spans:
                low, high = (np.clip(around + end - first, 0, len(within)) for end in span)
                counts = np.maximum(high - low, 1)[:, None]
                seen.append((2 * (sums[high] - sums[low]) + counts) // (2 * counts))
            given = np.concatenate(seen, axis=1, dtype=np.float32) @ numbers.above[k]
            above += given[at - at[0]]
        return self._learned._replace(above=above)


class _Numbers(NamedTuple):
    """A layer as the coder uses it, in float32."""

    bias: Floats  # (phases, H)
    above: Mapping[int, Floats]  # of each coarser level (inputs * E, H)
    start: mixing.Learned  # what is the same for all streams of the level


def _check(layer: Layer, inputs: Inputs, width: int, size: int) -> None:
    """Checks types and shapes of one level, and that no sum can leave 2^24.

    Raises:
        PriorError: they are not as they must be.
    """
    hidden, outs = ((0, *array.shape)[-1] for array in (layer.first, layer.table))
    wanted = {
        "first": (np.int8, ((inputs.tokens + inputs.means) * width, hidden)),
        "first_bias": (np.int32, (inputs.phases, hidden)),
        "second": (np.int8, (outs, hidden)),
        "second_bias": (np.int32, (outs,)),
        "table": (np.int16, (size, outs)),
        "table_bias": (np.int32, (size,)),
        "shifts": (np.int32, (2,)),
    }
    for name, (dtype, shape) in wanted.items():
        array = getattr(layer, name)
        if array.dtype != dtype or array.shape != shape:
            raise PriorError(f"has {name!r} of {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    shifts_fit = ((layer.shifts >= 0) & (layer.shifts < 24)).all()
    if not (1 <= hidden <= MAX_HIDDEN and 1 <= outs <= MAX_WIDTH and shifts_fit):
        raise PriorError("has a layer or a shift of a size that no prior has")
    for weights, bias, limit in (  # (outputs, inputs), of the inputs
        (layer.first.T, layer.first_bias, 128),
        (layer.second, layer.second_bias, mixing.HIDDEN_LIMIT),
        (layer.table, layer.table_bias, mixing.OUT_LIMIT),
    ):
        sums = np.abs(weights.astype(np.int64)).sum(axis=1) * limit + np.abs(bias.astype(np.int64))
        if int(sums.max()) >= EXACT:
            raise PriorError("has numbers so large that sums of them could leave 2^24")


def load(path: str | Path) -> Prior:
    """Reads a prior's file.

    Raises:
        PriorError: the file cannot be read, or is not a prior.
    """
    path = Path(path)
    with about(path):
        try:
            if path.stat().st_size > MAX_BYTES:
                raise PriorError(f"is larger than {MAX_BYTES >> 20} MiB: not a prior")
            arrays, metadata = read_safetensors(path), metadata_of(path)
        except (OSError, ModelError) as error:
            told = cause(error) if isinstance(error, OSError) else str(error)
            reason = told.partition("\n")[0].removeprefix(f"{path}: ")
            raise PriorError(f"cannot be read as a prior: {reason}") from error
        if metadata.get("format") != FORMAT:
            raise PriorError(f"is not a prior of the kind '{FORMAT}'")
        try:
            strides = tuple(int(stride) for stride in json.loads(metadata["strides"]))
            windows = tuple(int(window) for window in json.loads(metadata.get("windows", "[]")))
            summary = dict(json.loads(metadata.get("summary", "{}")))
            layers = tuple(
                Layer(**{name: arrays.pop(f"levels.{level}.{name}") for name in Layer.__dataclass_fields__})
                for level in range(len(strides))
            )
            embedding = arrays.pop("embedding")
            model, fingerprint = metadata["model"], metadata["model_fingerprint"]
            own = metadata["fingerprint"]
            (model + fingerprint).encode()  # no text has half a surrogate pair
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise PriorError(f"lacks a part that a prior has, or has it in another form ({error})") from error
        if arrays or min(strides, default=0) < 1:
            raise PriorError("has parts that no prior has")
        prior = Prior(embedding, layers, strides, model, fingerprint, summary, windows)
        if prior.fingerprint != own:
            raise PriorError(
                f"is damaged: its numbers have the fingerprint {prior.fingerprint}, not {own}; get it again"
            )
        return prior


def save(prior: Prior, path: str | Path) -> None:
    """Writes a prior's file, whole or not at all."""
    from snaccli.io.files import open_output

    metadata = {
        "format": FORMAT,
        "fingerprint": prior.fingerprint,
        "model": prior.model,
        "model_fingerprint": prior.model_fingerprint,
        "strides": json.dumps(list(prior.strides)),
        "summary": json.dumps(dict(prior.summary)),
    }
    if prior.windows:
        metadata["windows"] = json.dumps(list(prior.windows))
    with open_output(path, overwrite=True) as file:
        file.write(safetensors_bytes(prior.arrays(), metadata))
