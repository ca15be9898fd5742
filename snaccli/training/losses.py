"""Reconstruction losses of codec training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..measures import mel_filters

WINDOWS = (128, 256, 512, 1024, 2048)

_QUIET = 0.1  # keeps the convergence of near-silent clips from outweighing all else
_QUIET_POWER = 1e-6  # likewise, of mean squares: -60 dB of full scale
_FLOOR = 1e-5  # of magnitudes before the logarithm: -100 dB of full scale


class SpectralLoss(nn.Module):
    """Multi-scale STFT and mel losses in one pass over each spectrogram.

    For each window: the spectral convergence and the L1 distance of log magnitudes (Yamamoto et al. 2020,
    arXiv 1910.11480, section 2.2), and the L1 distance of log10 mel magnitudes (Kumar et al. 2023, arXiv
    2306.06546, section 3.4). Windows are Hann, hops a quarter of them. Each clip counts by itself, so the
    loss of a batch is the mean of those of its parts.

    Args:
        rate: Hz of the audio.
        stft_windows: lengths in samples for the STFT loss.
        mel_windows: likewise for the mel loss, which has 5 bands for each 64 samples of the window.
    """

    def __init__(
        self,
        rate: int,
        stft_windows: Sequence[int] = WINDOWS,
        mel_windows: Sequence[int] = WINDOWS,
    ) -> None:
        super().__init__()
        self.stft_windows, self.mel_windows = frozenset(stft_windows), frozenset(mel_windows)
        for window in sorted(self.stft_windows | self.mel_windows):
            self.register_buffer(f"hann_{window}", torch.hann_window(window), persistent=False)
        for window in mel_windows:
            bands = max(4, window * 5 // 64)
            filters = torch.tensor(mel_filters(rate, window, bands), dtype=torch.float32)
            # Unit peak rather than unit area keeps the floor at one loudness for all windows.
            filters = filters / filters.amax(dim=1, keepdim=True).clamp(min=1e-12)
            self.register_buffer(f"mel_{window}", filters, persistent=False)

    def _magnitudes(self, audio: Tensor, window: int) -> Tensor:
        hann = self.get_buffer(f"hann_{window}")
        spectrum = torch.stft(
            audio, window, window // 4, window=hann, center=True, pad_mode="constant", return_complex=True
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        return torch.sqrt(power + 1e-14) * (2.0 / window)

    def forward(self, decoded: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of ``decoded`` against ``target``, both (B, T): (STFT, mel), means over windows, clips."""
        stft = decoded.new_zeros(())
        mel = decoded.new_zeros(())
        for window in sorted(self.stft_windows | self.mel_windows):
            with torch.no_grad():
                wanted = self._magnitudes(target, window)  # B bins frames
            got = self._magnitudes(decoded, window)
            if window in self.stft_windows:
                error = torch.linalg.vector_norm(got - wanted, dim=(1, 2))  # B
                convergence = error / (torch.linalg.vector_norm(wanted, dim=(1, 2)) + _QUIET)
                stft = stft + convergence.mean() + F.l1_loss(_log(got), _log(wanted))
            if window in self.mel_windows:
                filters = self.get_buffer(f"mel_{window}")
                mel = mel + F.l1_loss(_log(filters @ got), _log(filters @ wanted))
        return stft / max(len(self.stft_windows), 1), mel / max(len(self.mel_windows), 1)


class LowBandLoss(nn.Module):
    """Relative error of the waveform below a cutoff, phase included.

    Spectrogram losses leave phases free, and a decoder that has just begun fills the spectrum with noise.
    Below a kilohertz, where melodies and voices have their fundamentals, a few bits a period suffice for the
    waveform itself; this loss asks for it. It is the ratio of the norms of error and target a clip, for the
    low-passed waveform and for its first difference, which lifts the upper part of the band; 1 is what
    silence scores.

    Args:
        rate: Hz of the audio.
        cutoff: Hz, where the low-pass is 6 dB down.
    """

    def __init__(self, rate: int, cutoff: float = 1000.0) -> None:
        super().__init__()
        self.step = max(1, int(rate / (3 * cutoff)))
        half = round(3 * rate / cutoff)
        position = torch.arange(-half, half + 1, dtype=torch.float64) * (2 * cutoff / rate)
        taps = torch.sinc(position) * torch.hann_window(2 * half + 1, periodic=False, dtype=torch.float64)
        self.register_buffer("taps", (taps / taps.sum()).float()[None, None], persistent=False)

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Loss of ``decoded`` against ``target``, both (B, T)."""
        taps = self.get_buffer("taps")
        both = torch.stack((target, decoded - target))[:, :, None].flatten(0, 1)
        low = F.conv1d(both, taps, stride=self.step, padding=taps.shape[-1] // 2)[:, 0]
        loss = decoded.new_zeros(())
        for signal in (low, low.diff(dim=-1)):
            wanted, error = signal.square().mean(-1).chunk(2)
            loss = loss + (torch.sqrt(error + 1e-10) / torch.sqrt(wanted + _QUIET_POWER)).mean()
        return loss / 2


def _log(magnitudes: Tensor) -> Tensor:
    return torch.log10(magnitudes.clamp(min=_FLOOR))
