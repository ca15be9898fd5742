"""Decoding of codes as they come: each sample is returned as soon as nothing that follows can change it.

The layers of the decoder form a chain. Each keeps the end of its own input, as much as its next output
depends on, and passes on what is final; so little is computed twice, however small the pieces, and the memory
held does not grow with the length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from snac.engine.stages import Stage, inputs_reaching
from snac.engine.tiles import decoder_stages, tile_frames
from snac.nn.model import SNAC


class StreamingDecoder:
    """Codes to audio, piece by piece, with the samples of ``SNAC.decode`` of all codes at once.

    For models that speak while they generate::

        decoder = StreamingDecoder(model)
        for codes in frames:                 # one tensor (1, n) a level
            play(decoder.push(codes))        # (1, 1, samples), the samples that are final by now
        play(decoder.finish())

    Noise included: it depends on the seed and on the position only. Equal within float rounding.

    Args:
        model: in evaluation mode, on the device that shall compute; folded or not.
        seed: of the decoder's noise, None for none, as for ``SNAC.decode``.

    Attributes:
        latency: samples by which the audio returned so far ends before the codes pushed so far do, at most:
            the decoder's look-ahead and, with attention, a window that is not full.
    """

    def __init__(self, model: SNAC, *, seed: int | None = 0) -> None:
        self._model = model
        self._piece = tile_frames(model)
        self._streams = _streams(model, seed)
        self.latency = round(sum(stream.latency for stream in self._streams) * model.hop_length)
        self._reset()

    def _reset(self) -> None:
        self._tokens: list[Tensor] = []  # of each level, from the one that covers the frame `_frames` on
        self._frames = 0  # latent frames that have gone into the first stage
        for stream in self._streams:
            stream.reset()

    def push(self, codes: Sequence[Tensor]) -> Tensor:
        """Takes further codes.

        Args:
            codes: one integer tensor (B, n) a level, coarse to fine; the same levels, one or more, and the
                same B at every call. Any number of tokens, none too; levels may run ahead of each other.

        Returns:
            (B, 1, samples), the samples that became final, in order; perhaps none.

        Raises:
            ValueError: the levels or the batch differ from those before, or a code is outside its codebook.
        """
        self._take(codes)
        return self._advance(ended=False)

    def finish(self) -> Tensor:
        """Ends the stream and returns the rest, (B, 1, samples); after that the decoder begins anew.

        Raises:
            ValueError: the levels pushed are not equally long, or, with attention, do not fill its last
                window: ``SNAC.decode`` would not take them either.
        """
        if not self._tokens:
            return self._nothing()
        strides, total = self._model.vq_strides, self._ready()
        ends = [
            (self._frames // stride + tokens.shape[1]) * stride
            for tokens, stride in zip(self._tokens, strides, strict=False)
        ]
        if set(ends) != {total}:
            lengths = [end // stride for end, stride in zip(ends, strides, strict=False)]
            raise ValueError(f"levels of {lengths} tokens do not fit the strides {strides}")
        if total % self._model.config.frame_alignment:
            raise ValueError(
                f"{total} latent frames are no multiple of the {self._model.config.frame_alignment} that the "
                "attention of this model takes"
            )
        rest = self._advance(ended=True)
        self._reset()
        return rest

    def _take(self, codes: Sequence[Tensor]) -> None:
        model = self._model
        if not 1 <= len(codes) <= model.n_codebooks:
            raise ValueError(f"codes must have 1 to {model.n_codebooks} levels, not {len(codes)}")
        device = next(model.parameters()).device
        taken = [code.to(device=device, dtype=torch.int64) for code in codes]
        for level, code in enumerate(taken):
            if code.ndim != 2 or code.shape[0] != taken[0].shape[0]:
                raise ValueError(f"level {level} has shape {tuple(code.shape)}; give (batch, tokens)")
            if code.numel() and (int(code.min()) < 0 or int(code.max()) >= model.codebook_size):
                raise ValueError(f"level {level} has a code outside 0..{model.codebook_size - 1}")
        if self._tokens:
            if len(taken) != len(self._tokens) or taken[0].shape[0] != self._tokens[0].shape[0]:
                raise ValueError(
                    f"{len(taken)} levels of batch {taken[0].shape[0]} after {len(self._tokens)} of "
                    f"batch {self._tokens[0].shape[0]}: finish the stream first"
                )
            taken = [torch.cat(pair, dim=1) for pair in zip(self._tokens, taken, strict=True)]
        self._tokens = taken

    def _ready(self) -> int:
        """Latent frames of which every level's tokens are here."""
        return min(
            (self._frames // stride + tokens.shape[1]) * stride
            for tokens, stride in zip(self._tokens, self._model.vq_strides, strict=False)
        )

    def _advance(self, *, ended: bool) -> Tensor:
        ready, audio = self._ready(), []
        with torch.inference_mode():
            while self._frames < ready:
                audio.append(self._pass_on(self._latents(min(self._frames + self._piece, ready))))
            if ended:
                audio.append(self._pass_on(None, ended=True))
        final = [part for part in audio if part is not None]
        return torch.cat(final, dim=-1) if final else self._nothing()

    def _pass_on(self, x: Tensor | None, *, ended: bool = False) -> Tensor | None:
        for stream in self._streams:
            x = stream.feed(x, ended=ended)
        return x

    def _latents(self, until: int) -> Tensor:
        """Latents (B, C, n) of the frames from ``_frames`` to ``until``, whose tokens are let go."""
        first, latents = self._frames, torch.zeros(())
        for number, level in enumerate(self._model.quantizer.levels()):
            if number == len(self._tokens):
                break
            held, stride = self._tokens[number], level.stride
            base = first // stride
            here = level.expand(level.decode_code(held[:, : -(-until // stride) - base]))
            here = here[:, :, first - base * stride : until - base * stride]
            latents = latents + here if number else here
            self._tokens[number] = held[:, until // stride - base :]
        self._frames = until
        return latents

    def _nothing(self) -> Tensor:
        like = next(self._model.parameters())
        batch = self._tokens[0].shape[0] if self._tokens else 1
        return torch.zeros((batch, 1, 0), device=like.device, dtype=like.dtype)


class _Stream:
    """A stage of the decoder with the end of its input.

    Args:
        stage: what to compute.
        per_frame: its inputs a latent frame.

    Attributes:
        latency: latent frames (and fractions of them) by which its output ends before its input, at most.
    """

    def __init__(self, stage: Stage, per_frame: int) -> None:
        self._stage = stage
        # Outputs that are not yet final when the last input that one output needs is there.
        highs = [inputs_reaching(stage.layers, output, output)[1] for output in range(stage.up)]
        behind = [(high + 1) * stage.up - output - 1 for output, high in enumerate(highs)]
        self._lag = min(behind) if stage.unit == 1 else 0  # attention holds back units that are not whole
        self.latency = (self._lag / stage.up + stage.unit - 1) / per_frame
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next input is the first."""
        self._held: Tensor | None = None
        self._first = 0  # input that `_held` begins with
        self._given = 0  # outputs given so far

    def feed(self, x: Tensor | None, *, ended: bool) -> Tensor | None:
        """Further inputs to the outputs that are final now; None where there are none."""
        stage = self._stage
        if x is not None:
            self._held = x if self._held is None else torch.cat((self._held, x), dim=-1)
        if self._held is None:
            return None
        taken = (self._first + self._held.shape[-1]) // stage.unit * stage.unit
        until = taken * stage.up - (0 if ended else self._lag)
        if until <= self._given:
            return None
        # A copy: layers may overwrite what they are given.
        piece = self._held[..., : taken - self._first].clone(memory_format=torch.contiguous_format)
        offset = self._first * stage.up
        y = stage.run(piece, self._first)[..., self._given - offset : until - offset]
        self._given = until
        first = max(0, (until // stage.up - stage.before) // stage.unit * stage.unit)
        self._held, self._first = self._held[..., first - self._first :].clone(), first
        return y


def _streams(model: SNAC, seed: int | None) -> list[_Stream]:
    streams, per_frame = [], 1
    for stage in decoder_stages(model, seed):
        streams.append(_Stream(stage, per_frame))
        per_frame *= stage.up
    return streams
