"""One pass of audio through the model in training, and the losses of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snac.nn.model import SNAC
from snac.noise import NoiseSource
from snaccli.training.config import SpectraConfig
from snaccli.training.losses import IntelligibilityLoss, LowBandLoss, SpectralLoss
from snaccli.training.quantise import quantise, soften

RECONSTRUCTION = ("waveform", "low_band", "stft", "mel", "intelligibility")
"""The losses that compare decoded audio with the recording: what validation adds up."""

Pass = tuple[dict[str, Tensor], Tensor, list[Tensor], list[Tensor]]


class TrainedCodec(nn.Module):
    """The model with its losses, so that one call does all that gradients flow through.

    Args:
        model: trained in place.
        spectra: windows of the spectral losses.
        autocast: compute encoder and decoder in bfloat16. The quantiser and the losses stay in 32 bits:
            near ties between codewords, and logarithms, need them.
    """

    def __init__(self, model: SNAC, spectra: SpectraConfig, autocast: bool = False) -> None:
        super().__init__()
        self.model = model
        self.autocast = autocast
        self.spectral = SpectralLoss(model.sampling_rate, spectra.stft_windows, spectra.mel_windows)
        self.low_band = LowBandLoss(model.sampling_rate)
        self.intelligibility = IntelligibilityLoss(model.sampling_rate)

    def forward(self, audio: Tensor, noise: NoiseSource, quantised: bool) -> Pass:
        """Encodes, quantises, decodes and compares.

        Args:
            audio: (B, 1, T), T a multiple of the model's padding.
            noise: of the decoder, and of the stand-in for the codebooks.
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
            decoded = self.model.decoder(z_q, noise)
        decoded = decoded.float()
        losses["waveform"] = (decoded - audio).abs().mean()
        losses["low_band"] = self.low_band(decoded[:, 0], audio[:, 0])
        losses["stft"], losses["mel"] = self.spectral(decoded[:, 0], audio[:, 0])
        losses["intelligibility"] = self.intelligibility(decoded[:, 0], audio[:, 0])
        return losses, decoded, indices, projected

    def encode(self, audio: Tensor) -> Tensor:
        """Audio (B, 1, T) to latents (B, C, T / hop), float32."""
        with self._cast(audio):
            z: Tensor = self.model.encoder(audio)
        return z.float()

    def _cast(self, audio: Tensor) -> torch.autocast:
        return torch.autocast(audio.device.type, torch.bfloat16, enabled=self.autocast)
