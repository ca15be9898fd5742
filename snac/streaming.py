"""Decoding of codes as they come: each sample is returned as soon as nothing that follows can change it.

The layers of the decoder form a chain. Each keeps the end of its own input, as much as its next output
depends on, and passes on what is final; so little is computed twice, however small the pieces, and the memory
held does not grow with the length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import LocalMHA
from .layers import DecoderBlock
from .noise import NoiseSource
from .snac import SNAC
from .stages import inputs_reaching as latents_reaching
from .tiles import tile_frames


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
        self._stages = _stages(model, seed)
        self.latency = round(sum(stage.latency for stage in self._stages) * model.hop_length)
        self._reset()

    def _reset(self) -> None:
        self._tokens: list[Tensor] = []  # of each level, from the one that covers the frame `_frames` on
        self._frames = 0  # latent frames that have gone into the first stage
        for stage in self._stages:
            stage.reset()

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
        for stage in self._stages:
            x = stage.feed(x, ended=ended)
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


class _Stage:
    """One layer of the decoder with the end of its input.

    Args:
        layer: takes (B, C, n) to (B, C', n * scale).
        scale: outputs an input.
        per_frame: inputs a latent frame; noise asks that what a layer is given begins on a frame.
        seed: of the noise.

    Attributes:
        latency: latent frames (and fractions of them) by which its output ends before its input, at most.
    """

    def __init__(self, layer: nn.Module, scale: int, per_frame: int, seed: int | None) -> None:
        self._layer, self._scale, self._per_frame, self._seed = layer, scale, per_frame, seed
        self._window = layer.window_size if isinstance(layer, LocalMHA) else 1
        self._grid = math.lcm(self._window, per_frame)
        far = 1000 * self._grid  # any place that no end is near
        reached = [latents_reaching([layer], far * scale + i, far * scale + i) for i in range(scale)]
        self._before = max(far - low for low, _ in reached)
        # Outputs that are not yet final when the last input that this one needs is there.
        behind = [(high - far + 1) * scale - i - 1 for i, (_, high) in enumerate(reached)]
        self._lag = min(behind) if self._window == 1 else 0
        self.latency = (self._lag / scale + self._window - 1) / per_frame
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next input is the first."""
        self._held: Tensor | None = None
        self._first = 0  # input that `_held` begins with
        self._given = 0  # outputs given so far

    def feed(self, x: Tensor | None, *, ended: bool) -> Tensor | None:
        """Further inputs to the outputs that are final now; None where there are none."""
        if x is not None:
            self._held = x if self._held is None else torch.cat((self._held, x), dim=-1)
        if self._held is None:
            return None
        taken = (self._first + self._held.shape[-1]) // self._window * self._window  # only whole windows
        until = taken * self._scale - (0 if ended else self._lag)
        if until <= self._given:
            return None
        # A copy: layers may overwrite what they are given.
        y = self._run(self._held[..., : taken - self._first].clone(memory_format=torch.contiguous_format))
        offset = self._first * self._scale
        y = y[..., self._given - offset : until - offset]
        self._given = until
        first = max(0, until // self._scale - self._before) // self._grid * self._grid
        self._held, self._first = self._held[..., first - self._first :].clone(), first
        return y

    def _run(self, x: Tensor) -> Tensor:
        if isinstance(self._layer, DecoderBlock):
            noise = NoiseSource(self._seed or 0, self._first // self._per_frame)
            return self._layer(x, noise, self._seed is not None)  # type: ignore[no-any-return]
        return self._layer(x)  # type: ignore[no-any-return]


def _stages(model: SNAC, seed: int | None) -> list[_Stage]:
    stages, per_frame = [], 1
    rates = iter(model.decoder_rates)
    for layer in (*model.decoder.at_latent_rate(), *model.decoder.blocks(), *model.decoder.output_layers()):
        scale = next(rates) if isinstance(layer, DecoderBlock) else 1
        stages.append(_Stage(layer, scale, per_frame, seed))
        per_frame *= scale
    return stages
