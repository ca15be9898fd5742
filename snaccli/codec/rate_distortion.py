"""Cheaper tokens: of the codewords near a latent the one that also takes few bits.

The quantiser takes the codeword nearest in angle, whatever it costs. Here each token is the codeword for
which distance + rate_distortion x bits is least, level by level from the coarsest; what a level leaves over
is what the next one codes. The bits are those that the entropy coder would take at that very position, after
all tokens chosen before it, so coder and choice move together. Any decoder reads what comes of it.

Of the latents no more is kept than each level's view of them, the projection into its codebook's space: 8
numbers a token in published models and in ``mini``, 270 kB a minute and channel with ``mini``. The levels'
projections are linear, so what the coarser tokens take away can be taken away there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from snac.engine import Quantiser
from snaccli.codes import Tokens
from snaccli.entropy import Prior, context_of, space_of
from snaccli.entropy.adaptive import StreamCoder
from snaccli.entropy.prior import PriorStream
from snaccli.progress import SILENT, Progress, part

__all__ = ["SMALLER", "Views", "choose"]

Floats = npt.NDArray[np.float32]

SMALLER = 0.15
"""What a bit may cost where files are to be smaller and hardly a difference heard: docs/bench.md."""

_BLOCK = 256  # tokens whose distances to all codewords are at hand at once


class Views:
    """What the levels of a quantiser see of the latents of one channel.

    Args:
        quantiser: of the model.
    """

    def __init__(self, quantiser: Quantiser) -> None:
        self._quantiser = quantiser
        self._rest: list[Floats] = []  # fewer frames than the coarsest token has
        self._views = [bytearray() for _ in quantiser.parts]

    def add(self, latents: Floats) -> None:
        """Takes the next latents (frames, C)."""
        latents = np.concatenate([*self._rest, latents])
        whole = len(latents) // self._quantiser.window * self._quantiser.window
        self._rest = [latents[whole:].copy()]
        for part_of, view in zip(self._quantiser.parts, self._views, strict=True):
            view += part_of.project(latents[:whole]).astype(np.float32).tobytes()

    def arrays(self) -> list[Floats]:
        """Returns the views, float32 (tokens, dimension) a level."""
        parts = self._quantiser.parts
        return [
            np.frombuffer(view, np.float32).reshape(-1, part_of.codebook.shape[1])
            for view, part_of in zip(self._views, parts, strict=True)
        ]


def choose(
    views: Views,
    quantiser: Quantiser,
    rate_distortion: float,
    *,
    prior: Prior | None = None,
    progress: Progress = SILENT,
) -> list[Tokens]:
    """Returns the tokens of one channel, uint16 (tokens,) a level.

    Args:
        views: of the channel's latents.
        quantiser: of the model.
        rate_distortion: what a bit costs, above 0, in the mean squared distance that the level's nearest
            codewords would leave in this recording: with 0.1 a codeword may be farther by a tenth of it for
            each bit that it saves.
        prior: that the file will be coded with.
        progress: of the work.
    """
    parts, strides = quantiser.parts, quantiser.strides
    space = space_of(quantiser.codebooks, len(parts[0].codebook), len(parts))
    chosen: list[Tokens] = []
    for level, view in enumerate(views.arrays()):
        wanted = view - _taken(quantiser, chosen, len(view))
        learned = None if prior is None else PriorStream(prior, level, chosen)
        coder = StreamCoder(context_of(space, strides, chosen), prior=learned)
        blocks = [wanted[low : low + _BLOCK] for low in range(0, len(wanted), _BLOCK)]
        unit = sum(float(_distances(block, parts[level].codebook).min(axis=1).sum()) for block in blocks)
        price = max(rate_distortion * unit / max(1, len(wanted)), float(np.finfo(np.float32).tiny))
        told = part(progress, level / len(parts), (level + 1) / len(parts))
        tokens = [np.zeros(0, np.uint16)]
        for number, block in enumerate(blocks):
            farther = _distances(block, parts[level].codebook)
            farther -= farther.min(axis=1, keepdims=True)
            with np.errstate(over="ignore"):  # beyond all bits: infinite
                tokens.append(coder.choose(farther / np.float32(price)))
            told((number + 1) / len(blocks))
        chosen.append(np.concatenate(tokens))
    return chosen


def _distances(points: Floats, codebook: Floats) -> Floats:
    """Returns squared distances of points (n, dimension) to codewords (size, dimension): (n, size)."""
    found: Floats = points @ (-2 * codebook.T)
    found += np.square(codebook).sum(axis=1)
    found += np.square(points).sum(axis=1, keepdims=True)
    np.maximum(found, 0, out=found)
    return found


def _taken(quantiser: Quantiser, chosen: Sequence[Tokens], tokens: int) -> Floats:
    """Returns what the coarser tokens take away of the next level's view (tokens, dimension)."""
    own = quantiser.parts[len(chosen)]
    taken = np.zeros((tokens, len(own.inner_bias)), np.float32)
    for coarser, numbers in zip(quantiser.parts, chosen, strict=False):
        codewords = (coarser.codebook @ coarser.outer + coarser.outer_bias) @ own.inner
        frames = np.repeat(numbers, coarser.stride)[: tokens * own.stride]
        taken += codewords[frames].reshape(tokens, own.stride, taken.shape[1]).mean(axis=1)
    return taken
