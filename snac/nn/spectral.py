"""Encoder and decoder of the spectral form: ConvNeXt blocks at the rate of the latent frames.

The decoder is that of Vocos (Siuzdak 2023, arXiv 2306.00814): ConvNeXt blocks (Liu et al. 2022, arXiv
2201.03545) and one short-time spectrum a frame, turned into samples by an inverse Fourier transform with
overlap-add. The encoder has the same blocks over log magnitudes. Between the layers signals are (B, T, C),
batch by frames by channels, as the linear layers and norms want them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snac import spectrum
from snac.config import LONG_BANDS, SHORT_BANDS, SpectralConfig, Stack


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm and two linear layers, scaled and added to the input.

    Args:
        dim: channels in and out.
        hidden: channels between the linear layers.
        scale: what each channel's scale begins with.
    """

    def __init__(self, dim: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, spectrum.TAPS, padding=spectrum.TAPS // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=spectrum.NORM_EPSILON)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        hidden = F.gelu(self.expand(self.norm(self._convolved(x))), approximate="tanh")
        y: Tensor = x + self.scale * self.contract(hidden)
        return y

    def _convolved(self, x: Tensor) -> Tensor:
        # As an image of one row with its channels last, which torch convolves without copying it over; the
        # one-dimensional convolution takes several times as long to train.
        image = x.transpose(1, 2).unsqueeze(2)  # B C 1 T
        weight, padding = self.depthwise.weight.unsqueeze(2), (0, spectrum.TAPS // 2)
        image = F.conv2d(image, weight, self.depthwise.bias, padding=padding, groups=weight.shape[0])
        return image.squeeze(2).transpose(1, 2)


class _ConvNeXt(nn.Module):
    """A convolution to the stack's channels, a norm, the blocks, and a norm."""

    def __init__(self, channels: int, size: Stack) -> None:
        super().__init__()
        self.embed = nn.Conv1d(channels, size.dim, spectrum.TAPS, padding=spectrum.TAPS // 2)
        self.norm = nn.LayerNorm(size.dim, eps=spectrum.NORM_EPSILON)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(size.dim, size.hidden, 1 / size.blocks) for _ in range(size.blocks)
        )
        self.final_norm = nn.LayerNorm(size.dim, eps=spectrum.NORM_EPSILON)

    def _stacked(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, T, dim)."""
        x = self.norm(self.embed(x).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.final_norm(x)
        return y


class SpectralEncoder(_ConvNeXt):
    """Samples to latents, by way of the features that ``snac.spectrum`` describes."""

    long_window: Tensor
    short_window: Tensor
    long_bank: Tensor
    short_bank: Tensor

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__(config.features, config.encoder)
        self.hop, self.linear_bins, self.phase_bins = config.hop_length, config.linear_bins, config.phase_bins
        self.project = nn.Linear(config.encoder.dim, config.latent_dim)
        _constant(self, "long_window", spectrum.hann(config.window_length))
        _constant(self, "short_window", spectrum.hann(config.hop_length))
        rate = config.sampling_rate
        long = spectrum.mel_bank(rate, config.window_length, spectrum.mel_edges(rate, LONG_BANDS))
        short = spectrum.mel_bank(rate, config.hop_length, spectrum.mel_edges(rate, SHORT_BANDS))
        _constant(self, "long_bank", long.T)
        _constant(self, "short_bank", short.T)

    def features(self, audio: Tensor) -> Tensor:
        """(B, 1, T), T a multiple of the hop, to (B, features, T / hop); in single precision throughout."""
        with _single_precision(audio.device):
            signal = audio[:, 0].float()
            spectra = _spectra(signal, self.long_window, self.hop)  # B F bins 2
            long = _magnitudes(spectra)
            short = _magnitudes(_spectra(signal, self.short_window, self.hop // 2))  # B 2F bins
            halves = (short @ self.short_bank.float()).reshape(long.shape[0], long.shape[1], -1)
            parts = [long @ self.long_bank.float(), halves, long[..., : self.linear_bins]]
            logarithms = torch.cat(parts, dim=-1).clamp(min=spectrum.FLOOR).log()
            logarithms = (logarithms + spectrum.SHIFT) / spectrum.SCALE
            low = spectra[..., : self.phase_bins, :]
            scale = (low.square().sum((-2, -1)) + spectrum.QUIET) ** spectrum.POWER
            waveform = (low * scale[..., None, None]).transpose(-1, -2).flatten(-2)
            return torch.cat((logarithms, waveform), dim=-1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) to (B, C, T / hop)."""
        features = self.features(x).to(self.embed.weight.dtype)
        latents: Tensor = self.project(self._stacked(features))
        return latents.transpose(1, 2)


class SpectralDecoder(_ConvNeXt):
    """Latents to samples, by way of a log magnitude and a phase for each bin of a spectrum a frame."""

    window: Tensor
    turns: Tensor

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__(config.latent_dim, config.decoder)
        self.hop = config.hop_length
        self.bins, self.phase_bins = config.bins, config.phase_bins
        self.head = nn.Linear(config.decoder.dim, config.spectrum_values)
        _constant(self, "window", spectrum.hann(config.window_length))
        _constant(self, "turns", spectrum.running_phases(config))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, 1, T * hop)."""
        spectra: Tensor = self.head(self._stacked(x))
        return self.samples(spectra).unsqueeze(1).to(x.dtype)

    def samples(self, spectra: Tensor, first: int = 0) -> Tensor:
        """The inverse Fourier transform with overlap-add: (B, T, values) to (B, T * hop), in 32 bits.

        The values are those of a frame that ``snac.spectrum`` describes.

        ``first`` is the first frame's place in the recording, which matters where phases run on.

        The frames are weighted by the window once more and the sum divided by that of the squared windows
        (Griffin and Lim 1984, equation 6). At least two windows overlap everywhere, so it is never near zero.
        """
        with _single_precision(spectra.device):
            sizes = [self.bins, self.bins, self.phase_bins, self.phase_bins]
            log_magnitude, phase, *steered = torch.split(spectra.float(), sizes, dim=-1)
            places = torch.arange(first, first + phase.shape[1], device=phase.device)
            turns = self.turns.float()[places % self.turns.shape[0]]
            magnitude = log_magnitude.clamp(max=spectrum.LARGEST_LOG_MAGNITUDE).exp()
            cosine, sine = self._directions(phase, turns, *steered)
            window = self.window.float()
            length = window.shape[0]
            spectrum_ = torch.complex(magnitude * cosine, magnitude * sine)
            frames = torch.fft.irfft(spectrum_, n=length) * window  # B T length
            weights = window.square().expand(1, frames.shape[1], length)
            # Cut before they are divided: at the outer edges the windows are zero.
            kept = ((length - self.hop) // 2, frames.shape[1] * self.hop)
            weight = _overlapped(weights, self.hop).narrow(1, *kept)
            return _overlapped(frames, self.hop).narrow(1, *kept) / weight

    def _directions(self, phase: Tensor, turns: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the phases, each (B, T, bins); ``a`` and ``b`` are (B, T, phase_bins)."""
        low, phase = self.phase_bins, phase + turns
        cosine, sine = phase.cos(), phase.sin()
        if not low:
            return cosine, sine
        real, imaginary = cosine[..., :low] + a, sine[..., :low] + b
        scale = torch.rsqrt(real.square() + imaginary.square() + spectrum.LEAST_SQUARE)
        return (
            torch.cat((real * scale, cosine[..., low:]), -1),
            torch.cat((imaginary * scale, sine[..., low:]), -1),
        )


def _single_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast, of which some devices, such as meta, know nothing."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _constant(module: nn.Module, name: str, values: np.ndarray) -> None:
    """A buffer that moves with the module and is not saved: the configuration says what it is."""
    module.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)), persistent=False)


def _spectra(signal: Tensor, window: Tensor, hop: int) -> Tensor:
    """Complex spectra (B, T / hop, bins, 2) of windows that are centred on each hop of (B, T)."""
    length = window.shape[0]
    margin = (length - hop) // 2
    frames = F.pad(signal, (margin, margin)).unfold(-1, length, hop) * window.float()
    return torch.view_as_real(torch.fft.rfft(frames))


def _magnitudes(spectra: Tensor) -> Tensor:
    """Of complex spectra (B, F, bins, 2): (B, F, bins)."""
    # The gradient of the complex absolute value is slow, and wanted where a loss compares features.
    return spectra.square().sum(-1).sqrt()


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """The sum of frames (B, T, N), each ``hop`` after the one before: (B, (T - 1) * hop + N)."""
    batch, count, length = frames.shape
    pieces = length // hop
    parts = frames.reshape(batch, count, pieces, hop)
    joined = F.pad(parts[:, :, 0], (0, 0, 0, pieces - 1))  # B (T + pieces - 1) hop
    for piece in range(1, pieces):
        joined = joined + F.pad(parts[:, :, piece], (0, 0, piece, pieces - 1 - piece))
    return joined.reshape(batch, -1)
