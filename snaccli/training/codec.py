"""The model in training: what a run starts from, one pass of audio through it, and the losses of it."""

from __future__ import annotations

import difflib
import functools
import types
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snac.config import SpectralConfig
from snac.nn.layers import SNAKE_EPSILON, NoiseStream, ResidualUnit, Snake1d
from snac.nn.model import SNAC
from snaccli.errors import UsageError
from snaccli.training.config import LossWeights, SpectraConfig, TrainConfig
from snaccli.training.losses import (
    DisturbanceLoss,
    IntelligibilityLoss,
    LowBandLoss,
    MagnitudeLoss,
    PhaseLoss,
    SpectralLoss,
)
from snaccli.training.quantise import quantise, soften


def initial_model(config: TrainConfig) -> SNAC:
    """The model of the configuration, in training mode on the CPU, frozen parts frozen.

    Raises:
        UsageError: ``model`` and ``init`` contradict each other, or a part to freeze does not exist.
        ModelError: the model of ``init`` cannot be had.
    """
    torch.manual_seed(config.seed)
    if config.init:
        model = SNAC.from_pretrained(config.init)
        if config.model is not None and config.model != model.config:
            ours, theirs = config.model.to_dict(), model.config.to_dict()
            name = next(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
            raise UsageError(
                f"training configuration: [model] has {name} {ours.get(name)}, but {config.init} has "
                f"{theirs.get(name)}: leave [model] out to train that one on"
            )
    else:
        assert config.model is not None
        model = SNAC.from_model_config(config.model)
    freeze(model, config.freeze)
    return model.train()


@torch.no_grad()
def scale_layers(model: SNAC, audio: Tensor, noise: NoiseStream) -> None:
    """Scales fresh layers of the published form by what they make of some audio.

    As they are drawn, the offsets of narrow depthwise layers outweigh what comes from the signal, so that
    latents hardly change over time and the decoder learns to do without them. Here each convolution of the
    encoder, the quantiser's projections and the decoder that has offsets gets the gain and the offsets with
    which its outputs have mean 0 and variance 1 (Salimans and Kingma 2016, arXiv 1602.07868, section 3), one
    after the other; of transposed convolutions, whose gains are those of their inputs, all outputs together.
    The last one, whose outputs are samples, is scaled to the level of the audio.

    Args:
        model: changed in place.
        audio: (B, 1, T).
        noise: of the decoder, and of the stand-in for the codebooks.
    """
    convolutions = [layer for layer in model.modules() if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d))]
    level = float(audio.std())
    hooks = [
        layer.register_forward_hook(functools.partial(_scale, level if layer is convolutions[-1] else 1.0))
        for layer in convolutions
        if layer.bias is not None
    ]
    try:
        model.decoder(soften(model.quantizer, model.encoder(audio), noise)[0], noise)
    finally:
        for hook in hooks:
            hook.remove()


def _scale(deviation: float, layer: nn.Module, _: Any, outputs: Tensor) -> Tensor:
    """Gives a layer's outputs (B, C, T) mean 0 and this deviation, by its gains and offsets."""
    gains, offsets = cast(Any, layer).parametrizations.weight.original0, cast(Tensor, layer.bias)
    mean, variance = outputs.mean((0, 2)), outputs.var((0, 2))
    if isinstance(layer, nn.ConvTranspose1d):
        variance = variance.mean().expand_as(mean)
    factor = deviation / variance.sqrt().clamp(min=1e-5)  # (C,)
    gains.mul_(factor[0] if isinstance(layer, nn.ConvTranspose1d) else factor[:, None, None])
    offsets.sub_(mean).mul_(factor)
    return (outputs - mean[:, None]) * factor[:, None]


def freeze(model: SNAC, parts: tuple[str, ...]) -> None:
    """Lets the parts keep their weights; a part is a module's path, as ``encoder`` or ``decoder.model.0``.

    Raises:
        UsageError: there is no such part, or nothing is left to train.
    """
    for part in parts:
        chosen = [
            parameter
            for name, parameter in model.named_parameters()
            if name == part or name.startswith(f"{part}.")
        ]
        if not chosen:
            near = difflib.get_close_matches(part, [name for name, _ in model.named_modules()], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; there are encoder, quantizer and decoder"
            raise UsageError(f"training configuration: freeze: no part {part!r} in the model{hint}")
        for parameter in chosen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("training configuration: freeze leaves nothing to train")


def computes_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether encoder, decoder and discriminators run in bfloat16 under autocast.

    Args:
        precision: of the configuration. ``auto`` means yes on a CUDA device that has bfloat16, and on a
            processor with AMX or AVX512-BF16; elsewhere it would be emulated and slow.
        device: where the training computes.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(_cpu_flags() & {"amx_bf16", "avx512_bf16"})


def _cpu_flags() -> set[str]:
    """What the processor can do, as Linux names it; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if line.startswith("flags")]
    except OSError:
        return set()
    return set(lines[0].split()) if lines else set()


def _snake(x: Tensor, alpha: Tensor) -> Tensor:
    return x + (alpha + SNAKE_EPSILON).reciprocal() * torch.sin(alpha * x).square()


def _depthwise_unit(x: Tensor, alpha1: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """Snake and depthwise convolution, the convolution as shifted products, which fuse with the rest."""
    length = x.shape[-1]
    reach = (weight.shape[-1] - 1) * dilation // 2
    padded = F.pad(_snake(x, alpha1), (reach, reach))
    out = bias[:, None].expand(-1, length)
    for tap in range(weight.shape[-1]):
        shifted = padded[:, :, tap * dilation : tap * dilation + length]
        out = out + weight[:, 0, tap, None] * shifted
    return out


def fuse_layers(model: nn.Module, device: str | torch.device = "cpu") -> None:
    """Replaces the forward pass of layers that move much memory by compiled ones.

    These are the snakes and the depthwise residual units of the published form, and the comparison of
    magnitudes in the losses. The blocks of the spectral form are as fast as they are.

    The results are the same but for rounding. Compiling takes a minute or two at the first step.

    Args:
        model: changed in place.
        device: where it will be trained.

    Raises:
        UsageError: torch.compile does not work there.
    """
    _allow_shapes(torch._dynamo.config, 256)
    activation: Any = torch.compile(_snake, dynamic=False)
    depthwise: Any = torch.compile(_depthwise_unit, dynamic=False)
    _try(activation, device)
    for layer in model.modules():
        if isinstance(layer, ResidualUnit):
            forward: Any = types.MethodType(_fused_unit(activation, depthwise), layer)
        elif isinstance(layer, Snake1d):
            forward = functools.partial(_fused_snake, activation, layer)
        elif isinstance(layer, MagnitudeLoss):
            layer.compare = torch.compile(layer.compare, dynamic=False)
            continue
        else:
            continue
        setattr(layer, "forward", forward)  # noqa: B010


def _allow_shapes(config: Any, count: int) -> None:
    """Lets torch.compile compile a function for ``count`` shapes; torch renamed the setting in 2.7."""
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, count)


def _try(activation: Any, device: str | torch.device) -> None:
    """Compiles something small, to learn now rather than at the first step whether there is a compiler."""
    try:
        activation(torch.zeros(1, 1, 8, device=device), torch.ones(1, 1, 1, device=device))
    except Exception as error:  # each backend fails by errors of its own
        reason, place = " ".join(str(error).split())[:120], torch.__file__
        remedy = "install a C++ compiler (g++, clang or MSVC)"
        if " " in place:  # torch gives the folder of its headers to the compiler without quotes
            remedy = f"install the environment in a folder without a space in its name ({place})"
        raise UsageError(
            f"compile = true: torch.compile does not work here ({reason}): {remedy}, or set compile=false"
        ) from error


def _fused_snake(activation: Any, layer: Snake1d, x: Tensor) -> Tensor:
    result: Tensor = activation(x, layer.alpha)
    return result


def _fused_unit(activation: Any, depthwise: Any) -> Any:
    def forward(unit: ResidualUnit, x: Tensor) -> Tensor:
        first, dilated, second, pointwise = cast(Any, unit.block)
        if dilated.groups != dilated.in_channels:
            return ResidualUnit.forward(unit, x)
        y = depthwise(x, first.alpha, dilated.weight, dilated.bias, dilated.dilation[0])
        result: Tensor = x + pointwise(activation(y, second.alpha))
        return result

    return forward


Pass = tuple[dict[str, Tensor], Tensor, list[Tensor], list[Tensor]]


class ReconstructionLosses(nn.Module):
    """The losses with a weight that compare decoded audio with the recording, by the names of
    ``LossWeights``.

    Args:
        rate: Hz of the audio.
        spectra: windows of the spectral losses.
        wanted: names, as :meth:`LossWeights.reconstruction` gives them.
    """

    def __init__(self, rate: int, spectra: SpectraConfig, wanted: tuple[str, ...]) -> None:
        super().__init__()
        self.wanted = wanted
        makers: dict[tuple[str, ...], Callable[[], nn.Module]] = {
            ("low_band",): lambda: LowBandLoss(rate),
            ("stft", "mel"): lambda: SpectralLoss(rate, spectra.stft_windows, spectra.mel_windows),
            ("intelligibility",): lambda: IntelligibilityLoss(rate),
            ("log_mel", "log_magnitude", "compressed"): lambda: MagnitudeLoss(
                rate, spectra.magnitude_windows
            ),
            ("disturbance",): lambda: DisturbanceLoss(rate),
            ("advance", "phase"): lambda: PhaseLoss(rate),
        }
        self._names = [names for names in makers if set(names) & set(wanted)]
        self.parts = nn.ModuleList(makers[names]() for names in self._names)

    def forward(self, decoded: Tensor, target: Tensor, bandwidth: Tensor) -> dict[str, Tensor]:
        """Losses of ``decoded`` against ``target``, both (B, T), below ``bandwidth`` (B,) in Hz."""
        losses = {"waveform": (decoded - target).abs().mean()}
        for names, part in zip(self._names, self.parts, strict=True):
            masked = isinstance(part, (MagnitudeLoss, DisturbanceLoss))
            values = part(decoded, target, bandwidth) if masked else part(decoded, target)
            losses |= zip(names, values if isinstance(values, tuple) else (values,), strict=True)
        return {name: losses[name] for name in self.wanted}


class TrainedCodec(nn.Module):
    """The model with its losses, so that one call does all that gradients flow through.

    Args:
        model: trained in place.
        spectra: windows of the spectral losses.
        weights: what is 0 there is not computed.
        autocast: compute encoder and decoder in bfloat16. The quantiser and the losses stay in 32 bits:
            near ties between codewords, and logarithms, need them.
    """

    def __init__(
        self, model: SNAC, spectra: SpectraConfig, weights: LossWeights, autocast: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.autocast = autocast
        self.reconstruction = ReconstructionLosses(model.sampling_rate, spectra, weights.reconstruction())

    def forward(self, audio: Tensor, bandwidth: Tensor, noise: NoiseStream, quantised: bool) -> Pass:
        """Encodes, quantises, decodes and compares.

        Args:
            audio: (B, 1, T), T a multiple of the model's padding.
            bandwidth: Hz above which a recording holds nothing, (B,).
            noise: of the decoder where it has any, and of the stand-in for the codebooks.
            quantised: False puts noise in the place of the codebooks.

        Returns:
            losses by the names of ``LossWeights``; decoded audio (B, 1, T); the chosen codewords and what
            they were chosen for, as ``QuantiseResult`` has them, empty where nothing was quantised.
        """
        z = self.encode(audio)
        losses: dict[str, Tensor] = {}
        indices: list[Tensor] = []
        projected: list[Tensor] = []
        if quantised:
            result = quantise(self.model.quantizer, z)
            z_q, losses["commitment"], losses["codebook"] = result.z_q, result.commitment, result.codebook
            indices, projected = result.indices, result.projected
        else:
            z_q, losses["commitment"] = soften(self.model.quantizer, z, noise)
        with self._cast(audio):
            spectral = isinstance(self.model.config, SpectralConfig)
            decoded = self.model.decoder(z_q) if spectral else self.model.decoder(z_q, noise)
        decoded = decoded.float()
        losses |= self.reconstruction(decoded[:, 0], audio[:, 0], bandwidth)
        return losses, decoded, indices, projected

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, 1, T) to latents (B, C, T / hop), float32."""
        with self._cast(audio):
            z: Tensor = self.model.encoder(audio)
        return z.float()

    def _cast(self, audio: Tensor) -> torch.autocast:
        return torch.autocast(audio.device.type, torch.bfloat16, enabled=self.autocast)
