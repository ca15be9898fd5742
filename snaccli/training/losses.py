"""Losses between a recording and its decoded copy: waveforms, spectra in several resolutions, loudness."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snac.spectrum import mel_bank, mel_edges
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
        the means over clips of the L1 distance of log10 band magnitudes, that of log10 bin magnitudes, and
        that of the square roots of the magnitudes relative to their sum.
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


class PhaseLoss(nn.Module):
    """How far phases do not advance from frame to frame as those of the recording, and how far they are off.

    The advance of a bin's phase is the frequency of what sounds there (Flanagan and Golden 1966, doi
    10.1002/j.1538-7305.1966.tb01706.x), which, unlike the phase itself, few bits can keep. Distances of
    magnitudes hardly tell a decoder which phases would keep its tones steady; advances do. The phases
    themselves count at the lowest frequencies only, where few bits tell them and most is gained: they say
    when the pulses of a voice come. Each loss is the mean of 1 - cos of the differences, weighted by the
    square root of the recording's magnitudes.

    Args:
        rate: Hz of the audio.
        window: samples of the Hann window; the hop is a quarter of it.
        highest: Hz above which no advance counts.
        highest_phase: Hz above which no phase counts, at most ``highest``.
    """

    _QUIET = 0.02  # added to the mean weight, so that silence does not count; full scale is about window / 4

    def __init__(
        self, rate: int, window: int = 1024, highest: float = 5000.0, highest_phase: float = 700.0
    ) -> None:
        super().__init__()
        self.window = window
        self.bins, self.phase_bins = (
            min(window // 2, round(limit * window / rate)) for limit in (highest, highest_phase)
        )
        self.register_buffer("hann", torch.hann_window(window), persistent=False)

    def _spectra(self, audio: Tensor) -> Tensor:
        """(B, T) to (B, frames, bins, 2)."""
        hop = self.window // 4
        audio = F.pad(audio, (0, max(0, self.window + hop - audio.shape[-1])))
        spectrum = torch.fft.rfft(audio.unfold(-1, self.window, hop) * self.get_buffer("hann"))
        return torch.view_as_real(spectrum[..., 1 : self.bins])

    def forward(self, decoded: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of ``decoded`` against ``target``, both (B, T): 0 for equal ones, about 1 for noise.

        Returns:
            of the advances, of the phases.
        """
        with torch.no_grad():
            wanted = self._spectra(target)
            *wanted_advance, size = _turned(wanted[:, 1:], wanted[:, :-1])
            weight = size.sqrt()
        got = self._spectra(decoded)
        *advance, _ = _turned(got[:, 1:], got[:, :-1])
        alike = wanted_advance[0] * advance[0] + wanted_advance[1] * advance[1]
        low = slice(0, self.phase_bins - 1)
        cosine, _, _ = _turned(got[:, :, low], wanted[:, :, low])
        weight_of_phase = wanted[:, :, low].square().sum(-1) ** 0.25
        return self._mean(alike, weight), self._mean(cosine, weight_of_phase)

    def _mean(self, cosine: Tensor, weight: Tensor) -> Tensor:
        loss: Tensor = (weight * (1 - cosine)).mean((1, 2)) / (weight.mean((1, 2)) + self._QUIET)
        return loss.mean()


def _turned(later: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine and sine of the angle from ``earlier`` to ``later`` complex values (..., 2), and the product of
    their magnitudes."""
    cosine = (later * earlier).sum(-1)
    sine = later[..., 1] * earlier[..., 0] - later[..., 0] * earlier[..., 1]
    size = torch.sqrt(cosine.square() + sine.square() + 1e-16)
    return cosine / size, sine / size, size
