"""Makes the golden files of version 1, of each coder and layout of channels, and their tokens.

Never run it to mend a test.

python -m tests.golden.make_files        # from the repository's root; makes only what is not there

Files of version 1 decode to these tokens for ever, whatever changes in the program.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from snaccli import container
from snaccli.codes import CodedStream, Coder, Codes
from snaccli.entropy import payloads
from snaccli.entropy import prior as priors
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
LAYOUTS = {"mono": [0], "sixteen": [0, 1] * 8}
"""Files of other numbers of channels, each by which of the two channels' tokens it has."""
OTHER_HEADERS = {
    "mono": {"model": "mini", "sample_rate": 44_100, "model_rate": 24_000},
    "sixteen": {"model": "32khz", "sample_rate": 768_000, "model_rate": 32_000},
}


def two_channels() -> tuple[Codes, list[np.ndarray]]:
    """The small golden grid, and in a second channel its tokens backwards."""
    codes, books = golden_grid("small")
    levels = tuple(np.concatenate([level, level[:, ::-1]]) for level in codes.levels)
    return Codes(levels, codes.strides, codes.codebook_size), books


def of_channels(codes: Codes, channels: list[int]) -> Codes:
    """The tokens of these channels, in this order."""
    return Codes(tuple(level[channels] for level in codes.levels), codes.strides, codes.codebook_size)


def streams_by_coder(
    codes: Codes, books: list[np.ndarray], prior: priors.Prior, seeing_means: priors.Prior
) -> dict[str, list[CodedStream]]:
    """The streams by each coder, by one after the other, and by a prior that sees means."""
    found = {
        "raw": [CodedStream(0, payloads.pack(tokens, codes.codebook_size)) for tokens in streams_of(codes)],
        "adaptive": always_adaptive(codes, books),
        "prior": coded(codes, books, prior),
    }
    ways = list(found.values())
    found["mixed"] = [ways[number % 3][number] for number in range(len(ways[0]))]
    found["means"] = coded(codes, books, seeing_means)
    return found


def packed(
    codes: Codes, streams: list[CodedStream], prior: priors.Prior | None, layout: str | None = None
) -> bytes:
    """A whole file."""
    header = container.Header(
        **HEADER | OTHER_HEADERS.get(layout or "", {}),
        channels=codes.channels,
        frames=codes.frames,
        codebook_size=codes.codebook_size,
        strides=codes.strides,
        prior=None if prior is None else bytes.fromhex(prior.fingerprint),
    )
    return container.pack(header, streams)


def fitting_prior(codes: Codes, windows: tuple[int, ...] = ()) -> priors.Prior:
    """A prior that expects the tokens of a grid by their number."""
    prior = some_prior(codes.strides, codes.codebook_size, windows=windows)
    layers = []
    for layer, level in zip(prior.layers, codes.levels, strict=True):
        counts = np.bincount(level.reshape(-1), minlength=codes.codebook_size)
        bias = (2000 * counts).astype(np.int32)
        layers.append(replace(layer, table=layer.table // 8, table_bias=bias))
    return replace(prior, layers=tuple(layers))


def main() -> None:
    """Writes the files that are not there yet."""
    codes, books = two_channels()
    prior, seeing_means = fitting_prior(codes), fitting_prior(codes, (5, 24))
    for layout, channels in {"": [0, 1], **LAYOUTS}.items():
        own = of_channels(codes, channels)
        for name, each in streams_by_coder(own, books, prior, seeing_means).items():
            path = FOLDER / f"version1-{'-'.join(filter(None, (name, layout)))}.snac"
            if not path.exists():
                needed = any(stream.coder == Coder.PRIOR for stream in each)
                named = seeing_means if name == "means" else prior
                path.write_bytes(packed(own, each, named if needed else None, layout))
    for name, each in (("prior", prior), ("means", seeing_means)):
        if not (path := FOLDER / f"version1-{name}.safetensors").exists():
            priors.save(each, path)
    record = {
        "codebooks": [book.tolist() for book in books],
        "levels": [level.tolist() for level in codes.levels],
    }
    for path, value in ((FOLDER / "version1.json", record), (FOLDER / "version1-layouts.json", LAYOUTS)):
        if not path.exists():
            path.write_text(json.dumps(value) + "\n", "utf-8")


if __name__ == "__main__":
    main()
