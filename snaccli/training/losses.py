"""Reconstruction losses of codec training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snaccli.measures import mel_filters

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


class IntelligibilityLoss(nn.Module):
    """How far short-time envelopes are from being those of the recording: 1 - STOI, near enough.

    The correlation of the envelopes of 15 one-third octave bands from 150 Hz up, over 30 frames of 25.6 ms
    (Taal et al. 2011, doi 10.1109/TASL.2011.2114881, equations 1 to 5), at the audio's own rate. Unlike
    there, a stretch of 30 frames counts if it is not 40 dB below the loudest of its clip, where the paper
    drops single frames; clips shorter than that are one stretch.

    Args:
        rate: Hz of the audio.
    """

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.window = round(0.0256 * rate)
        self.size = 1 << self.window.bit_length()
        centres = 150 * 2 ** (torch.arange(15, dtype=torch.float64) / 3)
        centres = centres[centres * 2 ** (1 / 6) < rate / 2]
        bins = torch.arange(self.size // 2 + 1, dtype=torch.float64) * rate / self.size
        above = bins >= centres[:, None] * 2 ** (-1 / 6)
        below = bins < centres[:, None] * 2 ** (1 / 6)
        self.register_buffer("bands", (above & below).float(), persistent=False)
        self.register_buffer("hann", torch.hann_window(self.window), persistent=False)

    def _envelopes(self, audio: Tensor) -> Tensor:
        """Audio (B, T) to band magnitudes in stretches of up to 30 frames, (B, bands, stretches, frames)."""
        spectrum = torch.stft(
            audio,
            self.size,
            self.window // 2,
            self.window,
            self.get_buffer("hann"),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = torch.view_as_real(spectrum).square().sum(-1)
        bands = torch.sqrt(self.get_buffer("bands") @ power + 1e-8)
        frames = min(30, bands.shape[-1])
        return bands.unfold(-1, frames, 1)

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Loss of ``decoded`` against ``target``, both (B, T): 0 for equal ones and silence, 1 for noise."""
        with torch.no_grad():
            wanted = self._envelopes(target)
            level = torch.linalg.vector_norm(wanted, dim=(1, 3))  # B stretches
            silence = 1e-4 * wanted[0, :, 0].numel() ** 0.5  # the level of an all-zero stretch
            counted = (level > (0.01 * level.amax(dim=1, keepdim=True)).clamp(min=2 * silence)).float()
            norm = torch.linalg.vector_norm(wanted, dim=-1, keepdim=True)
            wanted_unit = F.normalize(wanted - wanted.mean(-1, keepdim=True), dim=-1, eps=1e-6)
        got = self._envelopes(decoded)
        got = got * (norm / torch.linalg.vector_norm(got, dim=-1, keepdim=True))
        # The clipping of the paper, at -15 dB, bounds what a single frame can spoil.
        got = torch.minimum(got, wanted * (1 + 10 ** (15 / 20)))
        got_unit = F.normalize(got - got.mean(-1, keepdim=True), dim=-1, eps=1e-6)
        likeness = (wanted_unit * got_unit).sum(-1).mean(1)  # B stretches
        loss: Tensor = ((1 - likeness) * counted).sum(1) / counted.sum(1).clamp(min=1)
        return loss.mean()


def _log(magnitudes: Tensor) -> Tensor:
    return torch.log10(magnitudes.clamp(min=_FLOOR))
