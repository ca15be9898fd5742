"""The adaptive coder token by token in numpy: for short streams, and where the compiled one cannot be had."""

from __future__ import annotations

import numpy as np

from snaccli.codes import Tokens
from snaccli.entropy.context import Context, Integers
from snaccli.entropy.model import BIAS, Floats, Model
from snaccli.entropy.rangecoder import Decoder


class PlainCoder:
    """Codes one stream, block after block from its first token on.

    Args:
        context: of the stream's tokens.
        payload: its coded bytes if it is decoded.
    """

    block = 64  # tokens between two looks at the progress

    def __init__(self, context: Context, payload: bytes = b"") -> None:
        self._context = context
        self._points, self._dim = context.points, context.points.shape[1]
        self._model = Model(context.points, context.phases, context.size, context.own)
        self._decoder = Decoder(payload)
        self._features = np.zeros(context.size, dtype=np.int64)
        self._features[-1] = BIAS
        self._done = 0

    def intervals(self, tokens: Tokens) -> Integers:
        """Return what lies below each of the next tokens (n,) and its frequency, of 2^24 in all (n, 2)."""
        found = np.empty((tokens.size, 2), dtype=np.int64)
        for number, above in enumerate(self._context.above(self._done, tokens.size)):
            token = int(tokens[number])
            row = self._row(above)
            found[number] = int(row[:token].sum()) + token, int(row[token]) + 1
            self._take(token)
        return found

    def tokens(self, count: int) -> Tokens:
        """Decode the next tokens, uint16 (count,).

        Raises:
            StreamInvalidError: no encoder wrote these bytes.
        """
        found = np.empty(count, dtype=np.uint16)
        for number, above in enumerate(self._context.above(self._done, count)):
            found[number] = token = self._decoder.decode(self._row(above))
            self._take(token)
        return found

    def _row(self, above: Integers) -> Floats:
        """Return the frequencies of the next token, less one each."""
        self._features[self._context.own : -1] = above
        return self._model.row(self._done % self._context.phases, self._features)

    def _take(self, token: int) -> None:
        """Learn from a token, and take it as the one before the next."""
        self._model.update(token)
        own = self._features[: self._context.own]
        own[self._dim :] = own[: -self._dim].copy()
        own[: self._dim] = self._points[token]
        self._done += 1
