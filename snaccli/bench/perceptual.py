"""STOI and PESQ of speech, by the packages of the extra ``snaccli[metrics]``.

Both want a signal as a whole. It is given to them in stretches of 30 seconds, resampled to 16 kHz, and
the values are averaged by length: so memory does not grow with a recording, and PESQ stays near the length
that its standard is meant for.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import soxr

from snaccli.workers import interruption

__all__ = ["PACKAGES", "Perceptual", "load_packages", "missing", "remark"]

Samples = npt.NDArray[np.float32]

PACKAGES = ("pystoi", "pesq")
"""What computes the measures."""

_RATE = 16_000  # of wide-band PESQ; STOI goes down to 10 kHz from there by itself
_STRETCH_S = 30


def missing() -> list[str]:
    """Returns those of `PACKAGES` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def load_packages() -> None:
    """Imports those that are installed: within a recording, a failure would be taken for the recording's."""
    for name in set(PACKAGES).difference(missing()):
        try:
            import_module(name)
        except Exception as error:  # a package that does not fit: told by each recording that needs it
            if (interrupt := interruption(error)) is not None:
                raise interrupt from error


def remark() -> str:
    """Returns what to tell the user where a package is missing; empty if none is."""
    names = {"pystoi": "STOI", "pesq": "PESQ"}
    absent = [names[package] for package in missing()]
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    whom = "it" if len(absent) == 1 else "them"
    return f"{' and '.join(absent)} {verb} left out; for {whom}: pip install 'snaccli[metrics]'"


class Perceptual:
    """Both measures of one recording, fed block by block in constant memory.

    Args:
        rate: rate of both signals, Hz.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._have = [name for name in PACKAGES if name not in missing()]
        self._pending: list[tuple[Samples, Samples]] = []
        self._samples = 0
        self._sums = {name: [0.0, 0.0] for name in self._have}  # value x length, length

    def update(self, reference: Samples, decoded: Samples) -> None:
        """Adds the next aligned blocks, (n, 1), full scale 1.0."""
        if not self._have:
            return
        stretch = _STRETCH_S * self._rate
        while len(reference):
            taken = min(len(reference), stretch - self._samples)
            self._pending.append((reference[:taken, 0].copy(), decoded[:taken, 0].copy()))
            self._samples += taken
            reference, decoded = reference[taken:], decoded[taken:]
            if self._samples == stretch:
                self._measure()

    def result(self) -> dict[str, float | None]:
        """Returns ``{"stoi": …, "pesq": …}``, None where undefined or not installed. Ends the comparison."""
        if self._samples:
            self._measure()
        values = {}
        for key, package in (("stoi", "pystoi"), ("pesq", "pesq")):
            total, length = self._sums.get(package, (0.0, 0.0))
            values[key] = total / length if length else None
        return values

    def _measure(self) -> None:
        pair = [
            soxr.resample(np.concatenate(side), self._rate, _RATE)
            for side in zip(*self._pending, strict=True)
        ]
        for name in self._have:
            value = stoi(*pair) if name == "pystoi" else pesq(*pair)
            if value is not None:
                self._sums[name][0] += value * self._samples
                self._sums[name][1] += self._samples
        self._pending, self._samples = [], 0


def stoi(reference: Samples, decoded: Samples) -> float | None:
    """Returns the short-time objective intelligibility of speech at 16 kHz, about 0 to 1, higher is better.

    None where there is too little speech to tell (less than 0.4 s, or silence). Source: Taal, Hendriks,
    Heusdens and Jensen, An algorithm for intelligibility prediction of time-frequency weighted noisy speech,
    IEEE TASL 19(7), 2011.
    """
    from pystoi import stoi as by_pystoi

    if not reference.any():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # how pystoi says that there is too little
        try:
            value = float(by_pystoi(reference, decoded, _RATE))
        except (RuntimeWarning, ValueError, IndexError):
            return None
    return value if math.isfinite(value) else None


def pesq(reference: Samples, decoded: Samples) -> float | None:
    """Returns the perceived quality of speech at 16 kHz, 1.04 to 4.64 (MOS-LQO), higher is better.

    None without speech.

    Source: ITU-T P.862.2, Wideband extension to Recommendation P.862, 2007.
    """
    import pesq as by_pesq

    if not (reference.any() and decoded.any()):
        return None
    with contextlib.suppress(by_pesq.PesqError, ValueError):
        value = float(by_pesq.pesq(_RATE, reference, decoded, "wb"))
        return value if math.isfinite(value) else None
    return None
