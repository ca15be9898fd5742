"""Decoding of codes as they come: each sample is returned as soon as nothing that follows can change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snac.engine import Engine
from snac.engine.streams import DecoderStream
from snac.noise import Noise

if TYPE_CHECKING:
    from snac.engine.torch_chain import FoldedModel
    from snac.nn.model import SNAC


class StreamingDecoder:
    """Codes to audio, piece by piece, with the samples of decoding all codes at once.

    For models that speak while they generate::

        decoder = StreamingDecoder(model)
        for codes in frames:                 # one tensor (1, n) a level
            play(decoder.push(codes))        # (1, 1, samples), the samples that are final by now
        play(decoder.finish())

    Noise included: it depends on the seed and on the position only. Equal within float rounding.

    Args:
        model: a ``SNAC``, or what its ``fold`` gives: then codes and audio are tensors; or an engine, then
            they are arrays, and audio is (B, samples).
        seed: of the decoder's noise, None for none, as for ``SNAC.decode``.

    Attributes:
        latency: samples by which the audio returned so far ends before the codes pushed so far do, at most:
            the decoder's look-ahead and, with attention, a window that is not full.
    """

    def __init__(self, model: SNAC | FoldedModel | Engine, *, seed: int | None = 0) -> None:
        self._tensors = not isinstance(model, Engine)
        folded: Any = model.fold() if hasattr(model, "fold") else model
        self._engine: Engine = folded.engine if self._tensors else folded
        self._noise = Noise.none() if seed is None else Noise.seeded(seed)
        self._stream: DecoderStream | None = None
        self._batch = 1
        self.latency = self._engine.decoder_stream(noise=self._noise).latency

    def push(self, codes: Sequence[Any]) -> Any:
        """Takes further codes.

        Args:
            codes: one integer tensor or array (B, n) a level, coarse to fine; the same levels, one or more,
                and the same B at every call. Any number of tokens, none too; levels may run ahead of each
                other.

        Returns:
            (B, 1, samples), or (B, samples) of an engine: the samples that became final, in order; perhaps
            none.

        Raises:
            ValueError: the levels or the batch differ from those before, or a code is outside its codebook.
        """
        arrays = [np.asarray(code.detach().cpu() if hasattr(code, "detach") else code) for code in codes]
        stream = self._stream
        if stream is None:
            self._batch = arrays[0].shape[0] if arrays and arrays[0].ndim == 2 else 1
            stream = self._engine.decoder_stream(noise=self._noise, channels=self._batch)
        elif arrays and arrays[0].ndim == 2 and arrays[0].shape[0] != self._batch:
            raise ValueError(
                f"a batch of {arrays[0].shape[0]} after one of {self._batch}: finish the stream first"
            )
        audio = stream.push(arrays)
        self._stream = stream
        return self._given(audio)

    def finish(self) -> Any:
        """Ends the stream and returns the rest, as :meth:`push`; after that the decoder begins anew.

        Raises:
            ValueError: the levels pushed are not equally long, or, with attention, do not fill its last
                window: ``SNAC.decode`` would not take them either.
        """
        if self._stream is None:
            return self._given(np.zeros((1, 0), np.float32))
        audio = self._stream.push(None, ended=True)
        self._stream = None
        return self._given(audio)

    def _given(self, audio: np.ndarray) -> Any:
        if not self._tensors:
            return audio
        import torch

        return torch.from_numpy(audio)[:, None]
