"""The same chain over torch: for CUDA, for MPS, in 16 bits, and on a CPU without compiled kernels.

Stages compute with the layers of ``snac.nn`` as they are, on the signal with as much of its surroundings as
a layer reaches, and cut off what the layer's own padding has made at the ends. All channels, or a batch, are
one tensor (batch, C, times).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snac.config import ModelConfig, SpectralConfig
from snac.engine.build import Engine
from snac.engine.chain import Chain, Stage
from snac.engine.cpu import Weights
from snac.engine.quantise import Quantiser
from snac.engine.streams import DecoderInput
from snac.errors import ModelError
from snac.nn.layers import DecoderBlock, EncoderBlock, LocalMHA, NoiseBlock, ResidualUnit, gaussian
from snac.nn.model import SNAC, check_audio, checked_codes
from snac.nn.spectral import SpectralDecoder, SpectralEncoder
from snac.noise import Noise
from snac.products import ProcessSetting

Layer = Callable[[Tensor], Tensor]

_CPU_VALUES = 1 << 18
_GPU_VALUES = 1 << 26
"""Activations that a stage computes at once: a GPU wants as many as a large batch has."""


class TorchBackend:
    """See ``snac.engine.streams.Backend``.

    Args:
        config: of the model.
        arrays: of a checkpoint.
        device: ``cpu``, ``cuda`` or ``mps``; with ``-half`` behind, encoder and decoder compute in 16 bits.

    Raises:
        ModelError: torch has no such device here.
    """

    def __init__(self, config: ModelConfig, arrays: Mapping[str, np.ndarray], device: str) -> None:
        self.config = config
        self.quantiser = Quantiser(config, Weights(arrays))
        self.decoder_input: DecoderInput = self.quantiser.latents
        place, _, precision = device.partition("-")
        # Processors that multiply 16 bits do so in bfloat16; GPUs all know float16, which is finer.
        half = torch.bfloat16 if place == "cpu" else torch.float16
        self._dtype = half if precision == "half" else torch.float32
        model = _model(config, arrays)
        for module in model.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        try:
            self._device = torch.device(place)
            model.to(self._device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"torch has no device {place!r} here: {error}") from error
        model.encoder.to(self._dtype)
        model.decoder.to(self._dtype)
        self.workspace = _Tensors(self._device, self._dtype)
        self._values = _CPU_VALUES if place == "cpu" else _GPU_VALUES
        self.encoder = Chain([*_encoder_stages(model), _Quantising(model, config)], self._values)
        self._decoder = list(_decoder_stages(model))

    def decoder(self, noise: Noise) -> Chain:
        """Latents (batch, C, T) to samples (batch, 1, T hop)."""
        stages: list[Stage] = []
        for stage in self._decoder:
            if not isinstance(stage, _Noise):
                stages.append(stage)
            elif noise.kind != "none":
                stages.append(_Noise(stage.block, noise))
        return Chain(stages, self._values)


def _model(config: ModelConfig, arrays: Mapping[str, np.ndarray]) -> SNAC:
    """For inference, in 32 bits on the CPU, whatever the caller made torch's defaults."""
    # On the meta device no weights are drawn: the caller's random numbers go on as if nothing had been.
    with torch.device("meta"):
        model = SNAC.from_model_config(config)
    weights = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in arrays.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


class _Tensors:
    """Tensors (batch, C, times): see ``snac.engine.chain.Workspace``."""

    together = True

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype

    def length(self, array: Tensor) -> int:
        return array.shape[-1]

    def part(self, array: Tensor, low: int, high: int) -> Tensor:
        return array[..., low:high]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=-1) if len(parts) > 1 else parts[0].clone()

    def zeros(self, like: Tensor, length: int) -> Tensor:
        return like.new_zeros(*like.shape[:-1], length)

    def extended(self, array: Tensor, length: int) -> Tensor:
        """See ``Workspace.extended``."""
        return torch.nn.functional.pad(array, (0, length))

    def take(self, *shape: int, dtype: type[np.generic]) -> None:
        return None

    def inward(self, signal: np.ndarray) -> list[Tensor]:
        tensor = torch.from_numpy(np.ascontiguousarray(signal.swapaxes(1, 2)))
        return [tensor.to(device=self._device, dtype=self._dtype)]

    def outward(self, lanes: Sequence[Sequence[Tensor]]) -> np.ndarray:
        tensor = torch.cat(list(lanes[0]), dim=-1)
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        return np.asarray(tensor.cpu().numpy().swapaxes(1, 2))


class FullPrecision(ProcessSetting):
    """Keeps products of float32 from being rounded to TF32, which codes are too close for.

    Convolutions of CUDA are rounded so by default; torch has a setting of the process for it alone.
    """

    def __init__(self) -> None:
        value: Any
        if hasattr(torch.backends.cudnn, "conv"):  # torch 2.9
            name, value = "fp32_precision", "ieee"
            places: list[Any] = [torch.backends.cudnn.conv, torch.backends.cuda.matmul]
        else:
            name, value = "allow_tf32", False
            places = [torch.backends.cudnn, torch.backends.cuda.matmul]

        def write(values: Sequence[Any]) -> None:
            for place, each in zip(places, values, strict=True):
                setattr(place, name, each)

        super().__init__(lambda: [getattr(place, name) for place in places], write, [value] * len(places))


_full_precision = FullPrecision()
Run = Callable[[Any, Tensor, Tensor, int, int, None], Tensor]


def _in_full_precision(run: Run) -> Run:
    """``Stage.run`` without gradients, and as exact on CUDA as on a CPU."""

    @functools.wraps(run)
    def exactly(stage: Any, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        with torch.inference_mode(), _full_precision if x.is_cuda else contextlib.nullcontext():
            return run(stage, held, x, steps, position, out)

    return exactly


class _Layer(Stage):
    """A layer with padding of its own: computed on the signal with its surroundings, and cut.

    Args:
        layer: to compute.
        reach: inputs on either side of an output's own.
        values: channels.
    """

    def __init__(self, layer: Layer, reach: int, values: int) -> None:
        self._layer, self._reach = layer, reach
        self.window, self.history, self.tail, self.values = 2 * reach + 1, reach, reach, values

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        signal = torch.cat((held, x), dim=-1) if held.shape[-1] else x
        return self._layer(signal)[..., self._reach : self._reach + steps]


class _Attention(Stage):
    def __init__(self, layer: LocalMHA) -> None:
        self._layer = layer
        self.window = self.step = self.up = layer.window_size
        self.values = layer.to_out.out_features

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        y: Tensor = self._layer(torch.cat((held, x), dim=-1)[..., : steps * self.window])
        return y


class _Down(Stage):
    def __init__(self, snake: nn.Module, layer: nn.Conv1d) -> None:
        self._snake, self._layer = snake, layer
        stride, pad = layer.stride[0], int(layer.padding[0])
        self.window, self.step, self.history, self.tail = 2 * stride, stride, pad, stride - pad
        self.values = layer.in_channels

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        signal = torch.cat((held, x), dim=-1)[..., : (steps - 1) * self.step + self.window]
        return nn.functional.conv1d(
            self._snake(signal), self._layer.weight, self._layer.bias, stride=self.step
        )


class _Up(Stage):
    def __init__(self, snake: nn.Module, layer: nn.ConvTranspose1d) -> None:
        self._snake, self._layer = snake, layer
        self.window, self.up, self.history, self.tail = 2, layer.stride[0], 1, 1
        self.skip = int(layer.padding[0])
        self.values = max(layer.in_channels, layer.out_channels * self.up)

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        y = self._layer(self._snake(torch.cat((held, x), dim=-1)))
        first = self.up - self.skip
        return y[..., first : first + steps * self.up]  # type: ignore[no-any-return]


class _Noise(Stage):
    def __init__(self, block: Any, noise: Noise) -> None:
        self.block, self._noise = block, noise
        self.values = block.linear.out_channels

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        drawn = gaussian(self._noise.seed, self.block.layer, position, steps, like=x)
        return torch.addcmul(x, drawn, self.block.linear(x))


class _Features(Stage):
    def __init__(self, encoder: SpectralEncoder, config: SpectralConfig) -> None:
        self._encoder, self._dtype = encoder, encoder.embed.weight.dtype
        self.window, self.step = config.window_length, config.hop_length
        self.history = self.tail = (self.window - self.step) // 2
        self.values = max(1, 3 * self.window // self.step)

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        signal = torch.cat((held, x), dim=-1)
        # Whole hops before the first window, so that those of the encoder are where these are.
        before = -self.history % self.step
        padded = nn.functional.pad(signal, (before, -(before + signal.shape[-1]) % self.step))
        first = (before + self.history) // self.step
        return self._encoder.features(padded)[..., first : first + steps].to(self._dtype)


class _Overlap(Stage):
    def __init__(self, decoder: SpectralDecoder, config: SpectralConfig) -> None:
        self._decoder = decoder
        reach = -(-config.window_length // config.hop_length) - 1
        self.window, self.up = 2 * reach + 1, config.hop_length
        self.history = self.tail = self._reach = reach
        self.values = 3 * config.window_length

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        signal = torch.cat((held, x), dim=-1)
        # Frames before the signal and after it are zeros; real ones have a 1 in the last row.
        present = signal[0, -1].nonzero()[:, 0]
        low, high = int(present[0]), int(present[-1]) + 1
        place = position // self.up - self._reach + low
        samples = self._decoder.samples(signal[:, :-1, low:high].transpose(1, 2), place)[:, None]
        first = self._reach - low
        if first < 0:
            samples = nn.functional.pad(samples, (-first * self.up, 0))
            first = 0
        return samples[..., first * self.up : (first + steps) * self.up]


class _Quantising(Stage):
    """Latents to rows of codes, as ``Quantiser``."""

    def __init__(self, model: SNAC, config: ModelConfig) -> None:
        self._quantizer, self._strides = model.quantizer, config.vq_strides
        self.window = self.step = config.vq_strides[0]
        self.values = config.codebook_size

    @_in_full_precision
    def run(self, held: Tensor, x: Tensor, steps: int, position: int, out: None) -> Tensor:
        """See ``Stage.run``."""
        latents = torch.cat((held, x), dim=-1)[..., : steps * self.step].float()
        _, codes = self._quantizer(latents)
        rows = [code.reshape(code.shape[0], steps, -1).transpose(1, 2) for code in codes]
        return torch.cat(rows, dim=1)


def _encoder_stages(model: SNAC) -> Iterator[Stage]:
    if isinstance(model.config, SpectralConfig):
        encoder = model.encoder
        assert isinstance(encoder, SpectralEncoder)
        yield _Features(encoder, model.config)
        yield from _stack_stages(encoder, encoder.project)
        return
    for layer in _children(model.encoder.block):
        if isinstance(layer, EncoderBlock):
            *units, snake, down = _children(layer.block)
            yield from map(_plain, units)
            yield _Down(snake, down)
        else:
            yield _plain(layer)


def _decoder_stages(model: SNAC) -> Iterator[Stage]:
    if isinstance(model.config, SpectralConfig):
        decoder = model.decoder
        assert isinstance(decoder, SpectralDecoder)
        yield from _stack_stages(decoder, decoder.head, marked=True)
        yield _Overlap(decoder, model.config)
        return
    *layers, snake, convolution, tanh = _children(model.decoder.model)
    for layer in layers:
        if isinstance(layer, DecoderBlock):
            snake_before, up, *rest = _children(layer.block)
            yield _Up(snake_before, up)
            for each in rest:
                yield _Noise(each, Noise.none()) if isinstance(each, NoiseBlock) else _plain(each)
        else:
            yield _plain(layer)
    yield _Layer(
        lambda x: tanh(convolution(snake(x))), convolution.kernel_size[0] // 2, convolution.in_channels
    )


def _plain(layer: Any) -> Stage:
    """A layer that keeps the rate."""
    if isinstance(layer, LocalMHA):
        return _Attention(layer)
    convolution: Any = layer.block[1] if isinstance(layer, ResidualUnit) else layer
    reach = (convolution.kernel_size[0] - 1) * convolution.dilation[0] // 2
    return _Layer(layer, reach, max(convolution.in_channels, convolution.out_channels))


def _stack_stages(stack: Any, linear: nn.Module, marked: bool = False) -> Iterator[Stage]:
    """ConvNeXt blocks and what is around them; ``marked`` adds a row of ones to the end."""

    def last(x: Tensor) -> Tensor:
        y: Tensor = linear(stack.final_norm(x.transpose(1, 2))).transpose(1, 2)
        return torch.cat((y, torch.ones_like(y[:, :1])), dim=1) if marked else y

    reach, channels = stack.embed.kernel_size[0] // 2, stack.embed.out_channels
    yield _Layer(lambda x: stack.norm(stack.embed(x).transpose(1, 2)).transpose(1, 2), reach, channels)
    for block in stack.blocks:
        yield _Layer(_transposing(block), reach, block.expand.out_features)
    yield _Layer(last, 0, channels)


def _transposing(block: nn.Module) -> Layer:
    return lambda x: block(x.transpose(1, 2)).transpose(1, 2)


def _children(module: Any) -> list[Any]:
    return list(module.children())


class FoldedModel:
    """A model for inference alone, with encode and decode on tensors; what ``SNAC.fold`` gives.

    Attributes:
        engine: what computes; takes arrays, see ``snac.engine.Engine``.
        config: of the model.
        sampling_rate, hop_length, vq_strides, n_codebooks, codebook_size: as ``SNAC`` has them.
    """

    takes_tensors: Final = True  # where others that have an engine take arrays

    def __init__(self, engine: Engine) -> None:
        self.engine, self.config = engine, engine.config
        self.sampling_rate, self.hop_length = self.config.sampling_rate, self.config.hop_length
        self.vq_strides, self.n_codebooks = list(self.config.vq_strides), len(self.config.vq_strides)
        self.codebook_size = self.config.codebook_size

    def fingerprint(self) -> str:
        """16 hex digits that change with the weights and the configuration."""
        return self.engine.fingerprint

    def encode(self, audio_data: Tensor) -> list[Tensor]:
        """Audio (B, 1, T) to codes: one int64 tensor (B, frames / stride) a level, coarse to fine.

        Raises:
            InputTypeError, InputValueError: as ``SNAC.encode`` does.
        """
        check_audio(audio_data, self.config, torch.float32)
        block = audio_data.detach()[:, 0].float().cpu().numpy()
        parts = list(self.engine.encode([block], len(block)))
        levels = (np.concatenate(level, axis=1).astype(np.int64) for level in zip(*parts, strict=True))
        return [torch.from_numpy(level).to(audio_data.device) for level in levels]

    def decode(self, codes: Sequence[Tensor], *, seed: int | None = 0) -> Tensor:
        """Codes to audio (B, 1, frames * hop_length).

        Args:
            codes: as ``encode`` gives them; the coarsest one or more levels will do.
            seed: of the decoder's noise, None for none.

        Raises:
            InputTypeError, InputValueError: as ``SNAC.decode`` does.
        """
        levels = checked_codes(codes, self.config)
        noise = Noise.none() if seed is None else Noise.seeded(seed)
        blocks = list(self.engine.decode([code.cpu().numpy() for code in levels], noise=noise))
        return torch.from_numpy(np.concatenate(blocks, axis=1))[:, None].to(levels[0].device)
