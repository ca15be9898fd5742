"""Losses for a decoder that predicts spectra: magnitudes in several resolutions, and perceived loudness.

All compare decoded audio with its recording below the bandwidth of the recording: a band that a recording
does not hold must not teach the model that this band is silent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snac.spectrum import mel_bank, mel_edges

_BAND_FLOOR = 1e-4  # of mean magnitudes of a band before the logarithm
_BIN_FLOOR = 1e-3  # of magnitudes of a bin; spectra are not normalised, so full scale is about window / 4
_COMPRESSED_QUIET = 5.0  # added to the sum of compressed magnitudes, so that silence does not count


def compare_magnitudes(
    wanted: Tensor, got: Tensor, filters: Tensor, bands_in: Tensor, bins_in: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Three distances of magnitude spectra; a function of tensors alone, so that it can be compiled.

    Args:
        wanted, got: (B, frames, bins), of the recording and as decoded.
        filters: (bands, bins).
        bands_in, bins_in: 1 where a band or bin lies below the recording's bandwidth, else 0: (B, bands),
            (B, bins).

    Returns:
        the mean over clips of: the L1 distance of log10 band magnitudes, that of log10 bin magnitudes, and
            the L1
        distance of the square roots of the magnitudes relative to their sum.
    """
    frames = wanted.shape[1]
    bands = [torch.log10((part @ filters.t()).clamp(min=_BAND_FLOOR)) for part in (wanted, got)]
    log_mel = ((bands[0] - bands[1]).abs() * bands_in[:, None]).sum((1, 2))
    log_mel = log_mel / (bands_in.sum(1).clamp(min=1) * frames)
    wanted, got = wanted.clamp(min=_BIN_FLOOR), got.clamp(min=_BIN_FLOOR)
    log_magnitude = ((wanted.log10() - got.log10()).abs() * bins_in[:, None]).sum((1, 2))
    log_magnitude = log_magnitude / (bins_in.sum(1).clamp(min=1) * frames)
    wanted, got = wanted.sqrt(), got.sqrt()
    compressed = ((wanted - got).abs() * bins_in[:, None]).sum((1, 2))
    compressed = compressed / ((wanted * bins_in[:, None]).sum((1, 2)) + _COMPRESSED_QUIET)
    return log_mel.mean(), log_magnitude.mean(), compressed.mean()


class MagnitudeLoss(nn.Module):
    """Distances of magnitude spectra over several windows: of mel bands, of bins, and of compressed
    magnitudes.

    The first two are logarithmic and ask for envelopes (Kumar et al. 2023, arXiv 2306.06546, section 3.4).
    The third weighs by magnitude, so that harmonics count for more than the noise between them; it leaves
    out windows below 1024 samples, which do not resolve harmonics. Windows are Hann, hops a quarter of them.

    Args:
        rate: Hz of the audio.
        windows: lengths in samples; each has 5 mel bands for 64 samples, 120 at most.
    """

    _RESOLVES_HARMONICS = 1024

    def __init__(self, rate: int, windows: Sequence[int]) -> None:
        super().__init__()
        self.rate = rate
        self.windows = tuple(sorted(set(windows)))
        self.compare = compare_magnitudes
        """What compares; replaced where it is compiled."""
        for window in self.windows:
            bands = min(120, max(4, window * 5 // 64))
            edges = mel_edges(rate, bands)
            filters = torch.from_numpy(mel_bank(rate, window, edges))
            centres = torch.from_numpy(edges[1:-1]).float()
            self.register_buffer(f"hann_{window}", torch.hann_window(window), persistent=False)
            self.register_buffer(f"filters_{window}", filters, persistent=False)
            self.register_buffer(f"centres_{window}", centres, persistent=False)

    def _magnitudes(self, audio: Tensor, window: int) -> Tensor:
        """(B, T) to (B, frames, bins)."""
        padded = F.pad(audio, (window // 2, window // 2))
        spectrum = torch.fft.rfft(padded.unfold(-1, window, window // 4) * self.get_buffer(f"hann_{window}"))
        # abs() of complex numbers is slow to differentiate.
        return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-10)

    def forward(self, decoded: Tensor, target: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of ``decoded`` against ``target``, both (B, T), below ``bandwidth`` (B,) in Hz.

        Returns:
            of mel bands, of bins, of compressed magnitudes: means over windows and clips.
        """
        sums = [decoded.new_zeros(()) for _ in range(3)]
        for window in self.windows:
            with torch.no_grad():
                wanted = self._magnitudes(target, window)
            got = self._magnitudes(decoded, window)
            bins = torch.linspace(0, self.rate / 2, window // 2 + 1, device=decoded.device)
            centres = self.get_buffer(f"centres_{window}")
            bands_in, bins_in = ((f < bandwidth[:, None]).to(got) for f in (centres, bins))
            parts = self.compare(wanted, got, self.get_buffer(f"filters_{window}"), bands_in, bins_in)
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
            if window < self._RESOLVES_HARMONICS:
                sums[2] = sums[2] - parts[2]
        fine = sum(window >= self._RESOLVES_HARMONICS for window in self.windows)
        return sums[0] / len(self.windows), sums[1] / len(self.windows), sums[2] / max(fine, 1)


def _bark(frequency: Tensor) -> Tensor:
    """Critical-band rate of frequencies in Hz (Zwicker and Terhardt 1980, doi 10.1121/1.385079)."""
    return 13 * torch.atan(0.00076 * frequency) + 3.5 * torch.atan((frequency / 7500) ** 2)


class DisturbanceLoss(nn.Module):
    """How disturbing the difference in loudness is, after the manner of PESQ (ITU-T P.862 and P.862.2).

    PESQ as a loss was shown by Martin-Donas et al. 2018 (doi 10.1109/LSP.2018.2871419); this is a free
    rendering of it: power spectra of 32 ms in 49 equal bands of the Bark scale up to 7.8 kHz, Zwicker's
    loudness, a dead zone for what is masked, and a symmetric and an asymmetric disturbance, the latter for
    what was added. There is no alignment in time and no compensation of gains and filters, which a codec
    should not need; the threshold in quiet is Terhardt's formula (1979, doi 10.1016/0378-5955(79)90025-X).
    The result is about 4.5 less the score.

    Args:
        rate: Hz of the audio.
    """

    BANDS = 49
    _LOUDNESS, _EXPONENT = 0.1866, 0.23  # sone; of Zwicker's law, as P.862 has them
    _POWER_OF_ONE = 1e4 / 436 * 32768**2  # mean square of full scale as a power in which 40 dB SPL is 1e4
    _LEVEL = 1e7 * 1e4 / 436  # to which P.862 brings the power from 300 to 3250 Hz

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.window = round(0.032 * rate) // 2 * 2
        frequencies = torch.arange(self.window // 2 + 1, dtype=torch.float64) * rate / self.window
        barks = _bark(frequencies)
        half = torch.gradient(barks)[0] / 2  # of the width of a bin
        first, last = (float(_bark(torch.tensor(frequency))) for frequency in (60.0, 7800.0))
        edges = torch.linspace(first, last, self.BANDS + 1, dtype=torch.float64)
        upper = torch.minimum(barks + half, edges[1:, None])
        lower = torch.maximum(barks - half, edges[:-1, None])
        shares = (upper - lower).clamp(min=0) / (2 * half)
        grid = torch.arange(1, 12_001, dtype=torch.float64)
        middle = ((edges[1:] + edges[:-1]) / 2)[:, None]
        centres = grid[(_bark(grid) - middle).abs().argmin(1)]
        k = centres / 1000
        quiet_db = 3.64 * k**-0.8 - 6.5 * torch.exp(-0.6 * (k - 3.3) ** 2) + 1e-3 * k**4
        hann = torch.hann_window(self.window, dtype=torch.float64)
        scale = self._POWER_OF_ONE * 2 / (self.window * float(hann.square().sum()))
        self.width = float(edges[1] - edges[0])
        self.register_buffer("hann", hann.float(), persistent=False)
        self.register_buffer("shares", (shares * scale).float(), persistent=False)
        self.register_buffer("centres", centres.float(), persistent=False)
        self.register_buffer("quiet", (10 ** (quiet_db.clamp(max=60) / 10)).float(), persistent=False)
        speech = ((frequencies > 300) & (frequencies < 3250)).double() * scale
        self.register_buffer("speech", speech.float(), persistent=False)

    def _powers(self, audio: Tensor) -> Tensor:
        """(B, T) to power spectra (B, frames, bins)."""
        audio = F.pad(audio, (0, max(0, self.window - audio.shape[-1])))
        spectrum = torch.fft.rfft(audio.unfold(-1, self.window, self.window // 2) * self.get_buffer("hann"))
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return power

    def _loudness(self, power: Tensor) -> Tensor:
        quiet = self.get_buffer("quiet")
        above = (0.5 + 0.5 * power / quiet) ** self._EXPONENT - 1
        loudness: Tensor = self._LOUDNESS * (quiet / 0.5) ** self._EXPONENT * above.clamp(min=0)
        return loudness

    def forward(self, decoded: Tensor, target: Tensor, bandwidth: Tensor) -> Tensor:
        """Loss of ``decoded`` against ``target``, both (B, T), below ``bandwidth`` (B,) in Hz."""
        shares = self.get_buffer("shares")
        with torch.no_grad():
            powers = self._powers(target)
            level = (powers @ self.get_buffer("speech")).mean(1)
            gain = (self._LEVEL / level.clamp(min=2e4))[:, None, None]
            wanted = (powers @ shares.t()) * gain
        got = (self._powers(decoded) @ shares.t()) * gain
        counted = (self.get_buffer("centres") < bandwidth[:, None]).to(got)[:, None]
        loud_wanted, loud_got = self._loudness(wanted), self._loudness(got)
        masked = 0.25 * torch.minimum(loud_wanted, loud_got)
        disturbance = ((loud_got - loud_wanted).abs() - masked).clamp(min=0) * counted * self.width
        ratio = ((got + 50) / (wanted + 50)) ** 1.2
        added = torch.where(ratio < 3, torch.zeros_like(ratio), ratio.clamp(max=12))
        audible = ((wanted.sum(-1) + 1e5) / 1e7) ** 0.04
        symmetric = torch.sqrt(disturbance.square().sum(-1) * (self.BANDS * self.width) + 1e-4) / audible
        asymmetric = (disturbance * added).sum(-1) / audible
        parts = (
            factor * torch.sqrt(part.clamp(max=45).square().mean(1) + 1e-6)
            for factor, part in ((0.1, symmetric), (0.0309, asymmetric))
        )
        loss: Tensor = sum(parts, torch.zeros(())).mean()
        return loss


class AdvanceLoss(nn.Module):
    """How far phases do not advance from frame to frame as those of the recording do.

    The advance of a bin's phase is the frequency of what sounds there (Flanagan and Golden 1966, doi
    10.1002/j.1538-7305.1966.tb01706.x), which, unlike the phase itself, few bits can keep. Distances of
    magnitudes hardly tell a decoder which phases would keep its tones steady; this does. The loss is the mean
    of 1 - cos of the differences of the advances, weighted by the square root of the recording's magnitudes.

    Args:
        rate: Hz of the audio.
        window: samples of the Hann window; the hop is a quarter of it.
        highest: Hz above which nothing counts.
    """

    _QUIET = 0.02  # added to the mean weight, so that silence does not count; full scale is about window / 4

    def __init__(self, rate: int, window: int = 1024, highest: float = 5000.0) -> None:
        super().__init__()
        self.window = window
        self.bins = min(window // 2, round(highest * window / rate))
        self.register_buffer("hann", torch.hann_window(window), persistent=False)

    def _advances(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T) to the cosines and sines of the advances, and their magnitudes; each (B, frames, bins)."""
        hop = self.window // 4
        audio = F.pad(audio, (0, max(0, self.window + hop - audio.shape[-1])))
        spectrum = torch.fft.rfft(audio.unfold(-1, self.window, hop) * self.get_buffer("hann"))
        real, imaginary = torch.view_as_real(spectrum[..., 1 : self.bins]).unbind(-1)
        cosine = real[:, 1:] * real[:, :-1] + imaginary[:, 1:] * imaginary[:, :-1]
        sine = imaginary[:, 1:] * real[:, :-1] - real[:, 1:] * imaginary[:, :-1]
        size = torch.sqrt(cosine.square() + sine.square() + 1e-16)
        return cosine / size, sine / size, size

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Loss of ``decoded`` against ``target``, both (B, T): 0 for equal ones, about 1 for noise."""
        with torch.no_grad():
            *wanted, size = self._advances(target)
            weight = size.sqrt()
        *got, _ = self._advances(decoded)
        alike = wanted[0] * got[0] + wanted[1] * got[1]
        loss: Tensor = (weight * (1 - alike)).mean((1, 2)) / (weight.mean((1, 2)) + self._QUIET)
        return loss.mean()
