"""Makes the golden files of version 1, one for each coder, and their tokens. Never run it to mend a test.

python -m tests.golden.make_files        # from the repository's root; makes only what is not there

Files of version 1 decode to these tokens for ever, whatever changes in the program.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from snaccli import container
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import prior as priors
from snaccli.entropy import raw
from tests.test_format import golden_grid
from tests.test_prior import coded, some_prior
from tests.token_grids import always_adaptive, streams_of

FOLDER = Path(__file__).parent
HEADER = {
    "model": "a model of two channels",
    "fingerprint": bytes.fromhex("8899aabbccddeeff"),
    "sample_rate": 11_127,
    "model_rate": 16_000,
    "samples": 1_000,
}


def two_channels() -> tuple[Codes, list[np.ndarray]]:
    """The small golden grid, and in a second channel its tokens backwards."""
    codes, books = golden_grid("small")
    levels = tuple(np.concatenate([level, level[:, ::-1]]) for level in codes.levels)
    return Codes(levels, codes.strides, codes.codebook_size), books


def packed(codes: Codes, streams: list[CodedStream], prior: priors.Prior | None) -> bytes:
    """A whole file."""
    header = container.Header(
        **HEADER,
        channels=codes.channels,
        frames=codes.frames,
        codebook_size=codes.codebook_size,
        strides=codes.strides,
        prior=None if prior is None else bytes.fromhex(prior.fingerprint),
    )
    return container.pack(header, streams)


def fitting_prior(codes: Codes) -> priors.Prior:
    """A prior that expects the tokens of a grid by their number."""
    prior = some_prior(codes.strides, codes.codebook_size)
    layers = []
    for layer, level in zip(prior.layers, codes.levels, strict=True):
        counts = np.bincount(level.reshape(-1), minlength=codes.codebook_size)
        bias = (2000 * counts).astype(np.int32)
        layers.append(replace(layer, table=layer.table // 8, table_bias=bias))
    return replace(prior, layers=tuple(layers))


def main() -> None:
    """Writes the files that are not there yet."""
    codes, books = two_channels()
    prior = fitting_prior(codes)
    streams = {
        "raw": [CodedStream(0, raw.pack(tokens, codes.codebook_size)) for tokens in streams_of(codes)],
        "adaptive": always_adaptive(codes, books),
        "prior": coded(codes, books, prior),
    }
    for name, each in streams.items():
        path = FOLDER / f"version1-{name}.snac"
        if not path.exists():
            path.write_bytes(packed(codes, each, prior if name == "prior" else None))
    if not (path := FOLDER / "version1-prior.safetensors").exists():
        priors.save(prior, path)
    record = {
        "codebooks": [book.tolist() for book in books],
        "levels": [level.tolist() for level in codes.levels],
    }
    path = FOLDER / "version1.json"
    if not path.exists():
        path.write_text(json.dumps(record) + "\n", "utf-8")


if __name__ == "__main__":
    main()
