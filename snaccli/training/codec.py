"""One pass of audio through the model in training, and the losses of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snac.config import SpectralConfig
from snac.nn.layers import NoiseStream
from snac.nn.model import SNAC
from snaccli.training.config import LossWeights, SpectraConfig
from snaccli.training.losses import (
    AdvanceLoss,
    DisturbanceLoss,
    IntelligibilityLoss,
    LowBandLoss,
    MagnitudeLoss,
    SpectralLoss,
)
from snaccli.training.quantise import quantise, soften

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
            ("advance",): lambda: AdvanceLoss(rate),
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
